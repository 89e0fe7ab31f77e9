"""A call whose caller is a task: the worker's thread tells its event loop when it may be sent."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from ..engine.jobs import AttemptFailed
from ..engine.turn_jobs import OwnTurnJob
from .client_job import ClientJob

if TYPE_CHECKING:
    from ..worker import RateLimitedWorker
    from .queued_call import QueuedCall

__all__ = ["AsyncTurn", "TaskTurn"]


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "a queued call waits for its turn on asyncio's event loop, and none is running here: await it in "
            "asyncio.run(...). Under another library's loop (trio) call a client for threads in one: "
            'trio.to_thread.run_sync with OpenAI(mode="blocking")'
        ) from None


class TaskTurn(OwnTurnJob):
    """Something that a task does when it is its turn.

    It waits in the same queue as the threads of the process, whatever its loop: one worker, one order, one budget.

    Args:
        worker: whose queue it is.
        *args, **kwargs: see `QueuedRequest`.
    """

    __slots__ = ("come", "gate", "loop")

    drives = True  # thread and loop would only get into each other's way

    def __init__(self, worker: RateLimitedWorker, *args: Any, **kwargs: Any) -> None:
        super().__init__(worker, *args, **kwargs)
        self.loop = _running_loop()
        self.come = False  # whether it is this call's turn; only its loop's thread looks
        self.gate: asyncio.Future[None] | None = None  # of the task that waits for it

    def taken(self) -> bool:
        """Take the turn if it has come already; False when it is to be waited for."""
        if not self.come or self.error is not None:
            return False
        self.come = False
        return True

    async def wait(self) -> None:
        """Wait until it may be sent.

        Raises:
            BaseException: it never may; what it was given up with.
        """
        if not self.come:
            self.gate = self.loop.create_future()
            try:
                await self.gate
            except BaseException as torn:
                self.left(torn)
                raise
            finally:
                self.gate = None
        self.come = False
        self.raise_error()

    def dispatch(self) -> None:
        self._open()

    def give_up(self, error: BaseException) -> None:
        self.error = error
        self._open()

    def abandon(self, error: BaseException) -> None:
        self.error = error  # the child of a fork has no running loop: nobody waits here

    def _open(self) -> None:
        try:
            if asyncio._get_running_loop() is self.loop:
                self._come()
            else:
                self.loop.call_soon_threadsafe(self._come)
        except RuntimeError:  # the loop was closed with the task in it: nobody waits any more
            self.left(CancelledError())

    def _come(self) -> None:
        self.come = True
        if self.gate is not None and not self.gate.done():
            self.gate.set_result(None)


class AsyncTurn(ClientJob, TaskTurn):
    """A client's call whose caller is a task."""

    __slots__ = ("call",)

    call: QueuedCall

    async def again(self, failure: AttemptFailed) -> None:
        """Give the place back after a failed attempt, and wait for another."""
        self.call.came_back(failure)
        self.worker.failed(self, failure.feedback, failure.policy, failure.error)
        await self.wait()
