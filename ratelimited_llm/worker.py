"""RateLimitedWorker: the thread that makes it so.

The laws that this file must obey:

1. One owner: whoever holds `_core` drives the dispatcher, and that is nearly always the worker thread. A caller may
   take it only when nothing is queued, to spare two thread switches; then it obeys the same rules.
2. One inbox: everybody else leaves a message in a `queue.PriorityQueue`, and its `get(timeout=...)` is the only sleep.
   Messages about calls on their way come first, then new calls by priority, then by sequence: equals stay in order.
3. No code of a user runs on the worker thread or under `_core`: not a call, not a callback.
4. Nothing posts from a finalizer by `put`: it could find its own thread inside the queue's lock. See `post_safely`.
"""

from __future__ import annotations

import _thread
import itertools
import logging
import math
import queue
import random
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from . import lifecycle
from .core.bounds import Bounds
from .core.dispatcher import Dispatcher, Impossible, Wait
from .core.feedback import Feedback
from .core.request import QueuedRequest, State, Usage
from .core.retry import RetryBudget, RetryPolicy
from .core.scheduler import Scheduler
from .exceptions import RequestExpired, WorkerStopped
from .senders import SenderPool
from .stores import Budget
from .stores.memory import MemoryBudget

__all__ = ["Job", "RateLimitedWorker"]

_log = logging.getLogger("ratelimited_llm.worker")
_numbers = itertools.count()
CONTROL = -1  # the priority of messages about calls that are on their way: before every new call
BATCH = 512  # messages taken in before the next look at who can go

Handler = Callable[[Any, Any, float], None]
Message = tuple[int, int, "Handler | None", Any, Any]


class Job(QueuedRequest):
    """A call as the worker holds it: how it goes out, and who hears of its end. Every method must return soon."""

    __slots__ = ()

    def dispatch(self) -> None:
        """Everything is reserved: get it sent, on another thread than this one."""
        raise NotImplementedError

    def give_up(self, error: BaseException) -> None:
        """It will not be sent (again): let its caller know, on another thread than this one."""
        raise NotImplementedError

    def abandon(self, error: BaseException) -> None:
        """This is the child of a fork: the call goes on in the parent, and here it ends with this error."""
        raise NotImplementedError


