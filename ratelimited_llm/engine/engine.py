"""The engine of a worker: who drives, who waits for what, and the thread. What a step does is in `steps`.

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
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from ..core.dispatcher import Dispatcher
from ..core.request import State
from .admission import Admission
from .gates import sleep_at
from .inbox import AFTER_ALL, CONTROL, Inbox, Message
from .senders import SenderPool
from .steps import Handler, Job, Steps

__all__ = ["Engine"]

_log = logging.getLogger("ratelimited_llm.worker")
# Whoever ends the interpreter meanwhile is told so by Python's own words, which come first.
NO_THREAD = (
    "the call was not accepted, since the thread that works through the queue cannot be started. Where the process is "
    "at its limit of threads, raise that (ulimit -u, or pids.max of its container) or end some, and submit again"
)
# Python 3.12.0 to 3.12.2 start no thread any more once the main one has ended, though others go on (cpython #113964).
MAIN_ENDS_ALL = (3, 12) <= sys.version_info < (3, 12, 3)
BATCH = 512  # messages taken in before the next look at who can go


class Engine(Steps):
    """Everything that the calls of one worker are in, in one process; a fork makes a new one.

    Args:
        machine: who is next, when, and whether again.
        admission: the caps; None when there are none.
        clock: monotonic seconds.
        sequence: numbers for messages.
        name: of the worker's thread.
    """

    def __init__(
        self,
        machine: Dispatcher,
        admission: Admission | None,
        clock: Callable[[], float],
        sequence: Callable[[], int],
        name: str,
    ) -> None:
        super().__init__(machine, admission, clock)
        self.sequence = sequence
        self.name = name
        self.core = threading.Lock()
        self.inbox = Inbox()
        self.thread: threading.Thread | None = None
        self._starting = threading.RLock()
        self._gates: list[Any] = []  # of those who wait for the end of everything
        self._wakes_at = math.inf  # when the worker's thread looks next
        self._driver = 0  # the thread that drives
        me = weakref.ref(self)
        self.senders = SenderPool(lambda: (engine := me()) is not None and engine._busy(), self.inbox.ring)

    def stand_by(self) -> None:
        """Where a script's other threads could not start the worker's thread for their first call, have it now."""
        if MAIN_ENDS_ALL:
            with suppress(RuntimeError):  # no more threads: the first call says so
                self._start_thread()

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

    def tell(self, handler: Handler, job: Job, extra: Any) -> None:
        """Act on a message about a call that its own thread or task has made, or leave it for whoever drives."""
        message = (CONTROL, self.sequence(), handler, job, extra)
        inbox = self.inbox
        if not (inbox.queue or self.core.locked()) and self._settled_at_once(message):  # as in `_at_once`
            return
        inbox.put(message, ring=not job.drives)
        if job.drives:
            self.drive(taking=False)

    def _settled_at_once(self, message: Message) -> bool:
        """Act on it here and now when nobody waits, which spares a switch to the thread."""
        inbox, scheduler = self.inbox, self.machine.scheduler
        try:
            with self.core:
                if inbox.queue or not scheduler.empty:
                    return False
                self._driver = threading.get_ident()
                try:
                    self._handle(message)
                    self._deliver()
                    self._look_around()
                finally:
                    self._driver = 0
        except BaseException:  # torn: what of it is done will not be done again
            inbox.put(message)
            raise
        if inbox.queue or inbox.closed or not scheduler.empty:  # it rests, to be tried again
            inbox.ring()
        return True

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
        if not self.inbox.put_call((job.priority, job.sequence, None, job, nested and job.jumps), ring=not job.drives):
            return False
        if self.thread is None:  # it ended just before
            self._start_thread()
        if job.drives:
            self.drive(taking=False)
        return True

    def accept_follower(self, job: Job) -> bool:
        """Take in a call that waits for what is not in this queue; False when no more are accepted."""
        if self.thread is None:
            self._start_thread()
        if not self.inbox.put_call((job.priority, job.sequence, self.on_following, job, None)):
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
            elif job.ends_at is not None:
                self._watch(job)
                if self._overdue[0][0] < self._wakes_at:
                    inbox.ring()
        self.look_at_inbox()
        if sent and self.admission is not None:
            self.admission.leave(job)
        return sent

    def forget(self, job: Job) -> None:
        """A step with this call was torn (by Ctrl-C, say), and nobody holds it: wherever it got to, it ends."""
        if self.thread is not None:
            self.post(self.on_forgotten, job)
            return
        if self.admission is not None:
            self.admission.leave(job)
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
        try:
            with self.core:
                if not self._busy():
                    return True
                self._gates.append(gate)
            self.look_at_inbox()
            return sleep_at(gate, timeout)
        finally:
            with self.core:
                if gate in self._gates:
                    self._gates.remove(gate)
            self.look_at_inbox()

    def cancel_queued(self, which: Callable[[Any], bool]) -> int:
        """Have every waiting call that `which` accepts cancelled; answers how many, when their futures know."""
        if self.thread is None or self._driver == threading.get_ident():
            return 0  # nothing was ever queued; or a finalizer in the middle of a step
        return int(self._ask(self.on_cancel_queued, which))

    def hold(self, paused: bool) -> None:
        """Have nobody sent from now on, or go on; when this returns, it is so. After `close` there is no pause."""
        if self._driver == threading.get_ident():  # a finalizer in the middle of a step
            self.post(self.on_hold, None, paused)
            return
        with self.core:
            self.machine.scheduler.paused = paused
        self.inbox.ring()

    def first(self) -> Any:
        """The call that is next, with everything that was posted so far taken in; None when none waits."""
        if self.thread is None or self._driver == threading.get_ident():
            return None
        return self._ask(self.on_first)

    def _ask(self, handler: Handler, what: Any = None) -> Any:
        """Leave a question and wait for the answer; raises what the handler answers with, if that is an error."""
        gate = threading.Lock()
        gate.acquire()
        reply: list[Any] = []
        self.inbox.put((AFTER_ALL, self.sequence(), handler, None, (what, reply, gate)))
        if self.thread is None:  # it ended just before, since nothing was left; and a script's end can start none
            with self.core:
                self._turn()
        sleep_at(gate)
        if isinstance(reply[0], Exception):
            raise reply[0]
        return reply[0]

    def close(self, *, final: bool) -> None:
        """Accept no more calls; with `final`, try none again."""
        self.inbox.close()
        if self.admission is not None:
            self.admission.close()
        self.final = self.final or final
        self.inbox.ring()

    def freed(self, pool: Any) -> None:
        """A call of this pool has ended that another worker sent; see `MemoryBudget.listen`."""
        if len(self.machine.scheduler):  # so the thread is there
            self.post(self.on_freed, None, pool)

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
            except BaseException as error:
                if not thread.is_alive():
                    self.thread = None
                if type(error) is RuntimeError and "new thread" in str(error):  # not what Ctrl-C makes of start()
                    raise RuntimeError(f"{error}: {NO_THREAD}") from error
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

    # -- a sending thread, or an event loop's -------------------------------------------------------------------------

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

    def _say_if_over(self) -> None:
        # Only under `core` can be told whether all is over; the worker's thread finds out for those who wait for it.
        if not self.ending and not self.lost and (self._gates or self.senders.kept or self.inbox.closed):
            self.inbox.ring()

    # -- under `core` -------------------------------------------------------------------------------------------------

    def _turn(self) -> float:
        """Take in some messages, send what may go, and answer when to look again."""
        self._driver = threading.get_ident()
        try:
            for message in self.inbox.take(BATCH):
                self._handle(message)
            scheduler = self.machine.scheduler
            if self.inbox.closed:
                scheduler.paused = False  # what was accepted could never end
            until = math.inf if scheduler.empty else self._dispatch(self.clock())
            if self._overdue:
                until = min(until, self._end_overdue(self.clock()))
            self._deliver()
            self._look_around()
            return until
        finally:
            self._driver = 0

    def _look_around(self) -> None:
        self.inbox.keeps = self if len(self.machine.scheduler) else None
        if (self.senders.kept or self._gates) and not self._busy():
            self.senders.relax()
            gates, self._gates = self._gates, []
            for gate in gates:
                gate.release()

    def inherited(self) -> set[Job]:
        """In the child of a fork, every call that was here when the process forked."""
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
