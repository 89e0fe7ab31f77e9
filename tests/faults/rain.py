"""One run under a rain of faults, in a process of its own: 16 threads ask in every way there is; prints what became.

    python tests/faults/rain.py '{"url": "http://127.0.0.1:40123/v1", "calls": 200, "seed": 1}'

It is started by `campaign.py`, which has the provider and judges what is printed here, one JSON object.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import json
import os
import random
import re
import resource
import signal
import sys
import threading
import time
import traceback as traceback_module
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from typing import Any

from answers import Odd, piece_of, text_of, text_of_json, text_of_message, text_of_message_stream, text_of_stream

THREADS = 16
TASK_THREADS = 2  # of them, those that run an event loop
AT_ONCE = 6  # calls that a thread has open
PATIENCE = 100.0  # seconds after which a call counts as one that never ends
FULL_RATE = 10.0  # seconds within which there must be full rate again
HOURS = 3 * 3600.0
YEARS = 5 * 365 * 86_400.0

real_monotonic, real_time, real_start = time.monotonic, time.time, threading.Thread.start
jumped = {"monotonic": 0.0, "time": 0.0}


def put_clocks_in() -> None:
    """From here on the clocks of this process can jump; before our package is imported, which keeps them."""
    time.monotonic = lambda: real_monotonic() + jumped["monotonic"]
    time.time = lambda: real_time() + jumped["time"]


class Rain:
    """The clients, the threads, and what became of each call.

    Args:
        url: of the provider.
        calls: how many in all.
        seed: who asks in which way.
        disturb: what happens, one after the other, each from its share of the calls on until the next: see `MIDDLE`.
        rests: seconds of the first pause after trouble; None for the library's own.
        timeout: seconds of the clients' patience with one attempt.
        journal: path of a journal for one of the clients; "" for none.
        probes: questions that are asked at once to see how fast they are answered.
    """

    def __init__(
        self, url: str, calls: int, seed: int, disturb: Sequence[str] = (), rests: float | None = None,
        timeout: float = 1.0, journal: str = "", probes: int = 150,
    ) -> None:  # fmt: skip
        self.url, self.calls, self.seed, self.timeout = url, calls, seed, timeout
        self.probes = probes
        self.moments = {calls * (index + 1) // (len(disturb) + 1): name for index, name in enumerate(disturb)}
        self.outcomes: dict[str, tuple[str, str]] = {}
        self.wrong: list[str] = []
        self.numbers: Iterator[int] = iter(range(calls))
        self.taking = threading.Lock()
        if rests is not None:
            shorten(rests)
        self.make(journal)

    def make(self, journal: str) -> None:
        from ratelimited_llm import Anthropic, Groq, OpenAI, requests

        ours: dict[str, Any] = {
            "api_key": "sk-test", "timeout": self.timeout, "rpm": 60_000, "max_concurrency": 96, "progress": False,
        }  # fmt: skip
        root = self.url.removesuffix("/v1")
        self.openai = OpenAI(base_url=self.url, **ours, **({"journal": journal} if journal else {}))
        self.groq = Groq(base_url=root, **ours)
        self.anthropic = Anthropic(base_url=root, **ours)
        self.session = requests.Session(rpm=60_000, max_concurrency=96, progress=False)
        # What an SDK imports at its first use it does under a lock, which a fork just then would leave locked for good.
        _ = self.openai.chat.completions, self.groq.chat.completions, self.anthropic.messages
        self.ways: list[Callable[[str], Callable[[], str]]] = [
            self.future, self.future, self.blocking, self.stream, self.through_groq, self.groq_stream, self.messages,
            self.message_stream, self.post, self.raw,
        ]  # fmt: skip

    # -- the ways to ask: each answers what to call for the text ------------------------------------------------------

    def future(self, tag: str) -> Callable[[], str]:
        future = self.openai.chat.completions.create(**question(tag))
        return lambda: text_of(future.result(timeout=PATIENCE))

    def blocking(self, tag: str) -> Callable[[], str]:
        answer = self.openai.with_options(mode="blocking").chat.completions.create(**question(tag))
        return lambda: text_of(answer)

    def stream(self, tag: str) -> Callable[[], str]:
        future = self.openai.chat.completions.create(**question(tag), stream=True)
        return lambda: text_of_stream(future.result(timeout=PATIENCE))

    def raw(self, tag: str) -> Callable[[], str]:
        future = self.openai.chat.completions.with_raw_response.create(**question(tag))
        return lambda: text_of(future.result(timeout=PATIENCE).parse())

    def through_groq(self, tag: str) -> Callable[[], str]:
        future = self.groq.chat.completions.create(**question(tag))
        return lambda: text_of(future.result(timeout=PATIENCE))

    def groq_stream(self, tag: str) -> Callable[[], str]:
        future = self.groq.chat.completions.create(**question(tag), stream=True)
        return lambda: text_of_stream(future.result(timeout=PATIENCE))

    def messages(self, tag: str) -> Callable[[], str]:
        future = self.anthropic.messages.create(**question(tag), max_tokens=10)
        return lambda: text_of_message(future.result(timeout=PATIENCE))

    def message_stream(self, tag: str) -> Callable[[], str]:
        future = self.anthropic.messages.create(**question(tag), max_tokens=10, stream=True)
        return lambda: text_of_message_stream(future.result(timeout=PATIENCE))

    def post(self, tag: str) -> Callable[[], str]:
        future = self.session.post(self.url + "/chat/completions", json=question(tag), timeout=self.timeout)

        def text() -> str:
            response = future.result(timeout=PATIENCE)
            response.raise_for_status()
            return text_of_json(response.json())

        return text

    # -- the threads --------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Ask everything, and then see how soon there is full rate again."""
        before = self.burst("probe-before")
        threads = [
            threading.Thread(target=self.ask_as_task if index < TASK_THREADS else self.ask, name=f"asks-{index}")
            for index in range(THREADS)
        ]
        began = real_monotonic()
        for thread in threads:
            real_start(thread)
        for thread in threads:
            thread.join(max(0.0, began + PATIENCE * 2 - real_monotonic()))
        self.wrong += [f"{thread.name} waits for ever" for thread in threads if thread.is_alive()]
        if self.wrong:
            faulthandler.dump_traceback()
        rained = real_monotonic() - began
        self.undo()
        recovered = self.recovery(before)
        return {"outcomes": self.outcomes, "wrong": self.wrong, "rained": rained, "recovered": recovered}

    def next_number(self) -> int | None:
        with self.taking:
            number = next(self.numbers, None)
            if number is not None:
                self.disturbance(number)
        return number

    def ask(self) -> None:
        number: int | None = 0
        while number is not None:
            opened: list[tuple[str, Callable[[], str]]] = []
            while len(opened) < AT_ONCE and (number := self.next_number()) is not None:
                tag, way = str(number), random.Random(f"{self.seed}/{number}").choice(self.ways)
                with self.noting(tag):
                    opened.append((tag, way(tag)))
            for tag, text in opened:
                with self.noting(tag):
                    self.told(tag, text())

    def ask_as_task(self) -> None:
        asyncio.run(self.ask_as_tasks())

    async def ask_as_tasks(self) -> None:
        from ratelimited_llm import AsyncOpenAI

        options: dict[str, Any] = {"timeout": self.timeout, "rpm": 60_000, "max_concurrency": 96, "progress": False}
        async with AsyncOpenAI(base_url=self.url, api_key="sk-test", **options) as client:

            async def one() -> None:
                while (number := self.next_number()) is not None:
                    tag = str(number)
                    with self.noting(tag):
                        if number % 3:
                            answer = await client.chat.completions.create(**question(tag))
                            self.told(tag, text_of(answer))
                            continue
                        stream = await client.chat.completions.create(**question(tag), stream=True)
                        pieces: list[str] = []
                        with self.partly(tag, pieces):
                            async for chunk in stream:
                                pieces.append(piece_of(chunk))
                        self.told(tag, "".join(pieces))

            await asyncio.gather(*(one() for _ in range(AT_ONCE)))

    # -- what became --------------------------------------------------------------------------------------------------

    def told(self, tag: str, text: str) -> None:
        if text == f"[{tag}] {tag}":
            self.outcomes[tag] = ("answered", "")
        else:
            self.outcomes[tag] = ("odd", repr(text)[:200])

    class _Noting:
        """Notes how a call failed; an error that nobody could expect is wrong."""

        def __init__(self, rain: Rain, tag: str) -> None:
            self.rain, self.tag = rain, tag

        def __enter__(self) -> None:
            pass

        def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> bool:
            if error is None:
                return True
            if not isinstance(error, (Exception, CancelledError)):
                return False
            what = "odd" if isinstance(error, Odd) else "error"
            self.rain.outcomes[self.tag] = (what, f"{type(error).__module__}.{type(error).__name__}: {error}"[:300])
            if isinstance(error, RuntimeError) and type(error) is RuntimeError:
                traceback_module.print_exception(error)
            for other in re.findall(r"<([\w-]+)>|\[(\d+)\]", f"{error} {getattr(error, 'doc', '')}"):
                if "".join(other).isdigit() and "".join(other) != self.tag:
                    self.rain.wrong.append(f"call {self.tag} was told of call {other}: {error!r}"[:300])
            return True

    def noting(self, tag: str) -> _Noting:
        return self._Noting(self, tag)

    class _Partly:
        """A stream that breaks: what came of it must be the beginning of the right one."""

        def __init__(self, rain: Rain, tag: str, pieces: list[str]) -> None:
            self.rain, self.tag, self.pieces = rain, tag, pieces

        def __enter__(self) -> None:
            pass

        def __exit__(self, *error: object) -> None:
            if not f"[{self.tag}] {self.tag}".startswith("".join(self.pieces)):
                self.rain.wrong.append(f"call {self.tag} was streamed {self.pieces!r}")

    def partly(self, tag: str, pieces: list[str]) -> _Partly:
        return self._Partly(self, tag, pieces)

    # -- full rate ----------------------------------------------------------------------------------------------------

    def burst(self, name: str) -> float:
        """Ask questions that are always answered; answers the seconds that it takes.

        Not through Groq's door: no header of its tells the requests per minute, so what was refused for no reason at
        all is tried again slowly, as each try may be one more refusal.
        """
        began = real_monotonic()
        ways = [self.future, self.messages, self.post]
        opened = []
        for index in range(self.probes):
            tag = f"{name}-{index}"
            opened.append((tag, ways[index % len(ways)](tag)))
        for tag, text in opened:
            said = text()
            if said != f"[{tag}] {tag}":
                self.wrong.append(f"{tag} was told {said!r}")
        return real_monotonic() - began

    def standings(self) -> list[str]:
        """The limits as each door sees them, to look for what is slow."""
        return [repr(client.status())[:900] for client in (self.openai, self.anthropic, self.session)]

    def recovery(self, before: float) -> float | None:
        """Seconds until a burst takes no longer than before the rain; None when it never does."""
        began, round_ = real_monotonic(), 0
        while real_monotonic() - began < 2 * FULL_RATE:
            so_far = real_monotonic() - began
            try:
                lasted = self.burst(f"probe-{round_}")
            except Exception as error:  # what is left of the rain may still strike a connection
                self.outcomes[f"probe-{round_}"] = ("error", repr(error))
            else:
                if lasted <= 2 * before + 0.5:
                    return so_far
                os.write(2, f"a burst took {lasted:.1f} s, {before:.1f} before: {self.standings()}\n".encode())
            round_ += 1
        return None

    # -- what happens in the middle -----------------------------------------------------------------------------------

    def disturbance(self, number: int) -> None:
        """Called with each number that is taken, by whoever takes it."""
        name = self.moments.get(number)
        if name is not None:
            self.undo()
            os.write(1, f"{name}\n".encode())  # some of it is done by whoever started us
            MIDDLE[name](self)

    def undo(self) -> None:
        """Everything is there again that was taken away."""
        threading.Thread.start = real_start  # type: ignore[method-assign]
        for name in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE):
            most = resource.getrlimit(name)[1]
            resource.setrlimit(name, (FIRST_LIMITS[name], most))

    def few_threads(self) -> None:
        chance = random.Random(self.seed)

        def start(thread: threading.Thread) -> None:
            if thread.name.startswith("ratelimited-llm-") and chance.random() < 0.7:
                raise RuntimeError("can't start new thread")
            real_start(thread)

        threading.Thread.start = start  # type: ignore[method-assign, assignment]

    def few_files(self) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 4, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    def full_disk(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def fork(self) -> None:
        """The child ends what it inherits, asks a few questions of its own and goes; the parent goes on meanwhile."""
        pending = self.openai.chat.completions.create(**question("probe-inherited"))
        child = os.fork()
        if child:
            threading.Thread(target=self.child_ended, args=(child,), name="asks-child").start()
            return
        code = 1
        signal.alarm(30)  # it would be waited for
        try:
            with suppress(Exception):
                pending.result(timeout=10)
            for index in range(3):
                tag = f"probe-child-{index}"
                assert self.future(tag)() == f"[{tag}] {tag}"
                assert self.through_groq(tag)() == f"[{tag}] {tag}"
            code = 0
        except BaseException as error:
            os.write(2, f"in the child: {error!r}\n".encode())
        finally:
            os._exit(code)

    def child_ended(self, child: int) -> None:
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            self.wrong.append("the child of a fork was not served")

    def close(self) -> None:
        for client in (self.openai, self.groq, self.anthropic, self.session):
            client.close()

    def resume(self) -> None:
        jumped["monotonic"] += HOURS

    def clock(self) -> None:
        jumped["time"] += YEARS

    def clock_back(self) -> None:
        jumped["time"] -= 2 * YEARS

    def elsewhere(self) -> None:
        """The one who has the provider does it."""


MIDDLE: dict[str, Callable[[Rain], None]] = {
    "fork": Rain.fork, "threads": Rain.few_threads, "files": Rain.few_files, "disk": Rain.full_disk,
    "resume": Rain.resume, "clock": Rain.clock, "clock back": Rain.clock_back, "stop": Rain.elsewhere,
    "outage": Rain.elsewhere, "limits": Rain.elsewhere,
}  # fmt: skip


FIRST_LIMITS = {name: resource.getrlimit(name)[0] for name in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)}


