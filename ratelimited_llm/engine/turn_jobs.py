"""Jobs of calls that are sent by their own callers, who wait until it is their turn."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from ..core.request import Lane, State
from ..exceptions import WorkerStopped
from .gates import sleep_at
from .plain_answers import IN_QUEUE
from .steps import Job

if TYPE_CHECKING:
    from ..worker import RateLimitedWorker

__all__ = ["OwnTurnJob", "TurnJob"]


class OwnTurnJob(Job):
    """A call whose caller waits for its turn and then sends it itself; subclasses say how that waits.

    Args:
        worker: whose queue it is.
        *args, **kwargs: see `QueuedRequest`.

    Attributes:
        error: what it was given up with, until its caller has been told.
    """

    __slots__ = ("error", "lane", "worker")

    jumps = True

    def __init__(self, worker: RateLimitedWorker, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.worker = worker
        self.lane: Lane | None = None
        self.error: BaseException | None = None

    def left(self, torn: BaseException) -> None:
        """Its caller does not wait any more, since this has struck it: it is not sent."""
        self.worker.unsent(self)
        if self.tally is not None:
            self.tally.failed(self, torn)

    def raise_error(self) -> None:
        """Raise what it was given up with, if it was; a cancelled wait raises CancelledError."""
        if self.error is None:
            return
        error, self.error = self.error, None
        if self.tally is not None:
            self.tally.failed(self, error)
        if isinstance(error, WorkerStopped) and self.state is State.CANCELLED:
            raise CancelledError(str(error)) from error
        raise error


class TurnJob(OwnTurnJob):
    """A call whose caller waits for its turn and then sends it in its own thread.

    So there is no hand-over: thread-local state, Ctrl-C and tracebacks are as without us.
    """

    __slots__ = ("gate",)

    def __init__(self, worker: RateLimitedWorker, *args: Any, **kwargs: Any) -> None:
        super().__init__(worker, *args, **kwargs)
        self.gate: Any = threading.Lock()  # taken until it is this call's turn
        self.gate.acquire()

    def taken(self) -> bool:
        """Take the turn if it has come already; False when it is to be waited for."""
        return self.error is None and bool(self.gate.acquire(blocking=False))

    def wait(self) -> None:
        """Block until it may be sent.

        Raises:
            BaseException: it never may; what it was given up with. A cancelled wait raises CancelledError.
        """
        try:
            with IN_QUEUE:
                sleep_at(self.gate)
        except BaseException as torn:
            self.left(torn)
            raise
        self.raise_error()

    def dispatch(self) -> None:
        self.gate.release()

    def give_up(self, error: BaseException) -> None:
        self.error = error
        self.gate.release()

    def abandon(self, error: BaseException) -> None:
        self.error = error
        if self.gate.locked():
            self.gate.release()