class RateLimitedWorker:
    """Consumes a priority queue of calls, sends each when its limits allow, and retries what can be retried.

    The thread starts with the first call and ends with `shutdown`, or when nobody holds the worker any more and
    nothing is pending. All methods are thread-safe.

    Args:
        budget: who remembers what was spent; None for this worker's own memory.
        max_queue: calls that may wait at once; None for no cap.
        max_queue_per_tenant: the same for one tenant; None for no cap.
        on_full: what a submit to a full queue does: "block" until there is room, or "raise" QueueFull.
        ageing: seconds of waiting that improve a call's priority by one number; None for strict priority.
        weights: shares of the tenants that are not 1.0.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        budget: Budget | None = None,
        max_queue: int | None = None,
        max_queue_per_tenant: int | None = None,
        on_full: str = "block",
        ageing: float | None = None,
        weights: dict[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if on_full not in ("block", "raise"):
            raise ValueError(f'on_full must be "block" or "raise", not {on_full!r}')
        for name, cap in (("max_queue", max_queue), ("max_queue_per_tenant", max_queue_per_tenant)):
            if cap is not None and (not isinstance(cap, int) or isinstance(cap, bool) or cap < 1):
                raise ValueError(f"{name} must be a whole number from 1 up, or None for no cap, not {cap!r}")
        self.budget: Budget = budget if budget is not None else MemoryBudget()
        self.clock = clock
        self._scheduler_options = {"ageing": ageing, "weights": weights}
        self._bounded = max_queue is not None or max_queue_per_tenant is not None
        self._caps = (max_queue, max_queue_per_tenant)
        self._blocks_when_full = on_full == "block"
        self.number = next(_numbers)
        self._begin()
        lifecycle.register(self)

    def _begin(self) -> None:
        """Set up everything that a thread of another process may have held: also called in the child of a fork."""
        self._machine = Dispatcher(
            Scheduler(**self._scheduler_options),  # type: ignore[arg-type]
            self.budget,
            retries=RetryBudget(),
        )
        self._core = threading.Lock()
        self._inbox: queue.PriorityQueue[Message] = queue.PriorityQueue()
        self._sequence = itertools.count()
        self._bounds = Bounds(*self._caps)
        self._room = threading.Condition()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._unfinished = 0  # calls accepted and not ended; under _tally
        self._tally = threading.Condition()
        self._flying: set[Job] = set()
        self._closed = False
        me = weakref.ref(self)
        self.senders = SenderPool(lambda: _pending(me))

    # -- submitting ---------------------------------------------------------------------------------------------------

    def submit(self, job: Job, *, nested: bool = False) -> None:
        """Accept a call; it will end exactly once, by way of its own methods.

        Args:
            job: the call, numbered by `next_sequence`.
            nested: it is made from inside another call, so it goes before its equals and no cap refuses it.

        Raises:
            QueueFull: the queue is at its cap and `on_full="raise"`.
            WorkerStopped: after `shutdown`.
        """
        if self._bounded:
            self._enter(job.tenant, nested)
        with self._tally:
            if self._closed:
                raise WorkerStopped("this client is closed: make a new one, or submit before close()")
            self._unfinished += 1
        try:
            if not self._at_once(self._on_submitted, job, nested):
                self._inbox.put((job.priority, job.sequence, self._on_submitted, job, nested))
                if self._thread is None:
                    self._ensure_thread()
        except BaseException:  # Ctrl-C in the middle of it: whoever asked for the call has not got it
            if job.state is State.QUEUED:
                job.move(State.CANCELLED)
            self._ended(job)
            raise

    def next_sequence(self) -> int:
        """The number of the next call."""
        return next(self._sequence)

    def _enter(self, tenant: str, nested: bool) -> None:
        with self._room:
            while (full := self._bounds.enter(tenant)) is not None:
                if nested:
                    self._bounds.force(tenant)
                    return
                if not self._blocks_when_full:
                    raise full
                self._room.wait()
                if self._closed:
                    raise WorkerStopped("this client was closed while the call waited for room in the queue")

    def _leave(self, request: Job) -> None:
        if self._bounded and not request.attempts and not request.refusals:
            with self._room:
                self._bounds.leave(request.tenant)
                self._room.notify_all()

    def _at_once(self, handler: Handler, request: Job, extra: Any) -> bool:
        """Do the worker's part here and now when nothing is queued, which spares a switch to its thread and back."""
        if self._inbox.queue or not self._core.acquire(blocking=False):
            return False
        try:
            if len(self._machine.scheduler) or self._inbox.queue:
                return False
            handler(request, extra, self.clock())
            self._dispatch(self.clock())
            waiting = len(self._machine.scheduler)
        finally:
            self._core.release()
        if waiting:  # it has to wait, and only the thread can do that
            self.post(None, None)
            self._ensure_thread()
        return True

    def post(self, handler: Handler | None, request: Job | None, extra: Any = None) -> None:
        """Leave a message about a call for the thread (handler None: just wake up)."""
        self._inbox.put((CONTROL, next(self._sequence), handler, request, extra))

    def post_safely(self, handler: Handler | None, request: Job | None, extra: Any = None) -> None:
        """The same from where a finalizer runs, which may be in the middle of anything, the inbox's lock included."""
        _put_safely(self._inbox, (CONTROL, next(self._sequence), handler, request, extra))

    def tell(self, handler: Handler, request: Job, extra: Any = None) -> None:
        """The same from an ordinary thread; done here and now when nothing is queued."""
        if not self._at_once(handler, request, extra):
            self.post(handler, request, extra)
            self._ensure_thread()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _ensure_thread(self) -> None:
        thread = self._thread
        if thread is not None and thread.is_alive():
            return
        with self._starting:
            if self._thread is not None and self._thread.is_alive():
                return
            inbox = self._inbox
            # The callback must not call put(): it runs wherever the last reference happened to go.
            me = weakref.ref(self, lambda _: _put_safely(inbox, (CONTROL, -1, None, None, None)))
            thread = threading.Thread(
                target=_loop, args=(me, inbox), name=f"ratelimited-llm-worker-{self.number}", daemon=True
            )
            with suppress(RuntimeError):  # no thread can be had: the next message tries again
                thread.start()
                self._thread = thread

    def _turn(self, first: Message | None) -> float | None:
        """Take in the messages, send what may go, and answer when to look again; None to end the thread."""
        with self._core:
            if first is not None:
                self._handle(first)
            while True:
                for _ in range(BATCH):
                    try:
                        message = self._inbox.get_nowait()
                    except queue.Empty:
                        break
                    self._handle(message)
                until = self._dispatch(self.clock())
                if not self._inbox.queue:
                    break
            if self._closed and not self._unfinished:
                self._thread = None
                return None
            return until

    def _handle(self, message: Message) -> None:
        handler, request, extra = message[2:]
        if handler is None:
            return
        try:
            handler(request, extra, self.clock())
        except Exception:  # a fault of ours: this call suffers, the thread and the others do not
            _log.exception("worker_failed on %r", request)

    def _dispatch(self, now: float) -> float:
        """Send everything that may go; answer when to look again."""
        for request in cast("list[Job]", self._machine.expired(now)):
            self._leave(request)
            waited, allowed = now - request.submitted_at, (request.expires_at or now) - request.submitted_at
            self._fail(request, RequestExpired(waited, allowed, request_id=request.sequence))
        while True:
            found = self._machine.next(now)
            if isinstance(found, Wait):
                return found.until
            job = cast("Job", found.request)
            self._leave(job)
            if isinstance(found, Impossible):
                self._fail(job, found.error)
                continue
            self._flying.add(job)
            try:
                job.dispatch()
            except Exception as error:
                _log.exception("dispatch_failed on %r", job)
                self._on_ended(job, State.FAILED, now)
                job.give_up(error)

    def _fail(self, request: Job, error: BaseException) -> None:
        self._ended(request)
        request.give_up(error)

    def _ended(self, request: Job) -> None:
        self._flying.discard(request)
        with self._tally:
            self._unfinished -= 1
            if not self._unfinished:
                self._tally.notify_all()

    # -- what the messages say: these run under _core -----------------------------------------------------------------

    def _on_submitted(self, request: Job, nested: bool, now: float) -> None:
        self._machine.submit(request, first=nested)

    def _on_cancelled(self, request: Job, extra: None, now: float) -> None:
        if self._machine.cancel(request):
            self._leave(request)
            self._ended(request)

    def _on_unsent(self, request: Job, extra: None, now: float) -> None:
        if request.state is State.QUEUED:
            self._on_cancelled(request, None, now)
        elif request.state is State.SENDING:
            self._machine.unsent(request, now)
            self._ended(request)

    def _on_answered(self, request: Job, feedback: Feedback, now: float) -> None:
        if request.state is not State.SENDING:
            return  # its stream was over before anybody could say that it was one
        self._machine.answered(request, feedback, now)
        self._machine.finished(request, feedback.usage, now)
        self._ended(request)

    def _on_streaming(self, request: Job, feedback: Feedback, now: float) -> None:
        if request.state is not State.SENDING:
            return
        self._machine.answered(request, feedback, now)
        self._machine.streaming(request)

    def _on_ended(self, request: Job, result: Usage | State | None, now: float) -> None:
        if request.state in (State.SENDING, State.STREAMING):
            state = result if isinstance(result, State) else State.DONE
            self._machine.finished(request, result if isinstance(result, Usage) else None, now, state)
            self._ended(request)

    def _on_stream_ended(self, request: Job, what: tuple[Usage | None, Feedback | None], now: float) -> None:
        usage, trouble = what
        if trouble is not None:
            self._machine.answered(request, trouble, now)
        self._on_ended(request, usage, now)

    def _on_failed(
        self, request: Job, what: tuple[Feedback, RetryPolicy, BaseException], now: float
    ) -> None:
        feedback, policy, error = what
        if not self._machine.failed(request, feedback, now, policy, random.random()):
            self._fail(request, error)
        else:
            self._flying.discard(request)

    # -- what jobs say from their own threads -------------------------------------------------------------------------

    def cancel(self, request: Job) -> None:
        """Its caller does not want it any more and knows so; a call that was sent goes on."""
        self.tell(self._on_cancelled, request)

    def unsent(self, request: Job) -> None:
        """It was dispatched (or not even that) and its caller has left: its budget is given back."""
        self.tell(self._on_unsent, request)

    def answered(self, request: Job, feedback: Feedback) -> None:
        """It was answered in full."""
        self.tell(self._on_answered, request, feedback)

    def streaming(self, request: Job, feedback: Feedback) -> None:
        """Its answer has begun and is an open stream, which keeps its place until `stream_ended`."""
        self.tell(self._on_streaming, request, feedback)

    def stream_ended(self, request: Job, usage: Usage | None, trouble: Feedback | None = None) -> None:
        """Its stream was read to the end, closed, collected, or broke off; may be called from a finalizer.

        Args:
            request: the call.
            usage: what it used, as far as the stream said.
            trouble: what the error that ended it taught, if one did.
        """
        self.post_safely(self._on_stream_ended, request, (usage, trouble))

    def failed(self, request: Job, feedback: Feedback, policy: RetryPolicy, error: BaseException) -> None:
        """An attempt failed: it is dispatched again when its time comes, or given up with this error."""
        self.tell(self._on_failed, request, (feedback, policy, error))

    # -- the end ------------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether it accepts no more calls."""
        return self._closed

    @property
    def pending(self) -> int:
        """Calls that were accepted and have not ended."""
        return self._unfinished

    @property
    def queued(self) -> int:
        """Of these, the ones that wait."""
        return max(0, self._unfinished - len(self._flying))

    @property
    def in_flight(self) -> int:
        """Of these, the ones that were sent."""
        return len(self._flying)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until no call is pending, at most `timeout` seconds; True when none is."""
        deadline = None if timeout is None else self.clock() + timeout
        with self._tally:
            while self._unfinished:
                left = None if deadline is None else deadline - self.clock()
                if left is not None and left <= 0:
                    return False
                # In slices, so that Ctrl-C is heard on every platform; the wait is the caller's, not the worker's.
                self._tally.wait(0.2 if left is None else min(left, 0.2))
            return True

    def cancel_queued(self, which: Callable[[Any], bool] = lambda job: True) -> int:
        """Cancel every waiting call that `which` accepts; answers how many. What was sent goes on."""
        with self._core:
            while True:
                try:
                    self._handle(self._inbox.get_nowait())
                except queue.Empty:
                    break
            dropped = cast("list[Job]", self._machine.scheduler.drop_all(which))
        for request in dropped:
            self._leave(request)
            self._ended(request)
            error = WorkerStopped("cancelled while it waited in the queue", request_id=request.sequence)
            request.give_up(error)
        return len(dropped)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls; as `concurrent.futures.Executor.shutdown`. May be called more than once.

        Args:
            wait: block until the pending calls have ended.
            cancel_futures: cancel those that wait; those in flight still end.
        """
        with self._tally:
            self._closed = True
        with self._room:
            self._room.notify_all()
        if cancel_futures:
            self.cancel_queued()
        self.post(None, None)
        if wait:
            self.wait()

    def reset_after_fork(self) -> None:
        """In the child of a fork: the parent's calls are the parent's; start again with nothing."""
        closed = self._closed
        inherited: set[Job] = {message[3] for message in list(self._inbox.queue) if message[3] is not None}
        inherited.update(cast("list[Job]", list(self._machine.scheduler)))
        inherited.update(self._flying)
        self._begin()
        self._closed = closed
        for request in inherited:
            request.abandon(WorkerStopped("this call was made before fork(): only the parent process gets its answer"))

    def __repr__(self) -> str:
        state = "closed " if self._closed else ""
        return f"<RateLimitedWorker {self.number} {state}queued={self.queued} in_flight={self.in_flight}>"


