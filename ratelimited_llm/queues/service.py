"""What a worker does with the jobs that an engine hands over: checks, sends, keeps the answer, and only then lets go.

The laws of this file: an answer is kept before its job is done; a job that waits too long for a permit is put back; no
job can make a worker send to another host, with another key, or by another method (`payload`).
"""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..exceptions import BudgetExceeded, RequestExpired, WorkerStopped
from .answer_store import AnswerStore
from .answers import failure_of, write_answer, write_failure
from .engines import Ticket
from .payload import InvalidJob, Job, check, sender_of
from .redis_server import ServerClock
from .sending import RemoteCall, kept_error, send

if TYPE_CHECKING:
    from ..engine.light_future import LightFuture

__all__ = ["JobService"]

_log = logging.getLogger("ratelimited_llm.queue")
PATIENCE = 20.0  # seconds that a job waits for a permit here before another worker, or this one later, has its turn
SOONEST, LATEST = 0.5, 60.0  # seconds after which a job that was put back comes again
ELSEWHERE = 5.0  # seconds until a job that another worker has is looked at again
AGAIN = 0.5  # seconds between two tries to keep an answer on a lost server


@dataclass(slots=True)
class _Held:
    ticket: Ticket
    job: Job
    future: LightFuture[Any] | None = None


