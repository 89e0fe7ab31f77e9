"""The requests that a manager knows: those that are open, and those that ended, for as long as they are kept."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

from ..books.status import Ratelimit
from ..core.request import Cost, Priority, State
from ..exceptions import WorkerStopped
from .callbacks import Callback

__all__ = ["Record", "Records", "level_name"]

_NAMES = {int(level): level.name.lower() for level in Priority}
WAITING = (State.NEW, State.QUEUED)


def level_name(rank: int) -> str:
    """A priority as its word; numbers between the words as themselves."""
    return _NAMES.get(rank, str(rank))


class Record:
    """One request, from its acceptance until it is forgotten.

    Attributes:
        payload: None when it has ended.
        tokens: what was said that it will use; None when nothing was.
        cost: what it was expected to cost when it was accepted; None when nobody had to know.
        call: the job of a processor, as long as it is open.
        created_at: wall-clock seconds since the epoch.
        future: None for the moment before it is accepted.
        fared: how it fared, when it has ended.
        ended_at: monotonic seconds; None while it is open.
    """

    __slots__ = (
        "call", "callback", "cost", "created_at", "deadline", "ended_at", "endpoint", "fared", "future", "payload",
        "rank", "request_id", "tag", "tenant", "timeout", "tokens",
    )  # fmt: skip

    def __init__(
        self, request_id: str, endpoint: str, payload: Any, rank: int, tenant: str, tokens: int | None,
        deadline: float | None, timeout: float | None, callback: Callback | None, created_at: float,
        tag: str = "",
    ) -> None:  # fmt: skip
        self.request_id = request_id
        self.endpoint = endpoint
        self.payload = payload
        self.rank = rank
        self.tenant = tenant
        self.tokens = tokens
        self.deadline = deadline
        self.timeout = timeout
        self.callback = callback
        self.created_at = created_at
        self.tag = tag
        self.cost: Cost | None = None
        self.call: Any = None
        self.future: Future[Any] | None = None
        self.fared: Ratelimit | None = None
        self.ended_at: float | None = None

    @property
    def job(self) -> Any:
        """The call as the worker holds it; None when it has ended."""
        return getattr(self.future, "_call", None)

    @property
    def status(self) -> str:
        """In the words of the documents: queued, processing, completed, failed, cancelled."""
        future = self.future
        if future is None:
            return "queued"
        if not future.done():
            job = self.job
            return "processing" if job is not None and job.state not in WAITING else "queued"
        if future.cancelled():
            return "cancelled"
        error = future.exception()
        if error is None:
            return "completed"
        return "cancelled" if isinstance(error, (WorkerStopped, CancelledError)) else "failed"

    @property
    def error(self) -> BaseException | None:
        """What it ended with instead of an answer; None otherwise."""
        future = self.future
        if future is None or not future.done():
            return None
        return CancelledError(f"request {self.request_id}") if future.cancelled() else future.exception()


class Records:
    """The records by id. Guarded by its owner's lock.

    Args:
        keep: seconds that ended requests are kept; None for ever.
        most: how many of them at most; None for all.
    """

    def __init__(self, keep: float | None, most: int | None) -> None:
        self._keep = keep
        self._most = most
        self.open: dict[str, Record] = {}
        self.ended: dict[str, Record] = {}  # in the order of their ends

    def get(self, request_id: str) -> Record | None:
        """The request of this id; None when there is none, or it was forgotten."""
        return self.open.get(request_id) or self.ended.get(request_id)

    def end(self, record: Record, now: float) -> bool:
        """It has ended; False when that was known."""
        if self.open.pop(record.request_id, None) is None:
            return False
        record.ended_at = now
        self.ended[record.request_id] = record
        return True

    def abandon(self, now: float) -> None:
        """In the child of a fork: what is open is the parent's, which calls back too."""
        for record in list(self.open.values()):
            record.callback = record.payload = record.call = None
            self.end(record, now)

    def forget(self, now: float) -> None:
        """Let go of the results that were kept for long enough. Nothing wakes for it: it is done when others come."""
        for record in list(self._superfluous(now)):
            del self.ended[record.request_id]

    def _superfluous(self, now: float) -> Iterator[Record]:
        surplus = 0 if self._most is None else len(self.ended) - self._most
        for number, record in enumerate(self.ended.values()):
            assert record.ended_at is not None
            if number >= surplus and (self._keep is None or record.ended_at + self._keep > now):
                return
            yield record
