"""The two ways to wait for a call: a future that a sending thread resolves, and a turn that the caller takes itself."""

from __future__ import annotations

import os
import threading
from concurrent.futures import CancelledError, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.feedback import Feedback, Kind, Outcome
from ..core.request import Lane, State
from ..core.retry import RetryPolicy
from ..exceptions import WorkerStopped
from .engine import Engine
from .gates import sleep_at
from .light_future import LightFuture, abandon, begin, callbacks_later
from .plain_answers import IN_QUEUE
from .senders import KEPT
from .steps import NEVER_AGAIN, Job

if TYPE_CHECKING:
    from ..worker import RateLimitedWorker

__all__ = ["Answer", "AttemptFailed", "FutureJob", "NotNeeded", "OwnTurnJob", "TurnJob", "in_call"]

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
