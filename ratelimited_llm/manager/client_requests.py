"""Requests that go through a client of ours: the SDK's calls by endpoint, under the client's own limits.

The manager has a worker of its own, so that it can be paused and stopped without anybody else's calls (that of the
gateway has not, see `join_queue`); the limits are the client's and of every other client with the same key, since the
budget is one for the process.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from ..books.status import Ratelimit
from ..client import QueuedClient
from ..core.request import Lane, Usage
from ..engine.light_future import LightFuture
from ..providers import dialect_for
from ..worker import RateLimitedWorker
from .records import Record

__all__ = ["ClientRequests"]

# The method of each endpoint; what the providers call it is read with slashes or dots, with and without "v1".
METHODS = {
    "audio.speech": "audio.speech.create",
    "audio.transcriptions": "audio.transcriptions.create",
    "audio.translations": "audio.translations.create",
    "chat.completions": "chat.completions.create",
    "chat.completions.parse": "chat.completions.parse",
    "complete": "completions.create",
    "completions": "completions.create",
    "embeddings": "embeddings.create",
    "images.edits": "images.edit",
    "images.generations": "images.generate",
    "images.variations": "images.create_variation",
    "messages": "messages.create",
    "moderations": "moderations.create",
    "responses": "responses.create",
    "responses.parse": "responses.parse",
}
MOST_COPIES = 256  # of the client, one for each priority, tenant and deadline
MOST_POOLS = 256
_GENERIC = dialect_for(None, "")


class ClientRequests:
    """The requests of one manager that go through a client.

    Args:
        client: one of ours.
        queue: arguments of the worker; what is None is as the client has it.

    Raises:
        TypeError: it is no client of ours.
    """

    def __init__(self, client: Any, queue: Mapping[str, Any]) -> None:
        if not isinstance(client, QueuedClient):
            raise TypeError(
                f"client must be one of ours (from ratelimited_llm import OpenAI), not a {type(client).__name__}; "
                "for anything else give processor="
            )
        self._client: Any = client
        theirs = client._runtime.queue
        self._queue = {name: value for name, value in queue.items() if value is not None}
        for name in ("ageing", "size_classes"):
            self._queue.setdefault(name, getattr(theirs, name))
        self._queue.setdefault("weights", dict(theirs.weights))
        self._joined = False
        self._lock = threading.Lock()
        self._copies: dict[tuple[Any, ...], Any] = {}
        self._pools: dict[str, Any] = {}
        self._budget = client._runtime.worker.budget
        # One of its own: who waits for a place is woken by the end of a call of the same worker.
        self._lane = Lane(client._runtime.lane.width)
        self.worker = RateLimitedWorker(budget=self._budget, **self._queue)

    def join_queue(self) -> None:
        """Queue with the client's own calls from now on, in one order with them; for who offers both at one door.

        The worker is the client's then, so `shutdown` ends only these requests, and a pause is everybody's.
        """
        self._joined = True
        self.worker = self._client._runtime.worker

    def shutdown(self, wait: bool, *, cancel_futures: bool) -> None:
        """See `RateLimitedWorker.shutdown`."""
        if not self._joined:
            self.worker.shutdown(wait, cancel_futures=cancel_futures)
        elif cancel_futures:
            self.worker.cancel_queued(lambda job: job.lane is self._lane)

    def restart(self) -> None:
        """A worker for more requests, after the one before was shut down."""
        self._copies.clear()
        if self._joined:
            return
        self.worker = RateLimitedWorker(budget=self._budget, **self._queue)

    def check(self, endpoint: str) -> None:
        """Refuse an endpoint that the client does not have.

        Raises:
            ValueError: with the known ones.
        """
        self._method(self._client, endpoint)

    def submit(self, record: Record) -> Future[Any]:
        """Accept a request.

        Raises:
            TypeError: the payload has not the arguments that the SDK's method takes.
            QueueFull, WorkerStopped, BudgetExceeded: see the worker.
        """
        payload = record.payload
        if not isinstance(payload, Mapping) or not all(isinstance(name, str) for name in payload):
            raise TypeError(f"the payload must be a mapping of the request's parameters, not {payload!r}")
        method = self._method(self._copy(record), record.endpoint)
        options = {} if record.timeout is None else {"timeout": record.timeout}
        answer = method(**{**payload, **options})
        if not issubclass(type(answer), Future):  # its type alone says so: a pending one passes for its answer
            done: LightFuture[Any] = LightFuture()  # what consumes open files is answered in the call
            done.set_result(answer)
            return done
        job = getattr(answer, "_call", None)  # None when a journal has answered it already
        if job is not None:
            record.cost = job.cost
            with self._lock:
                if len(self._pools) < MOST_POOLS:
                    self._pools[job.pool.family] = job.pool
        return answer  # type: ignore[no-any-return]

    def _copy(self, record: Record) -> Any:
        key = (record.rank, record.tenant, record.deadline, record.tokens, record.tag)
        worker = self.worker
        with self._lock:
            door = self._copies.get(key)
            if door is None or door._runtime.worker is not worker:
                if len(self._copies) >= MOST_COPIES:
                    self._copies.clear()
                door = self._copies[key] = self._new_copy(record, worker)
        return door

    def _new_copy(self, record: Record, worker: RateLimitedWorker) -> Any:
        deadline = {} if record.deadline is None else {"deadline": record.deadline}
        door = self._client.with_options(
            priority=record.rank, tenant=record.tenant, tag=record.tag, mode="future", **deadline
        )
        runtime = copy.copy(door._runtime)  # everything is shared with the client but the queue
        runtime.worker, runtime.lane = worker, self._lane
        if record.tokens is not None:
            runtime.estimator = _always(record.tokens)
        door._runtime = runtime
        return door

    @staticmethod
    def _method(client: Any, endpoint: str) -> Callable[..., Any]:
        name = endpoint.strip("/").replace("/", ".").removeprefix("openai.").removeprefix("v1.").removesuffix(".create")
        method: Any = client if name in METHODS else None
        for part in METHODS.get(name, "").split("."):
            method = getattr(method, part, None)
        if method is None:
            known = ", ".join(sorted(METHODS))
            raise ValueError(f"this client has no endpoint {endpoint!r} that is queued; known are {known}")
        return method  # type: ignore[no-any-return]

    # -- how requests fare --------------------------------------------------------------------------------------------

    def fares(self, record: Record) -> Ratelimit:
        """How an open request fares; never blocks."""
        fared = getattr(record.future, "ratelimit", None)
        return fared if isinstance(fared, Ratelimit) else Ratelimit("queued", 0.0)

    def fared(self, record: Record, state: str) -> Ratelimit:
        """How a request fared that has just ended."""
        return self.fares(record)

    def usage(self, record: Record, result: Any) -> Usage | None:
        """The tokens that an answer says it used."""
        try:
            return _GENERIC.usage(result)
        except Exception:  # a raw answer may be anything
            return None

    def reset_after_fork(self) -> None:
        """In the child of a fork: a thread that is not here may have held the lock."""
        self._lock = threading.Lock()

    @property
    def groups(self) -> dict[str, Any]:
        """The pools that were used, by the name of their model family."""
        with self._lock:
            return dict(self._pools)


def _always(tokens: int) -> Callable[[Any], int]:
    return lambda body: tokens