def _pending(ref: weakref.ref[RateLimitedWorker]) -> int:
    worker = ref()
    return 0 if worker is None else worker.pending


def _loop(me: weakref.ref[RateLimitedWorker], inbox: queue.PriorityQueue[Message]) -> None:
    """The thread: holds the worker only while it does something, so that a forgotten one can be collected."""
    message: Message | None = None
    while True:
        worker = me()
        if worker is None or worker._inbox is not inbox:
            return
        try:
            until = worker._turn(message)
        except Exception:  # a fault of ours; the queue must go on
            _log.exception("worker_failed")
            until = worker.clock() + 0.1
        if until is None:
            return
        timeout = None if until == math.inf else max(0.0, until - worker.clock())
        keep = worker if worker._unfinished else None  # pending calls keep their worker
        del worker
        message = None
        with suppress(queue.Empty):
            message = inbox.get(timeout=timeout)
        del keep


def _put_safely(inbox: queue.PriorityQueue[Message], message: Message) -> None:
    """Put without ever blocking: by hand if the lock is free, and from a thread of its own if not."""
    if inbox.mutex.acquire(blocking=False):
        try:
            inbox._put(message)
            inbox.unfinished_tasks += 1
            inbox.not_empty.notify()
        finally:
            inbox.mutex.release()
        return
    with suppress(RuntimeError):  # the interpreter is ending, and with it everything that could wait for this
        _thread.start_new_thread(inbox.put, (message,))
