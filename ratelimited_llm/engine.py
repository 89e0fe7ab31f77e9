"""The engine of a worker: its queue's state, and the steps that whoever drives it takes.

The laws that this file must obey:

1. One owner: whoever holds `core` drives. That is the worker's thread, or a sending thread that has just ended a call
   and so spares two switches of threads. Any other thread leaves a message; all that it may do itself is to reserve,
   settle or take the place of a single call when nobody waits, by steps that may be torn anywhere (see `forget`).
2. One inbox, see `inbox`; to wait for it is the only sleep. Whoever lets go of `core` looks at it afterwards, since
   others leave messages without ringing while somebody drives.
3. No code of a user runs under `core`, and none on the worker's thread (but for the last resort: no thread at all).
4. A call has ended when its future is over and its callbacks have run; until then it is in the inbox, in the
   scheduler, in `flying`, `ending` or `lost`. Nothing is counted, so nothing can be counted twice.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from .core.dispatcher import Dispatcher, Impossible, Wait
from .core.feedback import Feedback
from .core.request import QueuedRequest, State, Usage
from .core.retry import RetryPolicy
from .exceptions import RequestExpired, WorkerStopped
from .inbox import AFTER_ALL, CONTROL, Inbox, Message
from .light_future import callbacks_later
from .room import Room, sleep_at
from .senders import SenderPool

__all__ = ["Engine", "Job"]

_log = logging.getLogger("ratelimited_llm.worker")
BATCH = 512  # messages taken in before the next look at who can go
NEVER_AGAIN = RetryPolicy(max_retries=0, max_refusals=0)

Handler = Callable[[Any, Any, float], None]


class Job(QueuedRequest):
    """A call as the worker holds it: how it goes out, and who hears of its end.

    Attributes:
        jumps: whether one that is made from inside another call goes before its equals, since that call waits for it.
    """

    __slots__ = ()

    jumps = False

    def dispatch(self) -> None:
        """Everything is reserved: get it sent, on another thread than this one."""
        raise NotImplementedError

    def give_up(self, error: BaseException) -> None:
        """It will not be sent (again): let its caller know. Runs on a sending thread."""
        raise NotImplementedError

    def abandon(self, error: BaseException) -> None:
        """This is the child of a fork: the call goes on in the parent, and here it ends with this error."""
        raise NotImplementedError


class Engine:
    """Everything that the calls of one worker are in, in one process; a fork makes a new one.

    Args:
        machine: who is next, when, and whether again.
        room: the caps; None when there are none.
        clock: monotonic seconds.
        sequence: numbers for messages.
        name: of the worker's thread.
    """

    def __init__(
        self,
        machine: Dispatcher,
        room: Room | None,
        clock: Callable[[], float],
        sequence: Callable[[], int],
        name: str,
    ) -> None:
        self.machine = machine
        self.room = room
        self.clock = clock
        self.sequence = sequence
        self.name = name
        self.core = threading.Lock()
        self.inbox = Inbox()
        self.flying: set[Job] = set()  # sent, and not settled
        self.ending: set[Job] = set()  # the thread that sent them is about to end their futures and to call back
        self.lost: set[Job] = set()  # given up: another thread is about to do that
        self.thread: threading.Thread | None = None
        self._starting = threading.RLock()
        self._given_up: list[tuple[Job, BaseException]] = []  # in this turn
        self._gates: list[Any] = []  # of those who wait for the end of everything
        self._wakes_at = math.inf  # when the worker's thread looks next
        self._driver = 0  # the thread that drives
        self._final = False  # nothing is tried again any more
        me = weakref.ref(self)
        self.senders = SenderPool(lambda: (engine := me()) is not None and engine._busy(), self.inbox.ring)

    # -- from any thread ----------------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Calls that were accepted and have not ended; in the middle of a step, one may be missing."""
        return self.waiting + len({*self.flying.copy(), *self.ending.copy(), *self.lost.copy()})

    @property
    def waiting(self) -> int:
        """Of these, the ones that are not sent; messages that are still to be read count too."""
        return len(self.inbox.queue) + len(self.machine.scheduler)

    def _busy(self) -> bool:
        return bool(self.inbox.queue or self.flying or self.ending or self.lost or len(self.machine.scheduler))

    def post(self, handler: Handler | None, job: Job | None = None, extra: Any = None, *, ring: bool = True) -> None:
        """Leave a message about a call (handler None: none, just look around). Safe in a finalizer."""
        self.inbox.put((CONTROL, self.sequence(), handler, job, extra), ring=ring)

    def accept(self, job: Job, nested: bool) -> bool:
        """Take in a new call; False when no more are accepted.

        Raises:
            RuntimeError: the worker's thread cannot be started.
        """
        if self.thread is None:
            self._start_thread()
        if self.inbox.keeps is None and self._at_once(job):  # else calls wait, and nothing goes before them
            job.dispatch()
            return True
        if not self.inbox.put_call((job.priority, job.sequence, None, job, nested and job.jumps)):
            return False
        if self.thread is None:  # it ended just before
            self._start_thread()
        return True

    def _at_once(self, job: Job) -> bool:
        """Reserve for a call here and now when nobody waits, which spares a switch to the thread and back."""
        inbox = self.inbox
        # A finalizer in the middle of a step on this very thread would wait for itself: hence the look first.
        if inbox.queue or self.core.locked() or inbox.closed:
            return False
        with self.core:
            if inbox.queue or inbox.closed:
                return False
            self.flying.add(job)
            try:
                sent = self.machine.at_once(job, self.clock())
            except Exception:
                sent = False  # what is wrong with it is found again, and told, in its turn
            if not sent:
                self.flying.discard(job)
        self.look_at_inbox()
        if sent and self.room is not None:
            self.room.leave(job)
        return sent

    def forget(self, job: Job) -> None:
        """A step with this call was torn (by Ctrl-C, say), and nobody holds it: wherever it got to, it ends."""
        if self.thread is not None:
            self.post(self.on_forgotten, job)
            return
        if self.room is not None:
            self.room.leave(job)
        if job.state is State.NEW:
            job.move(State.CANCELLED)

    def wait(self, timeout: float | None) -> bool:
        """Block until no call is pending, at most `timeout` seconds; True when none is."""
        if self._driver == threading.get_ident():
            return False  # a finalizer in the middle of a step
        if self.thread is None:
            return True  # nothing was ever accepted, or all has ended
        gate = threading.Lock()
        gate.acquire()
        with self.core:
            if not self._busy():
                return True
            self._gates.append(gate)
        self.look_at_inbox()
        if sleep_at(gate, timeout):
            return True
        with self.core:
            if gate in self._gates:
                self._gates.remove(gate)
        self.look_at_inbox()
        return False

    def cancel_queued(self, which: Callable[[Any], bool]) -> int:
        """Have every waiting call that `which` accepts cancelled; answers how many, when their futures know."""
        if self.thread is None or self._driver == threading.get_ident():
            return 0  # nothing was ever queued; or a finalizer in the middle of a step
        gate = threading.Lock()
        gate.acquire()
        reply: list[int] = []
        self.inbox.put((AFTER_ALL, self.sequence(), self._on_cancel_queued, None, (which, reply, gate)))
        if self.thread is None:  # it ended just before
            self._start_thread()
        sleep_at(gate)
        return reply[0]

    def close(self, *, final: bool) -> None:
        """Accept no more calls; with `final`, try none again."""
        self.inbox.close()
        if self.room is not None:
            self.room.close()
        self._final = self._final or final
        self.inbox.ring()

    def look_at_inbox(self) -> None:
        if self.inbox.queue:
            self.inbox.ring()

    # -- the worker's thread ------------------------------------------------------------------------------------------

    def _start_thread(self) -> None:
        with self._starting:
            if self.thread is not None:
                return
            inbox, senders = self.inbox, self.senders

            def gone(_: object) -> None:
                inbox.ring()
                senders.close()

            thread = threading.Thread(target=_loop, args=(weakref.ref(self, gone), inbox), name=self.name, daemon=True)
            self.thread = thread
            try:
                thread.start()
            except BaseException:
                if not thread.is_alive():
                    self.thread = None
                raise

    def thread_turn(self) -> float | None:
        """What the worker's thread does when it is awake; answers when to look again, None to end."""
        with self.core:
            until = self._wakes_at = self._turn()
            if self.inbox.closed:
                # In this order: who leaves a message looks for the thread afterwards, and starts one if there is none.
                me, self.thread = self.thread, None
                if not self._busy():
                    self.senders.close()
                    return None
                self.thread = me
        self.senders.run_overdue_here()
        return until

    # -- a sending thread ---------------------------------------------------------------------------------------------

    def drive(self, *, taking: bool) -> None:
        """On a sending thread that has ended a call and left a message: act on it, unless somebody is at it.

        Args:
            taking: whether this thread takes the next work along, if there is any.
        """
        self.senders.taking(taking)
        try:
            while self.inbox.queue and self.core.acquire(blocking=False):
                try:
                    sooner = self._turn() < self._wakes_at
                finally:
                    self.core.release()
                if sooner:
                    self.inbox.ring()
        except Exception:  # a fault of ours; the thread has its own way to survive it
            _log.exception("worker_failed")
            self.inbox.ring()
        finally:
            self.senders.taking(False)

    def over(self, job: Job) -> None:
        """Its future is over, and its callbacks have run."""
        self.ending.discard(job)
        self._say_if_over()

    def _say_if_over(self) -> None:
        # Only under `core` can be told whether all is over; the worker's thread finds out for those who wait.
        if not self.ending and not self.lost and (self._gates or self.inbox.closed):
            self.inbox.ring()

    # -- steps: under `core` ------------------------------------------------------------------------------------------

    def _turn(self) -> float:
        """Take in some messages, send what may go, and answer when to look again."""
        self._driver = threading.get_ident()
        try:
            for message in self.inbox.take(BATCH):
                self._handle(message)
            until = self._dispatch(self.clock())
            if self._given_up:
                given_up, self._given_up = self._given_up, []
                self.senders.run(partial(self._end, given_up))
            self._look_around()
            return until
        finally:
            self._driver = 0

    def _handle(self, message: Message) -> None:
        handler, job, extra = message[2:]
        try:
            if handler is not None:
                handler(job, extra, self.clock())
            elif job is not None:
                self.machine.submit(job, first=extra)
        except Exception as error:  # a fault of ours, or of a store: this call suffers, the others do not
            _log.exception("worker_failed on %r", job)
            if job is not None:
                self._rescue(job, error)

    def _rescue(self, job: Job, error: Exception) -> None:
        """A step with this call failed half way: end it, whatever else fails."""
        try:
            self.on_forgotten(job, None, self.clock())
        except Exception:
            job.state = State.FAILED  # by force: the table has no line for what must not happen
        self._give_up(job, error)

    def _dispatch(self, now: float) -> float:
        """Send everything that may go; answer when to look again."""
        machine = self.machine
        for request in cast("list[Job]", machine.expired(now)):
            waited, allowed = now - request.submitted_at, (request.expires_at or now) - request.submitted_at
            self._give_up(request, RequestExpired(waited, allowed, request_id=request.sequence))
        while True:
            found = machine.next(now)
            if isinstance(found, Wait):
                return found.until
            job = cast("Job", found.request)
            if isinstance(found, Impossible):
                self._give_up(job, found.error)
                continue
            if self.room is not None:
                self.room.leave(job)
            self.flying.add(job)
            try:
                job.dispatch()
            except Exception as error:
                _log.exception("dispatch_failed on %r", job)
                self._finish(job, None, now, State.FAILED)
                self._give_up(job, error)

    def _look_around(self) -> None:
        self.inbox.keeps = self if len(self.machine.scheduler) else None
        if not self._busy():
            self.senders.relax()
            gates, self._gates = self._gates, []
            for gate in gates:
                gate.release()

    def _give_up(self, job: Job, error: BaseException) -> None:
        """Have its caller told, on a sending thread."""
        self.flying.discard(job)
        if self.room is not None:
            self.room.leave(job)
        self.lost.add(job)
        self._given_up.append((job, error))

    def _end(self, given_up: list[tuple[Job, BaseException]], gate: Any = None) -> None:
        """On a sending thread: end these calls, and only then call back, as a callback may wait for another of them."""
        with callbacks_later() as later:
            for job, error in given_up:
                try:
                    job.give_up(error)
                except Exception:
                    _log.exception("give_up_failed on %r", job)
        if gate is not None:
            gate.release()
        later.call()
        self.lost.difference_update(job for job, _ in given_up)
        self._say_if_over()

    def _finish(self, job: Job, usage: Usage | None, now: float, state: State = State.DONE) -> None:
        try:
            self.machine.finished(job, usage, now, state)
        finally:
            self.flying.discard(job)

    # -- what the messages say: these run under `core` ----------------------------------------------------------------

    def on_cancelled(self, job: Job, extra: None, now: float) -> None:
        if self.machine.cancel(job) and self.room is not None:
            self.room.leave(job)

    def on_forgotten(self, job: Job, extra: None, now: float) -> None:
        """Nobody waits for it any more: it is not sent, or counts as not sent."""
        if self.room is not None:
            self.room.leave(job)
        self.machine.cancel(job)
        if job.state in (State.CANCELLED, State.SENDING):
            self.machine.unsent(job, now)  # a torn step may have reserved before it said so
            self.flying.discard(job)

    def on_answered(self, job: Job, feedback: Feedback, now: float) -> None:
        if job.state is State.SENDING:  # if not, its stream was over before anybody could say that it was one
            self.machine.answered(job, feedback, now)
            self._finish(job, feedback.usage, now)

    def on_streaming(self, job: Job, feedback: Feedback, now: float) -> None:
        if job.state is State.SENDING:
            self.machine.answered(job, feedback, now)
            self.machine.streaming(job)

    def on_stream_ended(self, job: Job, what: tuple[Usage | None, Feedback | None], now: float) -> None:
        usage, trouble = what
        if job.state in (State.SENDING, State.STREAMING):
            if trouble is not None:
                self.machine.answered(job, trouble, now)
            self._finish(job, usage, now)

    def on_failed(self, job: Job, what: tuple[Feedback, RetryPolicy, BaseException], now: float) -> None:
        feedback, policy, error = what
        if job.state is not State.SENDING:
            return
        if self._final:
            policy = NEVER_AGAIN
        self.flying.discard(job)
        if not self.machine.failed(job, feedback, now, policy, random.random()):
            self._give_up(job, error)

    def _on_cancel_queued(self, job: None, what: tuple[Callable[[Any], bool], list[int], Any], now: float) -> None:
        which, reply, gate = what
        dropped = cast("list[Job]", self.machine.scheduler.drop_all(which))
        given_up: list[tuple[Job, BaseException]] = []
        for each in dropped:
            if self.room is not None:
                self.room.leave(each)
            error = WorkerStopped("cancelled while it waited in the queue", request_id=each.sequence)
            given_up.append((each, error))
        self.lost.update(dropped)
        reply.append(len(dropped))
        self.senders.run(partial(self._end, given_up, gate))

    # -- the child of a fork ------------------------------------------------------------------------------------------

    def inherited(self) -> set[Job]:
        """Every call that was here when the process forked."""
        jobs = {message[3] for message in list(self.inbox.queue) if message[3] is not None}
        jobs.update(cast("list[Job]", list(self.machine.scheduler)))
        jobs.update(self.flying, self.ending, self.lost)
        return jobs


def _loop(me: weakref.ref[Engine], inbox: Inbox) -> None:
    """The worker's thread: holds the engine only while it does something, so that a forgotten one can be collected."""
    while True:
        engine = me()
        if engine is None:
            return
        clock = engine.clock
        try:
            until = engine.thread_turn()
        except Exception:  # a fault of ours; the queue must go on
            _log.exception("worker_failed")
            until = clock() + 1.0
        if until is None:
            return
        del engine
        inbox.wait(until, clock())
