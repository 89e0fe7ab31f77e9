"""One run under a rain of faults, in a process of its own: 16 threads ask in every way there is; prints what became.

    python tests/faults/rain.py '{"url": "http://127.0.0.1:40123/v1", "calls": 200, "seed": 1, "directory": "/tmp/x"}'

It is started by `campaign.py`, which has the provider and judges what is printed here, one JSON object. The ways to ask
are in `ways.py`, and what happens in the middle is in `middle.py`.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import itertools
import json
import os
import random
import re
import signal
import sys
import threading
import time
import traceback as traceback_module
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from answers import GivenUp, Odd
from middle import Middle, open_files, put_clocks_in, real_monotonic
from ways import PATIENCE, Clients

THREADS = 16
TASK_THREADS = 2  # of them, those that run an event loop
AT_ONCE = 6  # calls that a thread has open
FULL_RATE = 10.0  # seconds within which there must be full rate again
GONE = 8.0  # seconds that threads and files have to be gone


class Rain:
    """The clients, the threads, and what became of each call.

    Args:
        url: of the provider.
        calls: how many in all.
        seed: who asks in which way.
        directory: for the journal and the shared budget.
        disturb: what happens, one after the other, each from its share of the calls on until the next: see `middle`.
        reserve: retries that each client always has; few, so that they are soon spent.
        rests: seconds of the first pause after trouble; None for the library's own.
        timeout: seconds of the clients' patience with one attempt.
        width: calls that each client may have in flight.
        probes: questions that are asked at once to see how fast they are answered.
    """

    def __init__(
        self, url: str, calls: int, seed: int, directory: str, disturb: Sequence[str] = (), reserve: float = 5.0,
        rests: float | None = None, timeout: float = 1.0, width: int = 96, probes: int = 150,
    ) -> None:  # fmt: skip
        self.calls, self.seed, self.width, self.probes = calls, seed, width, probes
        self.moments = {calls * (index + 1) // (len(disturb) + 1): name for index, name in enumerate(disturb)}
        self.outcomes: dict[str, tuple[str, str]] = {}
        self.wrong: list[str] = []
        self.kept: set[str] = set()  # the calls whose answers a journal has to keep
        self.numbers: Iterator[int] = iter(range(calls))
        self.taking = threading.Lock()
        shorten(reserve, rests)
        folder = Path(directory)
        self.clients = Clients(
            url, timeout=timeout, width=width, journal=str(folder / "run.db"), budget=str(folder / "budget.db"),
            partly=self.partly,
        )  # fmt: skip
        self.middle = Middle(self.clients, seed, self.wrong)

    # -- the threads --------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Ask everything, and then see how soon there is full rate again."""
        before = self.burst("probe-before")
        threads = [
            threading.Thread(target=self.ask_as_task if index < TASK_THREADS else self.ask, args=(index,),
                             name=f"asks-{index}")
            for index in range(THREADS)
        ]  # fmt: skip
        began = real_monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, began + PATIENCE * 2 - real_monotonic()))
        self.wrong += [f"{thread.name} waits for ever" for thread in threads if thread.is_alive()]
        if self.wrong:
            faulthandler.dump_traceback()
        rained = real_monotonic() - began
        self.middle.is_over()
        recovered = self.recovery(before)
        self.whole_width()
        kept = [tag for tag in self.kept if self.outcomes.get(tag, ("",))[0] == "answered"]
        return {
            "outcomes": self.outcomes, "wrong": self.wrong, "rained": rained, "recovered": recovered, "kept": kept,
        }  # fmt: skip

    def next_number(self) -> int | None:
        with self.taking:
            number = next(self.numbers, None)
            if number in self.moments:
                self.middle.happens(self.moments[number])
        return number

    def ask(self, index: int) -> None:
        number: int | None = 0
        while number is not None:
            opened: list[tuple[str, Callable[[], str]]] = []
            while len(opened) < AT_ONCE and (number := self.next_number()) is not None:
                tag, way = str(number), random.Random(f"{self.seed}/{number}").choice(self.clients.ways)
                if way in self.clients.keeping:
                    self.kept.add(tag)
                with self.noting(tag):
                    opened.append((tag, way(tag)))
            for tag, text in opened:
                with self.noting(tag):
                    self.told(tag, text())

    def ask_as_task(self, index: int) -> None:
        asyncio.run(self.ask_as_tasks(journalled=index == 0))

    async def ask_as_tasks(self, journalled: bool) -> None:
        async with self.clients.tasks(journalled) as ask:

            async def one() -> None:
                while (number := self.next_number()) is not None:
                    tag = str(number)
                    if journalled:
                        self.kept.add(tag)
                    with self.noting(tag):
                        self.told(tag, await ask(tag, number % 3 == 0))

            await asyncio.gather(*(one() for _ in range(AT_ONCE)))

    # -- what became --------------------------------------------------------------------------------------------------

    def told(self, tag: str, text: str) -> None:
        if text == f"[{tag}] {tag}":
            self.outcomes[tag] = ("answered", "")
        else:
            self.outcomes[tag] = ("odd", repr(text)[:200])

    class _Noting:
        """Notes how a call failed; an error that tells of another call is wrong."""

        def __init__(self, rain: Rain, tag: str) -> None:
            self.rain, self.tag = rain, tag

        def __enter__(self) -> None:
            pass

        def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> bool:
            if error is None:
                return True
            if not isinstance(error, (Exception, CancelledError)):
                return False
            what = "odd" if isinstance(error, Odd) else "given up" if isinstance(error, GivenUp) else "error"
            self.rain.outcomes[self.tag] = (what, f"{type(error).__module__}.{type(error).__name__}: {error}"[:300])
            if type(error) is RuntimeError:
                traceback_module.print_exception(error)
            for other in re.findall(r"<([\w-]+)>|\[(\d+)\]", f"{error} {getattr(error, 'doc', '')}"):
                if "".join(other).isdigit() and "".join(other) != self.tag:
                    self.rain.wrong.append(f"call {self.tag} was told of call {other}: {error!r}"[:300])
            # The manager keeps errors for good, and they would keep this thread's frame with its unread streams.
            each: BaseException | None = error
            while each is not None:
                each.__traceback__, each = None, each.__context__
            return True

    def noting(self, tag: str) -> _Noting:
        return self._Noting(self, tag)

    def partly(self, tag: str, pieces: list[str]) -> None:
        """What comes of a stream, whole or broken, must be the beginning of the right one."""
        if not f"[{tag}] {tag}".startswith("".join(pieces)):
            self.wrong.append(f"call {tag} was streamed {pieces!r}")

    # -- full rate ----------------------------------------------------------------------------------------------------

    def burst(self, name: str) -> float:
        """Ask questions that are always answered; answers the seconds that it takes.

        Not through Groq's door: no header of its tells the requests per minute, so what was refused for no reason at
        all is tried again slowly, as each try may be one more refusal.
        """
        began = real_monotonic()
        ways = itertools.islice(itertools.cycle(self.clients.doors.values()), self.probes)
        self.together([(f"{name}-{index}", way) for index, way in enumerate(ways)])
        return real_monotonic() - began

    def together(self, questions: list[tuple[str, Callable[[str], Callable[[], str]]]]) -> None:
        """Ask them all, and then read the answers."""
        opened = [(tag, way(tag)) for tag, way in questions]
        for tag, text in opened:
            said = text()
            if said != f"[{tag}] {tag}":
                self.wrong.append(f"{tag} was told {said!r}")

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
                standings = [repr(client.status())[:900] for client in (self.clients.openai, self.clients.session)]
                os.write(2, f"a burst took {lasted:.1f} s, {before:.1f} before: {standings}\n".encode())
            round_ += 1
        return None

    def whole_width(self) -> None:
        """As many calls of each door as it may have in flight, which the provider answers when all of them are there.

        So a place that was not given back in the rain is seen, and a connection too. Not through Groq's door, see
        `burst`; but every door has a look at its books.
        """
        self.wrong += still_open()
        self.clients.timeout = PATIENCE
        for name, way in self.clients.doors.items():
            tags = [f"probe-width/{name}/{self.width}/{number}" for number in range(self.width)]
            try:
                self.together([(tag, way) for tag in tags])
            except Exception as error:
                self.wrong.append(f"{name} is not as wide as it was: {error!r}")


