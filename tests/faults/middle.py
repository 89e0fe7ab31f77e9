"""What happens to the process in the middle of a rain: each by name, from its moment on until the next."""

from __future__ import annotations

import _thread
import asyncio
import faulthandler
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from ways import Clients, question

__all__ = ["MIDDLE", "Middle", "open_files", "put_clocks_in", "real_monotonic"]

HOURS = 3 * 3600.0
YEARS = 5 * 365 * 86_400.0
NAP = 0.3  # seconds between two looks at the clock after which the process must have been stopped
CHILD = 40  # seconds that the child of a fork may take
FILES = (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)
FIRST_LIMITS = {name: resource.getrlimit(name)[0] for name in FILES}
# What every thread is started by, whoever starts it; Python 3.13 has another.
STARTS = [
    (module, name, getattr(module, name))
    for module, name in (
        (_thread, "start_new_thread"), (threading, "_start_new_thread"), (threading, "_start_joinable_thread"),
    )
    if hasattr(module, name)
]  # fmt: skip

real_monotonic, real_time = time.monotonic, time.time


class Clocks:
    """The clocks of this process, which can jump and stand still."""

    monotonic = 0.0  # seconds that they are ahead
    time = 0.0
    frozen: float | None = None


clocks = Clocks()


def put_clocks_in() -> None:
    """From here on they can; before our package is imported, which keeps them."""

    def monotonic() -> float:
        frozen = clocks.frozen
        return real_monotonic() + clocks.monotonic if frozen is None else frozen

    time.monotonic = monotonic
    time.time = lambda: real_time() + clocks.time


class Middle:
    """Does what its methods are called, and undoes it.

    Args:
        clients: of the rain; whoever forks asks through them in the child.
        seed: of what is left to chance.
        wrong: where it is noted what must not be.
    """

    def __init__(self, clients: Clients, seed: int, wrong: list[str]) -> None:
        self.clients, self.chance, self.wrong = clients, random.Random(seed), wrong
        self.waiting: threading.Thread | None = None  # for the child of a fork

    def is_over(self) -> None:
        """Everything is there again, and the child of the fork has gone, which may have taken long."""
        self.undo()
        if self.waiting is not None:
            self.waiting.join(CHILD)

    def happens(self, name: str) -> None:
        """End what went on, and begin this; some of it is done by whoever started us, who reads its name."""
        self.undo()
        if name in MIDDLE:
            MIDDLE[name](self)
        os.write(1, f"{name}\n".encode())

    def undo(self) -> None:
        """Everything is there again that was taken away."""
        for module, name, start in STARTS:
            setattr(module, name, start)
        for name in FILES:
            resource.setrlimit(name, (FIRST_LIMITS[name], resource.getrlimit(name)[1]))

    # -- what runs out ------------------------------------------------------------------------------------------------

    def few_threads(self) -> None:
        self._refuse_threads(lambda: self.chance.random() < 0.7)

    def no_threads(self) -> None:
        self._refuse_threads(lambda: True)

    def _refuse_threads(self, refused: Callable[[], bool]) -> None:
        for module, name, real in STARTS:

            def start(run: Callable[..., Any], *args: Any, real: Any = real, **kwargs: Any) -> Any:
                thread = getattr(run, "__self__", None)
                ours = not isinstance(thread, threading.Thread) or thread.name.startswith("ratelimited-llm")
                if ours and refused():
                    raise RuntimeError("can't start new thread")
                return real(run, *args, **kwargs)

            setattr(module, name, start)

    def few_files(self) -> None:
        self._limit(resource.RLIMIT_NOFILE, open_files() + 4)

    def no_files(self) -> None:
        self._limit(resource.RLIMIT_NOFILE, open_files())

    def full_disk(self) -> None:
        self._limit(resource.RLIMIT_FSIZE, 4096)

    def _limit(self, name: int, limit: int) -> None:
        resource.setrlimit(name, (limit, resource.getrlimit(name)[1]))

    # -- clocks -------------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """The machine slept, and the monotonic clock did not."""
        clocks.monotonic += HOURS

    def suspend(self) -> None:
        """The machine sleeps (whoever started us stops the process), and the monotonic clock sleeps with it."""
        clocks.frozen = real_monotonic() + clocks.monotonic
        threading.Thread(target=self._wakes, name="asks-when-it-wakes").start()

    def _wakes(self) -> None:
        last = began = real_monotonic()
        while last - began < 5.0:
            time.sleep(0.01)
            now = real_monotonic()
            if now - last > NAP:
                break
            last = now
        assert clocks.frozen is not None
        clocks.monotonic, clocks.frozen = clocks.frozen - real_monotonic(), None

    def clock(self) -> None:
        clocks.time += YEARS

    def clock_back(self) -> None:
        clocks.time -= 2 * YEARS

    # -- a fork -------------------------------------------------------------------------------------------------------

    def fork(self) -> None:
        """The child ends what it inherits, asks a few questions of its own and goes; the parent goes on meanwhile."""
        pending = self.clients.openai.chat.completions.create(**question("probe-inherited"))
        child = os.fork()
        if child:
            self.waiting = threading.Thread(target=self._child_ended, args=(child,), name="asks-child")
            self.waiting.start()
            return
        code = 1
        signal.alarm(CHILD)  # it would be waited for
        faulthandler.dump_traceback_later(CHILD - 5)
        try:
            self._in_child(pending)
            code = 0
        except BaseException as error:
            os.write(2, f"in the child: {error!r}\n".encode())
        finally:
            os._exit(code)

    def _in_child(self, pending: Any) -> None:
        from ratelimited_llm import WorkerStopped

        clients = self.clients
        error = pending.exception(timeout=10)
        assert error is None or isinstance(error, WorkerStopped), error  # None: a fork that took long, and it was over
        ways = "future", "through_groq", "blocking", "stream", "messages", "post", "function", "managed"
        for number, name in enumerate(3 * ways):
            tag = f"probe-child-{name}-{number}"
            said = getattr(clients, name)(tag)()
            assert said == f"[{tag}] {tag}", said
        asyncio.run(self._as_task())

    async def _as_task(self) -> None:
        async with self.clients.tasks(False) as ask:
            tag = "probe-child-task"
            assert await ask(tag, False) == f"[{tag}] {tag}"

    def _child_ended(self, child: int) -> None:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code:
            self.wrong.append(f"the child of a fork was not served ({code})")


MIDDLE: dict[str, Callable[[Middle], None]] = {
    "fork": Middle.fork, "few threads": Middle.few_threads, "no threads": Middle.no_threads,
    "few files": Middle.few_files, "no files": Middle.no_files, "disk": Middle.full_disk, "resume": Middle.resume,
    "suspend": Middle.suspend, "clock": Middle.clock, "clock back": Middle.clock_back,
}  # fmt: skip


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) - 1