class JobService:
    """Makes the calls of a shared queue through clients of this process. See `Handler` for what an engine calls.

    Args:
        clients: our doors for threads, by provider ("openai", "azure", "groq", "anthropic").
        answers: where answers go.
        clock: the server's.
        heartbeat: seconds after which a silent worker counts as dead.
        patience: seconds that a job waits for a permit before it is put back.

    Attributes:
        answered, failed, known, put_back, refused: jobs so far; `known` are those whose answer was there already.
    """

    def __init__(
        self, clients: Mapping[str, Any], answers: AnswerStore, clock: ServerClock, *, heartbeat: float = 15.0,
        patience: float = PATIENCE,
    ) -> None:  # fmt: skip
        self.name = uuid.uuid4().hex
        self.answered = self.failed = self.known = self.put_back = self.refused = 0
        self._clients = dict(clients)
        self._store = answers
        self._clock = clock
        self._heartbeat = heartbeat
        self._patience = patience
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()
        self._late: deque[Callable[[], None]] = deque()
        self._renewed = self._tried = time.monotonic()
        self._stopping = False

    @property
    def held(self) -> Sequence[Ticket]:
        """Jobs that were taken and have not ended; `running` is brought up to date."""
        with self._lock:
            for each in self._held.values():
                if each.future is not None and not each.ticket.running:
                    each.ticket.running = each.future.running() or each.future.done()
            return [each.ticket for each in self._held.values()]

    # -- taking -------------------------------------------------------------------------------------------------------

    def take(self, tickets: Sequence[Ticket]) -> None:
        """Begin with these: those that make no sense, have an answer or are unwanted end at once."""
        jobs: list[tuple[Ticket, Job]] = []
        for ticket in tickets:
            try:
                job = check(ticket.job)
            except InvalidJob as error:
                self._refuse(ticket, error)
                continue
            if job.id in self._held or any(job.id == other.id for _, other in jobs):
                self._return(ticket, ELSEWHERE)  # it was delivered twice
            elif self._stopping:
                self._return(ticket, 0.0)
            elif job.provider not in self._clients:
                _log.warning("not_served: a job for %s was put back", job.provider, extra={"event": "not_served"})
                self._return(ticket, ELSEWHERE)
            else:
                jobs.append((ticket, job))
        if jobs:
            self._claim(jobs)

    def _claim(self, jobs: list[tuple[Ticket, Job]]) -> None:
        try:
            found = self._store.claim([job.id for _, job in jobs], self.name, self._heartbeat)
            now = self._clock.now()
        except Exception as error:
            _log.warning("claim_failed: %s; %d jobs are put back", type(error).__name__, len(jobs))
            for ticket, _ in jobs:
                self._return(ticket, SOONEST)
            return
        for (ticket, job), state in zip(jobs, found, strict=True):
            if state.answered:
                self.known += 1
                self._finally(partial(self._known, ticket, job))
            elif state.gone:
                self._finally(partial(self._unwanted, ticket, job))
            elif state.elsewhere:
                self._return(ticket, ELSEWHERE)
            else:
                self._start(_Held(ticket, job), now)

    def _known(self, ticket: Ticket, job: Job) -> None:
        self._store.tell(job.id, job.submitter)
        self._store.release([job.id])
        ticket.done()

    def _unwanted(self, ticket: Ticket, job: Job) -> None:
        self._store.release([job.id])
        ticket.done()

    def _start(self, held: _Held, now: float) -> None:
        job = held.job
        left, wait = job.left(now), job.wait_left(now)
        for seconds, allowed in ((left, job.deadline), (wait, job.max_wait)):
            if seconds is not None and seconds <= 0 and allowed is not None:
                self._fail(held, RequestExpired(allowed, allowed))
                return
        patience = self._patience if wait is None else min(wait, self._patience)
        options = {"priority": job.priority, "tenant": job.tenant, "deadline": left, "max_wait": patience}
        if job.tag:
            options["tag"] = job.tag
        with self._lock:
            self._held[job.id] = held
        try:
            call, held.future = send(self._clients[job.provider], job, options)
        except Exception as error:
            self._ended(held, None, error)
            return
        held.future.add_done_callback(partial(self._over, held, call))

    # -- ending: on a sending thread, or the one that took it ---------------------------------------------------------

    def _over(self, held: _Held, call: RemoteCall, future: Any) -> None:
        try:
            fetched = future.result()
        except (Exception, CancelledError) as error:
            self._ended(held, call, error)
        else:
            self.answered += 1
            self._keep(held, write_answer(fetched.recorded, fetched.usage, fetched.tries))

    def _ended(self, held: _Held, call: RemoteCall | None, error: BaseException) -> None:
        if isinstance(error, (CancelledError, WorkerStopped)):
            self._put_back(held, 0.0)
        elif isinstance(error, RequestExpired) and call is not None and not self._out_of_time(held.job):
            self._put_back(held, self._wait(call))
        else:
            self._fail(held, error)

    def _fail(self, held: _Held, error: BaseException) -> None:
        self.failed += 1
        recorded = kept_error(error)
        if recorded is not None:
            self._keep(held, write_answer(recorded, None, 1))
            return
        name, values = failure_of(error) or ("WorkerStopped", ())
        if not isinstance(error, (RequestExpired, BudgetExceeded)):
            _log.warning("job_failed: %s", name, extra={"event": "job_failed"})
        self._keep(held, write_failure(name, values))

    def _out_of_time(self, job: Job) -> bool:
        try:
            now = self._clock.now()
        except Exception:
            return False
        return any(seconds is not None and seconds <= 0.05 for seconds in (job.left(now), job.wait_left(now)))

    def _wait(self, call: RemoteCall) -> float:
        """Seconds until a permit is to be expected for it, by what the limits say."""
        outlook = call.runtime.outlook(call.pool)
        seconds = outlook.wait(max(1, len(self._held)))[0]
        return min(LATEST, max(SOONEST, seconds if math.isfinite(seconds) else self._patience))

    def _keep(self, held: _Held, answer: bytes) -> None:
        self._finally(partial(self._kept, held, answer))

    def _kept(self, held: _Held, answer: bytes) -> None:
        self._store.answer(held.job.id, held.job.submitter, answer)
        self._drop(held)
        held.ticket.done()

    def _put_back(self, held: _Held, delay: float) -> None:
        self.put_back += 1
        self._finally(partial(self._released, held, delay))

    def _released(self, held: _Held, delay: float) -> None:
        self._store.release([held.job.id])
        self._drop(held)
        held.ticket.put_back(delay)

    def _drop(self, held: _Held) -> None:
        with self._lock:
            if self._held.get(held.job.id) is held:
                del self._held[held.job.id]

    def _return(self, ticket: Ticket, delay: float) -> None:
        ticket.put_back(delay)

    def _refuse(self, ticket: Ticket, error: InvalidJob) -> None:
        """Nobody waits for it, as far as can be told; but if somebody does, they hear of it."""
        self.refused += 1
        _log.warning("job_refused: %s", error, extra={"event": "job_refused"})
        ids = sender_of(ticket.job)
        if ids is not None:
            self._finally(partial(self._store.answer, *ids, write_failure("the job was refused")))
        ticket.refuse()

    def _finally(self, step: Callable[[], None]) -> None:
        """Do what must be done; when the server is lost, again and again from `tick`."""
        try:
            step()
        except Exception as error:
            _log.warning("store_failed: %s; it is tried again", type(error).__name__, extra={"event": "store_failed"})
            self._late.append(step)

    # -- every now and then -------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Renew the claims, and keep what could not be kept."""
        now = time.monotonic()
        if now - self._renewed > self._heartbeat / 4:
            self._renewed = now
            with self._lock:
                ids = list(self._held)
            if ids:
                try:
                    self._store.renew(ids, self._heartbeat)
                except Exception as error:
                    _log.warning("claims_not_renewed: %s", type(error).__name__)
        if self._late and now - self._tried > AGAIN:
            self._tried = now
            for _ in range(len(self._late)):
                before = len(self._late)
                self._finally(self._late.popleft())
                if len(self._late) == before:
                    return  # it is still lost

    def give_back(self) -> None:
        """Put back what is not sent yet; what is in flight goes on."""
        self._stopping = True
        with self._lock:
            waiting = [each.future for each in self._held.values() if each.future is not None]
        for future in waiting:
            future.cancel()

    @property
    def in_flight(self) -> int:
        """What was taken and has neither ended nor been put back; answers that are not kept yet count too."""
        return len(self._held)
