"""Numbers over all requests of a manager: counted when they are accepted and when they end, told on request."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from ..books.minute import Minute
from ..core.limiter import Survey
from ..core.request import Cost, Usage
from ..core.size_classes import SizeClasses
from .records import Record, level_name

__all__ = ["Figures", "limits_told", "percent"]

SEEDED = ("low", "medium", "long")  # what the three size classes are called
RECENT = 100  # requests that the health goes by
HEALTHY, DEGRADED = 90, 50  # least scores, in percent of them


class Figures:
    """Counts. Guarded by its owner's lock.

    Args:
        sizes: the classes that are counted apart.
    """

    def __init__(self, sizes: SizeClasses) -> None:
        self._sizes = sizes
        count = len(sizes.weights)
        self.size_names = SEEDED if count == len(SEEDED) else tuple(f"class_{number}" for number in range(count))
        self.enqueued: Counter[int] = Counter()
        self.ended: Counter[str] = Counter()  # by status
        self._by_size: Counter[tuple[int, str]] = Counter()
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._minute = Minute()
        self.input_tokens = self.output_tokens = 0

    def accepted(self, record: Record) -> None:
        """Count a request that was accepted."""
        self.enqueued[record.rank] += 1

    def size(self, record: Record) -> int:
        """The number of a request's size class."""
        return self._sizes.of(record.cost or Cost(expected=record.tokens or 0))

    def over(self, record: Record, status: str, usage: Usage | None, now: float) -> None:
        """Count a request that has ended with this status; `usage` None when nobody told."""
        self.ended[status] += 1
        self._by_size[self.size(record), status] += 1
        if status != "cancelled":
            self._recent.append(status == "completed")
        if usage is not None:
            self.input_tokens += usage.input_tokens
            self.output_tokens += usage.output_tokens
        self._minute.add(now, 1, 0 if usage is None else usage.total_tokens)

    @property
    def success_rate(self) -> float:
        """Percent of the answered and failed requests that were answered; 100.0 while there are none."""
        return percent(self.ended["completed"], self.ended["completed"] + self.ended["failed"])

    def last_minute(self, now: float) -> tuple[int, int]:
        """Requests that ended in the last 60 s, and the tokens that they used."""
        requests, tokens = self._minute.sums(now, 2)
        return requests, tokens

    def health(self, running: bool, paused: bool) -> dict[str, Any]:
        """A word and a score: the percentage of the latest hundred requests that were answered."""
        score = round(percent(sum(self._recent), len(self._recent)))
        word = "healthy" if score >= HEALTHY else "degraded" if score >= DEGRADED else "unhealthy"
        return {"status": "stopped" if not running else "paused" if paused else word, "score": score}

    def told(self) -> dict[str, Any]:
        """The counts by the names that `get_metrics` has for them."""
        told: dict[str, Any] = {
            "enqueued_total": self.enqueued.total(),
            "completed_total": self.ended["completed"],
            "failed_total": self.ended["failed"],
            "cancelled_total": self.ended["cancelled"],
            "success_rate_percent": round(self.success_rate, 1),
            "by_priority": {level_name(rank): count for rank, count in sorted(self.enqueued.items())},
        }
        for number, name in enumerate(self.size_names):
            told[f"{name}_completed"] = self._by_size[number, "completed"]
            told[f"{name}_failed"] = self._by_size[number, "failed"]
        return told


def percent(part: float, whole: float) -> float:
    """The part in percent of the whole; 100.0 when the whole is 0."""
    return 100.0 if not whole else 100.0 * part / whole


def limits_told(surveys: dict[str, Survey]) -> dict[str, dict[str, dict[str, float]]]:
    """The limits as they stand: by group of requests (a model, or "all"), then by name."""
    return {
        name or "all": {
            each.dimension: {"limit": each.limit, "remaining": round(each.remaining, 3), "period": each.period}
            for each in survey.standings
        }
        for name, survey in surveys.items()
    }