def shorten(rests: float) -> None:
    """Rest less after trouble than the library does."""
    from ratelimited_llm.calls import attempt
    from ratelimited_llm.core import limiter, pause

    attempt.POLICY = replace(attempt.POLICY, initial=rests)
    for module in (pause, limiter):
        module.FIRST_PAUSE = rests  # type: ignore[attr-defined]
    pause.LONGEST_PAUSE = 10 * rests


def question(tag: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": tag}]}


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) - 1


def left_behind(threads: set[threading.Thread], files: int) -> list[str]:
    """The threads and files that are more than before, when they have had time to go."""
    end = real_monotonic() + 8.0
    while True:
        gc.collect()
        # A finalizer that logs in the last moment of a thread makes `threading` put a dummy in its place.
        more = [t.name for t in threading.enumerate() if t not in threads and not t.name.startswith("Dummy-")]
        surplus = open_files() - files
        if (not more and surplus <= 0) or real_monotonic() > end:
            what = [f"the thread {name}" for name in more]
            links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)]
            return what + ([f"{surplus} files: {links}"] if surplus > 0 else [])
        time.sleep(0.05)


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


def main() -> None:
    """Run as told, and print what became."""
    options = json.loads(sys.argv[1])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR1)
    put_clocks_in()
    import concurrent.futures.thread  # noqa: F401  # imported in the middle of a fork, it lets go of its lock twice

    import anthropic  # noqa: F401
    import groq  # noqa: F401
    import openai  # noqa: F401

    import ratelimited_llm.requests  # noqa: F401

    asyncio.run(asyncio.sleep(0))
    threads, files = set(threading.enumerate()), open_files()
    rain = Rain(**options)
    result = rain.run()
    rain.close()
    del rain
    result["left"] = left_behind(threads, files)
    os.write(1, json.dumps(result).encode() + b"\n")


if __name__ == "__main__":
    main()
