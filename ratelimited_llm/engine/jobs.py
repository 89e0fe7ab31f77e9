"""What an attempt at a call brings, and the job of a call that a sending thread makes, and whose future it ends."""

from __future__ import annotations

import os
import threading
from concurrent.futures import CancelledError, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.feedback import Feedback, Kind, Outcome
from ..core.retry import RetryPolicy
from ..exceptions import WorkerStopped
from .engine import Engine
from .light_future import LightFuture, abandon, begin, callbacks_later
from .senders import KEPT
from .steps import NEVER_AGAIN, Job

if TYPE_CHECKING:
    from ..worker import RateLimitedWorker

__all__ = ["Answer", "AttemptFailed", "FutureJob", "NotNeeded", "in_call"]

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


class NotNeeded(BaseException):
    """What was about to be sent need not be: its budget is given back. No Exception, like `AttemptFailed`.

    Attributes:
        answer: what somebody else has got for it; None when somebody else is at it.
    """

    def __init__(self, answer: Any = None) -> None:
        super().__init__("somebody else has its answer, or is at it")
        self.answer = answer


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
            NotNeeded: it was not made; see `not_needed`.
            BaseException: it failed for good.
        """
        raise NotImplementedError

    def attempt(self) -> Answer:
        """Make one attempt, on this thread, and have its tally know; raises as `send`."""
        tally = self.tally
        return self.send() if tally is None else tally.around(self, self.send)

    def not_needed(self, found: NotNeeded) -> None:
        """It leaves the queue unsent, and sees to its future itself. Runs on a sending thread."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Have a thread ready, should it be sent while the interpreter ends; called when it was accepted."""
        engine = self.worker.engine
        if len(engine.senders.threads) < KEPT:
            engine.senders.prepare(engine.waiting + len(engine.flying))

    def dispatch(self) -> None:
        self.worker.engine.senders.run(self._run)

    def _run(self) -> None:
        """Make an attempt on this sending thread, and act on its end before the callbacks, which may take long."""
        engine, future = self.worker.engine, self.future
        if future is None or not begin(future):
            engine.post(engine.on_forgotten, self, ring=False)
            engine.drive(taking=True)
            return
        engine.ending.add(self)
        later = None
        try:
            later = self._attempt(engine, future)
        finally:
            engine.drive(taking=later is None)
            if later is not None:
                later.call()
            engine.over(self)
            del self, future  # a traceback of the attempt that somebody keeps ends in this frame, see `forget_frames`

    def _attempt(self, engine: Engine, future: LightFuture[Any]) -> callbacks_later | None:
        """Send it, leave a message about how it ended, and end its future; answer the callbacks to call, if any."""
        try:
            try:
                with SENDING:
                    answer = self.attempt()
            except AttemptFailed as failure:
                forget_frames(failure.error)
                policy = failure.policy if self.future is not None else NEVER_AGAIN  # nobody waits for it any more
                engine.post(engine.on_failed, self, (failure.feedback, policy, failure.error), ring=False)
                return None
            except NotNeeded as found:
                engine.post(engine.on_forgotten, self, ring=False)
                with callbacks_later() as later:
                    self.not_needed(found)
                return later if later.kept else None
            except BaseException as error:  # whatever it is, it is the caller's, and the thread goes on
                forget_frames(error)
                engine.post(engine.on_failed, self, (UNTRIED, NEVER_AGAIN, error), ring=False)
                return None
            engine.post(engine.on_streaming if answer.open else engine.on_answered, self, answer.feedback, ring=False)
            with callbacks_later() as later:
                self._resolve(future, answer)
            return later if later.kept else None
        finally:
            del self, future

    def _resolve(self, future: LightFuture[Any], answer: Answer) -> None:
        self.future = None  # a stream keeps its job until it ends, but not its own future
        with suppress(InvalidStateError):  # this is the child of a fork, where it was abandoned
            future.set_result(answer.value)

    def give_up(self, error: BaseException) -> None:
        if self.tally is not None:
            self.tally.failed(self, error)
        self._fail(error)

    def dropped(self) -> None:
        """Its caller has cancelled it while it waited."""
        if self.tally is not None:
            self.tally.failed(self, CancelledError())

    def _fail(self, error: BaseException) -> None:
        future, self.future = self.future, None
        if future is None:
            return
        if isinstance(error, WorkerStopped) and future.cancel():
            begin(future)  # those in wait() and as_completed() hear of it
            return
        with suppress(InvalidStateError):  # it may have been cancelled meanwhile
            future.set_exception(error)

    def abandon(self, error: BaseException) -> None:
        future, self.future = self.future, None
        if future is not None:
            abandon(future, error)


def forget_frames(error: BaseException) -> None:
    """Take our own frames out of an exception's traceback: they would keep the call and its arguments alive with it.

    Cutting them off is not enough, since each frame holds the one that called it; so they are emptied, too.
    """
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(_OURS):
        with suppress(RuntimeError):  # it is still running, and empties itself in the end
            traceback.tb_frame.clear()
        traceback = traceback.tb_next
    error.__traceback__ = traceback


_OURS = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")  # the whole package
