"""A shared queue as a submitting process has it: jobs go in from any thread, and one thread waits for all answers.

The laws of this file: nobody waits for the network but who submits, for about a second at most, and that one thread. A
job that was accepted is asked for until it is answered or given up; when the server comes back after a loss, everything
that may have been missed is looked for, and what an emptied server has forgotten is submitted again under its old id.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from ..exceptions import WorkerStopped
from ..forks import at_fork
from . import engine_for
from .address import QueueAddress
from .answer_store import AnswerStore
from .answers import Delivered, read_answer
from .engines import class_of
from .entry import RemoteEntry
from .payload import Job
from .redis_server import ServerClock, connect, lost

if TYPE_CHECKING:
    from ..calls.journaled import Entry
    from ..calls.sdk_call import SDKCall

__all__ = ["RemoteQueue", "remote_queue"]

_log = logging.getLogger("ratelimited_llm.queue")
BLOCK = 1.0  # seconds of one wait for answers: so long a call that was given up may still be sent
LINGER = 3  # waits without anybody to wait for, before the thread goes
SWEEP = 30.0  # seconds between two looks for answers that nobody told of
SLOWEST = 5.0  # seconds between two tries to reach a lost server
PATIENT = 3.0  # seconds that the server may take to answer the thread, which nobody waits for


class Waiting(Protocol):
    """Somebody who waits for an answer."""

    def arrived(self, delivered: Delivered) -> None:
        """It is there; called once, on the waiting thread."""


class RemoteQueue:
    """Submits jobs and delivers their answers. Thread-safe; survives forks. Made by `remote_queue`.

    Args:
        address: the queue.

    Raises:
        ImportError: the engine or redis-py is not installed.
    """

    def __init__(self, address: QueueAddress) -> None:
        self.address = address
        self.engine = engine_for(address)
        self._client = connect(address)
        self._patient = connect(address, BLOCK + PATIENT)
        self.clock = ServerClock(self._client)
        self._here = AnswerStore(self._client, address)
        self._there = AnswerStore(self._patient, address)
        self._reset()
        self._close = weakref.finalize(self, _close, self.engine, self._client, self._patient)
        _queues.add(self)

    def _reset(self) -> None:
        self.submitter = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._pending: dict[str, tuple[Job, Waiting]] = {}
        self._given_up: deque[str] = deque()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._asked_twice: set[str] = set()  # of the waiting thread: calls whose answer was there, and then was not
        self._marked = False
        self._closed = False

    def entry(self, call: SDKCall, journal: Entry | None) -> RemoteEntry:
        """The place of a client's call in this queue.

        Args:
            call: it.
            journal: its place in a journal, which is asked first; None when there is none.
        """
        return RemoteEntry(call, self, journal)

    # -- from any thread ----------------------------------------------------------------------------------------------

    def submit(self, job: Job, waiting: Waiting, *, resumed: bool = False) -> None:
        """Have a job answered; blocks for about a second at most.

        Args:
            job: what is to be sent.
            waiting: told of the answer, once, unless it gives up before.
            resumed: an earlier process may have submitted it under the same id: its answer counts.

        Raises:
            SharedStoreLost: the server did not take it.
            WorkerStopped: after `close`.
            InvalidJob: no worker would take it.
        """
        payload = job.payload()
        if self._closed:
            raise WorkerStopped(f"the queue {self.address.shown} is closed")
        with self._lock:
            self._pending[job.id] = (job, waiting)
        try:
            if resumed:
                self._look_back(job)
            self.engine.submit(payload, class_of(job.priority))
        except BaseException:
            self.give_up(job.id)  # the server may have taken it all the same
            raise
        self._have_thread()

    def _look_back(self, job: Job) -> None:
        """Whether it was answered before: then the worker tells us so, for nothing. A failure does not count."""
        try:
            answer = self._here.read([job.id])[0]
            if answer is None:
                self._here.wanted_again(job.id)
            elif not read_answer(answer).good:
                self._here.forget(job.id)
        except Exception as error:
            raise lost(self.address, error, "does not answer") from error

    def give_up(self, job: str) -> None:
        """Nobody waits for it any more; never blocks, and may be called from a finalizer."""
        if self._pending.pop(job, None) is not None:
            self._given_up.append(job)

    @property
    def closed(self) -> bool:
        """Whether it accepts nothing more."""
        return self._closed

    @property
    def pending(self) -> int:
        """How many submitted jobs have no answer yet."""
        return len(self._pending)

    def last_words(self) -> None:
        """The process ends: have what was given up not sent. Blocks for a second at most."""
        with suppress(Exception):
            self._say_given_up(self._here)

    def __repr__(self) -> str:
        return f"<RemoteQueue {self.address.shown} pending={self.pending}>"

    def close(self) -> None:
        """Let go of the connections; what is pending is never answered, and nothing more is accepted."""
        self._pending.clear()
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            with suppress(Exception):
                self._here.tell("", self.submitter)  # it is waiting for just that
            thread.join(BLOCK + PATIENT)
        self._close()
        _queues.discard(self)

    def _have_thread(self) -> None:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._wait, name="ratelimited-llm-queue", daemon=True)
                self._thread = thread
                try:
                    thread.start()
                except BaseException:
                    self._thread = None
                    raise

    # -- the waiting thread -------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        idle = failures = 0
        swept = -SWEEP
        while not self._closed:
            try:
                if failures or time.monotonic() - swept > SWEEP:
                    self._sweep()
                    swept = time.monotonic()
                self._say_given_up(self._there)
                told = self._there.told(self.submitter, BLOCK)
                if failures and self._pending:
                    _log.warning("queue_back: %s answers again", self.address.shown, extra={"event": "queue_back"})
                failures = 0
                if told:
                    self._fetch(told, said=True)
                idle = 0 if self._pending or told else idle + 1
            except Exception as error:
                failures += 1
                self._missed(error, failures)
                idle = 0 if self._pending else idle + 1
            if idle >= LINGER and self._leave():
                return
        self._leave()

    def _missed(self, error: Exception, failures: int) -> None:
        if failures == 1 and self._pending:
            _log.warning(
                "queue_lost: %s does not answer (%s); calls that were submitted go on waiting, and it is tried again",
                self.address.shown, type(error).__name__, extra={"event": "queue_lost"},
            )  # fmt: skip
        if "WRONGTYPE" in str(error):  # somebody has put something else there
            self._marked = False
            with suppress(Exception):
                self._there.unmark(self.submitter)
        self._wake.wait(min(SLOWEST, 0.1 * 2 ** min(failures, 10)))

    def _leave(self) -> bool:
        with self._lock:
            if self._pending:
                return False
            self._thread = None
            self._marked = False
        with suppress(Exception):
            self._there.unmark(self.submitter)
        with suppress(Exception):
            self._patient.close()
        return True

    def _sweep(self) -> None:
        """Look for what nobody told of; and submit again what an emptied server has forgotten."""
        known = self._there.mark(self.submitter)
        emptied, self._marked = self._marked and not known, True
        waiting = list(self._pending)
        missing = self._fetch(waiting, said=False)
        if emptied:
            _log.warning(
                "queue_emptied: %s has lost its memory; %d calls are submitted again", self.address.shown,
                len(missing), extra={"event": "queue_emptied"},
            )  # fmt: skip
            self._submit_again(missing)

    def _submit_again(self, ids: list[str]) -> None:
        for each in ids:
            found = self._pending.get(each)
            if found is not None:
                self.engine.submit(found[0].payload(), class_of(found[0].priority))

    def _fetch(self, ids: list[str], *, said: bool) -> list[str]:
        """Deliver the answers of these that are there; answers the ids of the others.

        Args:
            ids: of jobs; others than the pending ones are passed over.
            said: a worker said that these are there: if not, somebody has deleted them, and they are asked for again.
        """
        ids = [each for each in ids if each in self._pending]
        missing = []
        for each, answer in zip(ids, self._there.read(ids), strict=True):
            if answer is None:
                missing.append(each)
                continue
            found = self._pending.pop(each, None)
            if found is not None:
                _deliver(found[1], read_answer(answer))
        if said and missing:
            self._submit_again([each for each in missing if each not in self._asked_twice])
            for each in self._asked_twice.intersection(missing):
                found = self._pending.pop(each, None)
                if found is not None:
                    _deliver(found[1], Delivered(None, "its answers are deleted"))
            self._asked_twice.update(missing)
        return missing

    def _say_given_up(self, answers: AnswerStore) -> None:
        ids: list[str] = []
        while self._given_up and len(ids) < 1_000:
            ids.append(self._given_up.popleft())
        try:
            if ids:
                answers.give_up([each for each in ids if each not in self._pending])
        except BaseException:
            self._given_up.extendleft(ids)
            raise


def _deliver(waiting: Waiting, delivered: Delivered) -> None:
    try:
        waiting.arrived(delivered)
    except Exception:  # of the one who waits; the others are still to be told
        _log.exception("delivery_failed", extra={"event": "delivery_failed"})


def _close(engine: Any, *clients: Any) -> None:
    for each in (engine, *clients):
        with suppress(Exception):
            each.close()


# -- one object per address -------------------------------------------------------------------------------------------

_queues: weakref.WeakSet[RemoteQueue] = weakref.WeakSet()
_shared: weakref.WeakValueDictionary[QueueAddress, RemoteQueue] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def remote_queue(address: object, make: Callable[[QueueAddress], RemoteQueue] = RemoteQueue) -> RemoteQueue:
    """The queue of an address; the same object for everybody in this process who asks for the same one.

    Raises:
        TypeError, ValueError: it is no address.
        ImportError: the engine is not installed.
    """
    if isinstance(address, RemoteQueue):
        return address
    parsed = QueueAddress.parse(address)
    with _opening:
        queue = _shared.get(parsed)
        if queue is None or queue.closed:
            queue = _shared[parsed] = make(parsed)
        return queue


def _at_exit() -> None:
    for queue in list(_queues):
        queue.last_words()


atexit.register(_at_exit)


def _after_fork_in_child() -> None:
    global _opening
    _opening = threading.Lock()
    for queue in list(_queues):
        queue._reset()


at_fork(_after_fork_in_child)
