"""Questions to a manager: single requests, the queue, and numbers over everything. Nothing here waits."""

from __future__ import annotations

import threading
import time
from typing import Any

from ..core.checks import text
from ..core.request import Priority
from .answers import StatusDict
from .client_requests import ClientRequests
from .figures import Figures, limits_told, percent
from .processing import Processing
from .records import WAITING, Record, Records, level_name

__all__ = ["Inspection"]

MOST_COUNTED = 10_000  # open requests among which a place is looked for on the spot: some milliseconds
LEVELS = ("high", "normal", "low")  # that are always told, also when they are empty


class Inspection:
    """The half of a `QueueManager` that answers questions."""

    _sent_by: Processing | ClientRequests
    _lock: threading.RLock
    _records: Records
    _figures: Figures
    _running: bool

    def get_request_status(self, request_id: str) -> StatusDict:
        """How a request fares, as a dict of what JSON knows; never waits. May be awaited.

        Its `status` is "queued", "processing", "completed", "failed", "cancelled"; or "not_found" for an id that is not
        known (any more). `position` is 1 for the next one, and None when it does not wait or that cannot be told now;
        `eta` is in seconds; `created_at`, `started_at` and `ended_at` are seconds since the epoch.
        """
        record = self._find(request_id)
        if record is None:
            return StatusDict(request_id=request_id, status="not_found")
        return StatusDict(self._told(record))

    def _told(self, record: Record) -> dict[str, Any]:
        self._note_end(record)
        status, error = record.status, record.error
        fares = record.fared or self._sent_by.fares(record)
        started = record.created_at + fares.queued_s if fares.sent_s is not None else None
        over = status in ("completed", "failed", "cancelled")
        lasted = fares.queued_s + (fares.sent_s or 0.0)
        return {
            "request_id": record.request_id,
            "status": status,
            "endpoint": record.endpoint,
            "priority": level_name(record.rank),
            "tenant": record.tenant,
            "token_count": record.tokens,
            "task_type": self._figures.size_names[self._figures.size(record)],
            "position": (fares.place or self._position(record)) if status == "queued" else None,
            "eta": fares.eta if status == "queued" else None,
            "held_by": fares.held_by if status == "queued" else None,
            "attempts": fares.attempts,
            "created_at": record.created_at,
            "started_at": started,
            "ended_at": record.created_at + lasted if over else None,
            "waited_seconds": fares.queued_s,
            "processing_seconds": fares.sent_s,
            "error": None if error is None else str(error) or type(error).__name__,
            "error_type": None if error is None else type(error).__name__,
        }

    def _position(self, record: Record) -> int | None:
        """Its place by priority and age, where the worker's latest count has not seen it; None among very many."""
        job = record.job
        with self._lock:
            if job is None or len(self._records.open) > MOST_COUNTED:
                return None
            others = [each.job for each in self._records.open.values()]
        mine = (job.priority, job.sequence)
        return 1 + sum(
            each is not None and each.state in WAITING and (each.priority, each.sequence) < mine for each in others
        )

    def get_next_request(self) -> dict[str, Any] | None:
        """The request that is next, as its status and its `payload`; None when none waits. It stays in the queue."""
        job = self._sent_by.worker.first()
        if job is None:
            return None
        with self._lock:
            record = next((each for each in self._records.open.values() if each.job is job), None)
        return None if record is None else {**self._told(record), "payload": record.payload}

    def get_queue_length(self, priority: int | str | None = None, tenant: str | None = None) -> Any:
        """How many requests wait: a dict by priority, with "high", "normal", "low" and "total" always there.

        Args:
            priority: answer one number, of this priority.
            tenant: count only this tenant's.
        """
        rank = None if priority is None else Priority.parse(priority)
        if tenant is not None:
            text("tenant", tenant)
        with self._lock:
            waiting = [
                record.rank
                for record in self._records.open.values()
                if (tenant is None or record.tenant == tenant) and record.status == "queued"
            ]
        if rank is not None:
            return waiting.count(rank)
        lengths = dict.fromkeys(LEVELS, 0)
        for each in sorted(waiting):
            lengths[level_name(each)] = lengths.get(level_name(each), 0) + 1
        return {**lengths, "total": len(waiting)}

    def get_queue_status(self) -> dict[str, Any]:
        """What it does now: `queue_lengths`, `running`, `paused`, `in_flight`, `rate_limits`, and how healthy that is.

        `rate_limits` is by model (or "all"), and then by limit: how much it is, and what is left of it.
        """
        lengths = self.get_queue_length()
        worker, surveys = self._sent_by.worker, self._surveys()
        now = time.monotonic()
        with self._lock:
            ended, _ = self._figures.last_minute(now)
            health = self._figures.health(self._running, worker.paused)
        return {
            "queue_lengths": lengths,
            "running": self._running,
            "paused": worker.paused,
            "is_processing": self._running and not worker.paused,
            "in_flight": worker.in_flight,
            "rate_limits": limits_told(surveys),
            "health_status": health["status"],
            "processing_rate_per_minute": ended,
        }

    def get_metrics(self) -> dict[str, Any]:
        """What it has done since it was made: counts, by size class and priority, success rate, tokens, and health.

        Size classes are `low`, `medium` and `long`, by expected tokens, whether or not they take turns here.
        """
        lengths = self.get_queue_length()
        worker, surveys = self._sent_by.worker, self._surveys()
        now = time.monotonic()
        tpm = [each for survey in surveys.values() for each in survey.standings if each.dimension == "tpm"]
        used = max((percent(each.limit - each.remaining, each.limit) for each in tpm), default=None)
        with self._lock:
            figures = self._figures
            ended, tokens = figures.last_minute(now)
            by_tenant: dict[str, int] = {}
            for record in self._records.open.values():
                by_tenant[record.tenant] = by_tenant.get(record.tenant, 0) + 1
            return {
                "total_in_queue": lengths["total"],
                "pending_by_priority": {name: count for name, count in lengths.items() if name != "total"},
                "pending_by_tenant": by_tenant,
                "in_flight": worker.in_flight,
                "results_kept": len(self._records.ended),
                **figures.told(),
                "token_usage": {
                    "input_tokens": figures.input_tokens,
                    "output_tokens": figures.output_tokens,
                    "last_minute": tokens,
                    "limit": max((each.limit for each in tpm), default=None),
                    "utilization_percent": None if used is None else round(used, 1),
                },
                "processing_rate_per_minute": ended,
                "system_health": figures.health(self._running, worker.paused),
            }

    def _surveys(self) -> dict[str, Any]:
        worker = self._sent_by.worker
        now = worker.clock()
        return {name: worker.budget.survey(pool, now) for name, pool in self._sent_by.groups.items()}

    # -- records ----------------------------------------------------------------------------------------------------

    def _find(self, request_id: str) -> Record | None:
        if not isinstance(request_id, str):
            raise TypeError(f"request_id must be the string that enqueue_request answered, not {request_id!r}")
        with self._lock:
            self._records.forget(time.monotonic())
            return self._records.get(request_id)

    def _known(self, request_id: str) -> Record:
        record = self._find(request_id)
        if record is None or record.future is None:
            raise KeyError(f"no request {request_id!r}: it was never accepted, or its result is not kept any more")
        return record

    def _note_end(self, record: Record) -> None:
        """Count a request that has ended, unless it has not, or was counted."""
        with self._lock:
            status = record.status
            if status in ("queued", "processing") or record.request_id not in self._records.open:
                return
            future, now = record.future, time.monotonic()
            usage = None
            if status == "completed" and future is not None:
                usage = self._sent_by.usage(record, future.result())
            record.fared = self._sent_by.fared(record, "done" if status == "completed" else status)
            record.payload = record.call = None
            self._records.end(record, now)
            self._figures.over(record, status, usage, now)
            self._records.forget(now)
