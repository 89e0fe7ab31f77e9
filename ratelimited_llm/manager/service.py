"""QueueManager itself: requests with ids, over the queue, the limits and the retries that everything here has."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import datetime
from functools import partial
from typing import Any

from ..budgets import own_budget
from ..core.checks import number, seconds, text, whole
from ..core.limits import RateLimits
from ..core.retry import RetryPolicy
from ..core.size_classes import SizeClasses
from ..engine import lifecycle
from ..exceptions import WorkerStopped
from ..forks import at_fork
from ..options import CallOptions, split_limits
from ..processors import Processor
from .answers import RequestId, Told
from .background import Background
from .callbacks import Callback, calling
from .client_requests import ClientRequests
from .figures import Figures
from .inspection import Inspection
from .processing import Processing
from .records import Record, Records

__all__ = ["QueueManager"]


class QueueManager(Inspection):
    """A queue of requests with ids: enqueue, look, cancel, and take the result when it is there, or be called back.

    Args:
        processor: who sends the requests: a `Processor`, or a mapping from endpoint to one.
        client: or a client of ours (`OpenAI()`), through whose methods they go: "chat.completions", "/v1/embeddings".
            It has to stay open for as long as the manager runs.
        limits: what may be spent, with a processor: a `RateLimits` value, or one by one (`rpm=`, `tpm=`, `share=`...).
            With a client they are the client's.
        max_retries: how often a request is tried again after a failure that may pass; a refusal by a limit is no
            attempt. With a client, the client's.
        timeout: seconds of one attempt, counted from dispatch; None for no bound, or the client's.
        keep_results: seconds that a request which has ended can be asked about; None for ever.
        max_results: how many of them at most, the latest; None for all.
        max_queue, max_queue_per_tenant: requests that may wait; None for no cap.
        on_full: at a cap, "raise" QueueFull, or "block" until there is room.
        ageing, weights: see `RateLimitedWorker`.
        size_classes: turns between small and large requests; a `SizeClasses`, True for 3-2-1, None for none.
        budget, budget_name, on_budget_lost: with a processor, who shares its limits: see `RateLimitedExecutor`. With a
            client, the client's budget counts.

    All methods are thread-safe, and those that the documents await may be awaited or not. It starts with its first
    request, or with `start`. Waiting requests of a script that ends are processed first, as everywhere here; those of
    a manager that is paused are cancelled.

    Raises:
        ValueError, TypeError: for an argument that makes no sense, at once.
    """

    def __init__(
        self,
        processor: Processor | Mapping[str, Processor] | None = None,
        *,
        client: Any = None,
        limits: RateLimits | None = None,
        max_retries: int = 2,
        timeout: float | None = None,
        keep_results: float | None = 3600.0,
        max_results: int | None = 100_000,
        max_queue: int | None = None,
        max_queue_per_tenant: int | None = None,
        on_full: str = "raise",
        ageing: float | None = None,
        weights: dict[str, float] | None = None,
        size_classes: SizeClasses | bool | None = None,
        budget: str | None = None,
        budget_name: str | None = None,
        on_budget_lost: str | None = None,
        **limit_options: Any,
    ) -> None:
        sizes = SizeClasses.read(size_classes)
        queue = {
            "max_queue": max_queue, "max_queue_per_tenant": max_queue_per_tenant, "on_full": on_full,
            "ageing": ageing, "weights": weights, "size_classes": sizes,
        }  # fmt: skip
        self._background = Background()
        self._sent_by: Processing | ClientRequests
        if (processor is None) == (client is None):
            raise TypeError("give processor=, or client=, and not both: somebody has to send the requests")
        given = split_limits(limits, limit_options)
        if client is not None:
            if given != RateLimits():
                raise TypeError("with client= the limits are the client's: OpenAI(rpm=..., tpm=...)")
            if (budget, budget_name, on_budget_lost) != (None, None, None):
                raise TypeError("with client= the budget is the client's: OpenAI(budget=...)")
            self._sent_by = ClientRequests(client, queue)
        else:
            assert processor is not None
            policy = RetryPolicy(max_retries=whole("max_retries", max_retries, 0))
            shared = own_budget(budget, budget_name, on_budget_lost, repr(given))
            self._sent_by = Processing(processor, given, policy, queue, self._background, shared)
        self._timeout = _checked_seconds("timeout", timeout)
        self._lock = threading.RLock()
        self._records = Records(
            _checked_seconds("keep_results", keep_results),
            None if max_results is None else whole("max_results", max_results, 1),
        )
        self._figures = Figures(sizes or SizeClasses())
        self._running = False
        self._stopped = False
        self._process = os.getpid()
        _all.add(self)

    # -- start and stop -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Accept and process requests; after `stop`, again. What was spent of the limits stays spent."""
        with self._lock:
            if self._stopped:
                self._sent_by.restart()
            self._stopped, self._running = False, True

    def stop(self, wait: bool = True, cancel_pending: bool = False) -> None:
        """Accept no more requests, and end a pause. May be called more than once.

        Args:
            wait: block until the pending requests have ended and their callbacks have run. Inside a callback it does
                not wait, since that would be for itself.
            cancel_pending: cancel those that wait; those in flight end, and are not tried again.
        """
        with self._lock:
            self._running, self._stopped = False, True
        inside = calling() or self._background.is_here
        self._sent_by.shutdown(wait and not inside, cancel_futures=cancel_pending)
        if wait and not inside:
            self._background.close()

    async def stop_async(self, wait: bool = True, cancel_pending: bool = False) -> None:
        """`stop`, for coroutines: the event loop goes on meanwhile."""
        await asyncio.to_thread(self.stop, wait, cancel_pending)

    def ensure_processing(self) -> Told:
        """Start, unless it runs. Every `enqueue_request` does so, until `stop`. May be awaited."""
        if not self._running:
            self.start()
        return Told(True)

    def pause(self) -> None:
        """From now on nothing is sent, until `resume`. Requests are accepted, those in flight end."""
        self._sent_by.worker.pause()

    def resume(self) -> None:
        """End a pause; what waits goes on at once."""
        self._sent_by.worker.resume()

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._running

    @property
    def paused(self) -> bool:
        """Whether nothing is sent until `resume`."""
        return self._sent_by.worker.paused

    def __enter__(self) -> QueueManager:
        self.start()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            worker = self._sent_by.worker
            self.stop(wait=lifecycle.leave(worker.cancel_queued, worker.wait))
        else:
            self.stop()

    async def __aenter__(self) -> QueueManager:
        self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop_async()

    # -- requests -----------------------------------------------------------------------------------------------------

    def enqueue_request(
        self,
        endpoint: str,
        payload: Any,
        token_count: int | None = None,
        callback: Callable[..., Any] | None = None,
        priority: int | str = "low",
        tenant: str | None = None,
        *,
        deadline: float | None = None,
        timeout: float | None = None,
        tag: str | None = None,
    ) -> RequestId:
        """Accept a request, and return its id at once. May be awaited, with the same outcome.

        Args:
            endpoint: what to call; which ones there are says the client or the mapping of processors. A single
                processor gets any.
            payload: the request's parameters, as they are now.
            token_count: model tokens that it will probably use, when you know better than the estimate; with a
                client, those of the prompt, as the provider's rule for the answer is known.
            callback: called once when it has ended; see `callbacks`. A coroutine function runs on the event loop that
                is running here, if one is.
            priority: "high", "normal", "low" (or "critical", "background"), a `Priority`, or 0 (first) to 10 (last).
            tenant: whose turn it takes inside its priority.
            deadline: seconds from now after which it is not worth sending.
            timeout: seconds of one attempt; None for the manager's.
            tag: a name by which requests can be cancelled together, from anywhere that shares the budget.

        Raises:
            ValueError, TypeError: for an endpoint, priority or payload that makes no sense.
            BudgetExceeded: it asks for more than a whole limit.
            QueueFull: the queue, or this tenant's share of it, is at its cap.
            WorkerStopped: after `stop`.
        """
        if not isinstance(endpoint, str) or not endpoint:
            raise ValueError(f"endpoint must be a string that names one, not {endpoint!r}")
        text("endpoint", endpoint)
        options = CallOptions(
            priority=priority,
            tenant="" if tenant is None else tenant,
            deadline=deadline,
            tag="" if tag is None else tag,
        )
        tokens = None if token_count is None else whole("token_count", token_count, 0)
        wait = self._timeout if timeout is None else _checked_seconds("timeout", timeout)
        told = None if callback is None else Callback(callback)
        self._sent_by.check(endpoint)
        record = Record(
            uuid.uuid4().hex, endpoint, payload, options.rank, options.tenant, tokens, deadline, wait, told, _now(),
            options.tag,
        )  # fmt: skip
        with self._lock:
            if self._stopped:
                raise WorkerStopped("this queue manager is stopped: start() it again, or enqueue before stop()")
            self._running = True
            self._records.forget(time.monotonic())
            self._records.open[record.request_id] = record
        try:
            future = self._sent_by.submit(record)
        except BaseException:
            with self._lock:
                self._records.open.pop(record.request_id, None)
            raise
        self._accepted(record, future)
        return RequestId(record.request_id)

    def _accepted(self, record: Record, future: Future[Any]) -> None:
        record.future = future
        with self._lock:
            self._figures.accepted(record)
        future.add_done_callback(partial(self._ended, record))

    def _ended(self, record: Record, future: Future[Any]) -> None:
        """Its future is over: on the thread that ended it, once."""
        if self._process != os.getpid():
            return  # this is the child of a fork: see `reset_after_fork`
        self._note_end(record)
        callback, record.callback = record.callback, None
        if callback is not None:
            error = record.error
            result = None if error is not None else future.result()
            callback.call(record.request_id, result, error, self._background)

    def cancel_request(self, request_id: str) -> Told:
        """Take a request out of the queue; False when it is being processed, has ended, or is not known.

        One that waits for another try, after a failure or a refusal, can be cancelled too. May be awaited.
        """
        record = self._find(request_id)
        future = None if record is None else record.future
        if record is None or future is None or future.done():
            return Told(False)
        if future.cancel():
            return Told(True)
        job = record.job
        if job is None or record.status != "queued":
            return Told(False)
        return Told(self._sent_by.worker.cancel_queued(lambda each: each is job) > 0)

    def get_result(self, request_id: str, timeout: float | None = None) -> Any:
        """The response to a request; waits for it, at most `timeout` seconds (None: as long as it takes).

        It can be asked for as often as wanted, for as long as it is kept.

        Raises:
            TypeError, ValueError: for an argument that makes no sense.
            KeyError: no such request, or its result was forgotten.
            TimeoutError: it is not there yet (`concurrent.futures.TimeoutError` on Python 3.10).
            CancelledError, WorkerStopped: it was cancelled.
            Exception: what it failed with.
        """
        bound = _checked_timeout(timeout)
        record = self._known(request_id)
        assert record.future is not None
        try:
            return record.future.result(bound)
        finally:
            self._note_end(record)  # so that whoever has the result finds it counted
            del record  # else a failure holds it: exception -> traceback -> this frame -> future

    async def get_result_async(self, request_id: str, timeout: float | None = None) -> Any:
        """`get_result`, for coroutines: the event loop goes on meanwhile, and giving up cancels nothing."""
        bound = _checked_timeout(timeout)
        record = self._known(request_id)
        assert record.future is not None
        future = asyncio.wrap_future(record.future)
        future.add_done_callback(_look_at)
        await asyncio.wait(
            [future], timeout=None if bound == math.inf else bound
        )  # unlike wait_for, it cancels nothing
        if not future.done():
            raise FutureTimeoutError(f"request {request_id} has no answer after {timeout} s")
        self._note_end(record)
        return future.result()

    def __repr__(self) -> str:
        state = "paused" if self.paused else "running" if self._running else "stopped" if self._stopped else "new"
        worker = self._sent_by.worker
        return f"<QueueManager {state} queued={worker.queued} in_flight={worker.in_flight}>"

    def reset_after_fork(self) -> None:
        """In the child of a fork: a thread that is not here may have held the lock. Requests are the parent's."""
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._records.abandon(time.monotonic())
        self._sent_by.reset_after_fork()
        self._background.reset_after_fork()


def _look_at(future: asyncio.Future[Any]) -> None:
    """Nobody is to be blamed for not looking at a failure that came after they had stopped waiting."""
    if not future.cancelled():
        future.exception()


def _now() -> float:
    return datetime.now().timestamp()


def _checked_timeout(value: object) -> float | None:
    return None if value is None else number("timeout", value, "a number of seconds")


def _checked_seconds(name: str, value: object) -> float | None:
    return None if value is None else seconds(name, value)


_all: weakref.WeakSet[QueueManager] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for manager in list(_all):
        manager.reset_after_fork()


at_fork(_after_fork_in_child)
