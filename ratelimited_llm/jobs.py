"""The two ways to wait for a call: a future that a sending thread resolves, and a turn that the caller takes itself."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from .core.feedback import Feedback, Kind, Outcome
from .core.request import Lane, State
from .core.retry import RetryPolicy
from .exceptions import WorkerStopped
from .light_future import LightFuture, abandon
from .senders import KEPT
from .worker import Job, RateLimitedWorker

__all__ = ["Answer", "AttemptFailed", "FutureJob", "TurnJob", "in_call"]

UNTRIED = Feedback(Outcome(Kind.REJECTED))
_current = threading.local()


def in_call() -> bool:
    """Whether this thread is sending a call right now, so that a call it makes is made from inside that one."""
    return getattr(_current, "depth", 0) > 0


class Sending:
    """Marks this thread as sending a call, for as long as the `with` block lasts."""

    __slots__ = ()

    def __enter__(self) -> None:
        _current.depth = getattr(_current, "depth", 0) + 1

    def __exit__(self, *error: object) -> None:
        _current.depth -= 1


SENDING = Sending()


@dataclass(slots=True)
class Answer:
    """What a successful attempt brought.

    Attributes:
        value: what the caller gets.
        feedback: what it taught.
        open: it is a stream that goes on and keeps the call's place; whoever made it says when it ends.
    """

    value: Any
    feedback: Feedback
    open: bool = False


class AttemptFailed(BaseException):
    """An attempt brought no answer, and this is what it taught. No Exception: no `except` of an SDK may swallow it.

    Attributes:
        feedback: how it ended.
        policy: whether such an end is tried again.
        error: what the caller gets if it is not.
    """

    def __init__(self, feedback: Feedback, policy: RetryPolicy, error: BaseException) -> None:
        super().__init__(feedback.outcome.kind.value)
        self.feedback = feedback
        self.policy = policy
        self.error = error


NEVER_AGAIN = RetryPolicy(max_retries=0, max_refusals=0)


class FutureJob(Job):
    """A call that a sending thread makes, and whose future it resolves. Subclasses say what sending is.

    Attributes:
        future: what the caller holds; None when the call has ended.
        worker: whose call it is; it holds the worker for as long as the call is pending.
    """

    __slots__ = ("future", "worker")

    future: LightFuture[Any] | None
    worker: RateLimitedWorker

    def send(self) -> Answer:
        """Make one attempt, on this thread.

        Raises:
            AttemptFailed: it brought no answer, and it may be tried again.
            BaseException: it failed for good.
        """
        raise NotImplementedError

    def prepare(self) -> None:
        """Have threads ready for calls that may have to be sent while the interpreter ends."""
        senders = self.worker.senders
        if senders.alive < KEPT:
            senders.prepare(min(self.worker.pending + 1, KEPT))

    def dispatch(self) -> None:
        if not self.worker.senders.run(self._run):
            self._run()  # no thread can be had at all: late is better than never

    def _run(self) -> None:
        future = self.future
        if future is None or (not future.running() and not future.set_running_or_notify_cancel()):
            self.worker.unsent(self)
            return
        try:
            with SENDING:
                answer = self.send()
        except AttemptFailed as failure:
            self.worker.failed(self, failure.feedback, failure.policy, failure.error)
        except BaseException as error:  # whatever it is, it is the caller's, and the thread goes on
            self.worker.failed(self, UNTRIED, NEVER_AGAIN, error)
        else:
            self._resolve(future, answer)

    def _resolve(self, future: LightFuture[Any], answer: Answer) -> None:
        self.future = None  # a stream keeps its job until it ends, but not its own future
        if answer.open:
            self.worker.streaming(self, answer.feedback)
            future.set_result(answer.value)
        else:
            future.set_result(answer.value)
            self.worker.answered(self, answer.feedback)

    def give_up(self, error: BaseException) -> None:
        # Callbacks are the user's code, so they run on a sending thread.
        if not self.worker.senders.run(partial(self._fail, error)):
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        future, self.future = self.future, None
        if future is None:
            return
        if isinstance(error, WorkerStopped) and future.cancel():
            future.set_running_or_notify_cancel()
            return
        with suppress(Exception):  # it may have been cancelled meanwhile
            future.set_exception(error)

    def abandon(self, error: BaseException) -> None:
        future, self.future = self.future, None
        if future is not None:
            abandon(future, error)


class TurnJob(Job):
    """A call whose caller waits for its turn and then sends it in its own thread.

    So there is no hand-over: thread-local state, Ctrl-C and tracebacks are as without us.
    """

    __slots__ = ("error", "gate", "lane", "worker")

    def __init__(self, worker: RateLimitedWorker, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.worker = worker
        self.lane: Lane | None = None
        self.error: BaseException | None = None
        self.gate = threading.Lock()
        self.gate.acquire()

    def wait(self) -> None:
        """Block until it may be sent.

        Raises:
            BaseException: it never may; what it was given up with. A cancelled wait raises CancelledError.
        """
        try:
            while not self.gate.acquire(timeout=0.2):
                pass  # in slices, so that Ctrl-C is heard on every platform
        except BaseException:
            self.worker.unsent(self)
            raise
        if self.error is not None:
            error, self.error = self.error, None
            if isinstance(error, WorkerStopped) and self.state is State.CANCELLED:
                raise CancelledError(str(error)) from error
            raise error

    def dispatch(self) -> None:
        self.gate.release()

    def give_up(self, error: BaseException) -> None:
        self.error = error
        self.gate.release()

    def abandon(self, error: BaseException) -> None:
        self.error = error
        if self.gate.locked():
            self.gate.release()