def shorten(reserve: float, rests: float | None) -> None:
    """Have fewer retries in reserve than the library has, and rest less after trouble."""
    from ratelimited_llm import worker
    from ratelimited_llm.calls import attempt
    from ratelimited_llm.core import limiter, pause

    worker.RetryBudget = partial(worker.RetryBudget, reserve)  # type: ignore[misc, assignment]
    if rests is None:
        return
    attempt.POLICY = replace(attempt.POLICY, initial=rests)
    for module in (pause, limiter):
        module.FIRST_PAUSE = rests  # type: ignore[attr-defined]
    pause.LONGEST_PAUSE = 10 * rests


def still_open() -> list[str]:
    """Calls that are in some book of ours although nobody has any open; streams that nobody has read among them."""
    from ratelimited_llm.engine import lifecycle

    end = real_monotonic() + GONE
    while True:
        gc.collect()
        workers = lifecycle._all()
        found = [f"{each!r} still has {list(each.engine.inherited())[:5]}" for each in workers if each.pending]
        for budget in {id(each.budget): each.budget for each in workers}.values():
            limiters: dict[Any, Any] = budget._limiters  # type: ignore[attr-defined]
            found += [
                f"{getattr(pool, 'family', pool)} still has {limiter.in_flight} places taken"
                for pool, limiter in limiters.items() if limiter.in_flight
            ]  # fmt: skip
        if not found or real_monotonic() > end:
            return found
        time.sleep(0.05)


def left_behind(threads: set[threading.Thread], files: int) -> list[str]:
    """The threads and files that are more than before, when they have had time to go."""
    end = real_monotonic() + GONE
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
    import anyio._backends._asyncio  # noqa: F401  # else imported at the first await, under a lock that a fork leaves taken
    import groq  # noqa: F401
    import openai  # noqa: F401

    import ratelimited_llm.requests  # noqa: F401

    asyncio.run(asyncio.sleep(0))
    threads, files = set(threading.enumerate()), open_files()
    rain = Rain(**options)
    result = rain.run()
    rain.clients.close()
    del rain
    result["left"] = left_behind(threads, files)
    os.write(1, json.dumps(result).encode() + b"\n")


if __name__ == "__main__":
    main()
