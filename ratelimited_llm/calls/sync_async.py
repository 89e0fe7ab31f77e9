"""What a call has to wait for, as values: one course of events serves a thread that blocks and a task that awaits.

The course is a generator that yields what it waits for and gets what came of it; `block` and `run` are its drivers.

Thousands of tasks may wait at once, and the garbage collector looks at every object that each of them holds, again and
again. So a wait makes no coroutine of its own where the one it is for will do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ..engine.gates import sleep_at
from ..engine.jobs import SENDING
from ..exceptions import RequestExpired

if TYPE_CHECKING:
    from ..queues.entry import RemoteEntry
    from .attempt import Attempt
    from .journaled import Entry

__all__ = ["Others", "Quick", "Sent", "Steps", "Turn", "block", "run"]

T = TypeVar("T")


class Turn:
    """The moment that a job may be sent; for one that has it already (`job.taken`) there is nothing to wait for.

    Args:
        job: one whose `wait` blocks, or is a coroutine function.
    """

    __slots__ = ("job",)

    def __init__(self, job: Any) -> None:
        self.job = job

    def block(self) -> None:
        self.job.wait()

    def wait(self) -> Awaitable[None]:
        return self.job.wait()  # type: ignore[no-any-return]


class Sent:
    """Something else of the SDK's own: what it makes of an answer.

    Args:
        make: makes it and returns the answer, or something to await for it.
    """

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make

    def block(self) -> Any:
        with SENDING:
            return self.make()

    def wait(self) -> Awaitable[Any]:
        return self.make()  # type: ignore[no-any-return]


class Quick:
    """Something that blocks for some milliseconds at most: a commit to a disk."""

    __slots__ = ("work",)

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work

    def block(self) -> Any:
        return self.work()

    async def wait(self) -> Any:
        import asyncio

        # Whatever cancels the task meanwhile: the work is done, and what came of it is known.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self.work))


class Others:
    """The end of another call that is at the same answer.

    Args:
        entry: the call's own place in the journal.
        expires_at: monotonic seconds until when it is worth waiting; None for ever.
        since: when the call was submitted.

    Raises:
        RequestExpired: it took longer, when it is waited for.
    """

    __slots__ = ("entry", "expires_at", "since")

    def __init__(self, entry: Entry | RemoteEntry, expires_at: float | None, since: float) -> None:
        self.entry = entry
        self.expires_at = expires_at
        self.since = since

    def block(self) -> None:
        gate = threading.Lock()
        gate.acquire()
        self.entry.follow(lambda found: gate.release())
        if not sleep_at(gate, self._left()):
            raise self._expired()

    async def wait(self) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        over = asyncio.Event()

        def told(found: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(over.set)

        self.entry.follow(told)
        try:
            await asyncio.wait_for(over.wait(), self._left())
        except asyncio.TimeoutError:
            raise self._expired() from None

    def _left(self) -> float | None:
        return None if self.expires_at is None else max(0.0, self.expires_at - time.monotonic())

    def _expired(self) -> RequestExpired:
        assert self.expires_at is not None
        return RequestExpired(time.monotonic() - self.since, self.expires_at - self.since)


Wait: TypeAlias = "Attempt | Turn | Sent | Quick | Others"
Steps = Generator[Wait, Any, T]


def block(steps: Steps[T]) -> T:
    """Drive a course of events in this thread; returns what it returns, and raises what it raises."""
    try:
        wait = next(steps)
        while True:
            try:
                result = wait.block()
            except BaseException as error:
                wait = steps.throw(error)
            else:
                wait = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        del steps  # a traceback that somebody keeps ends here


async def run(steps: Steps[T]) -> T:
    """Drive a course of events in this task; as `block`."""
    try:
        wait = next(steps)
        while True:
            try:
                result = await wait.wait()
            except BaseException as error:
                wait = steps.throw(error)
            else:
                wait = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        del steps
