"""What a process reports of itself to those who share its limits: for `ratelimited-llm top`, and for dashboards."""

from __future__ import annotations

import math
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..telemetry.meters import WAITS, Histogram

if TYPE_CHECKING:
    from .ledger import Ledger

__all__ = ["facts_of", "set_role"]

COLUMNS = 4  # of a pool's minute: requests, tokens, and the tokens of each kind
MOST_POOLS = 50  # that are reported one by one, the busiest
MINUTE = 60.0

_roles: list[str] = []
_waits: weakref.WeakKeyDictionary[Any, _Waits] = weakref.WeakKeyDictionary()


class _Waits:
    """How long calls have waited in the last minute, by histograms that only grow."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, list[int]]] = deque([(-math.inf, [])])

    def lately(self, waited: Histogram, now: float) -> dict[str, float | None]:
        """Median and 95th percentile, in seconds: as near as the bounds of the histogram tell; None without calls."""
        self._seen.append((now, list(waited.counts)))
        while len(self._seen) > 2 and self._seen[1][0] <= now - MINUTE:
            self._seen.popleft()
        before = self._seen[0][1] or [0] * len(waited.counts)
        counts = [max(0, after - earlier) for after, earlier in zip(waited.counts, before, strict=True)]
        return {"wait_p50": _quantile(counts, waited.bounds, 0.5), "wait_p95": _quantile(counts, waited.bounds, 0.95)}


def _quantile(counts: list[int], bounds: tuple[float, ...], share: float) -> float | None:
    """Where `share` of the values are below, as if those between two bounds were spread evenly."""
    wanted, below = share * sum(counts), 0.0
    if not wanted:
        return None
    for count, low, high in zip(counts, (0.0, *bounds), (*bounds, bounds[-1]), strict=True):
        if count and below + count >= wanted:
            return round(low + (high - low) * (wanted - below) / count, 4)
        below += count
    return bounds[-1]


def set_role(role: str) -> None:
    """Say what this process is: "worker" or "gateway"; the last one counts. Without, it is a "script"."""
    _roles.append(role)


def facts_of(budget: Any, ledgers: Callable[[Any], Iterable[Ledger]]) -> dict[str, Any]:
    """The facts of `stores.shared_store.Member`, as JSON values.

    Args:
        budget: a shared one.
        ledgers: answers those of the clients that spend it.
    """
    from .. import __version__

    facts: Counter[str] = Counter()
    priorities: Counter[str] = Counter()
    pools: dict[str, Counter[str]] = {}
    spent: list[float] = []
    waited, now = Histogram(WAITS), 0.0
    for ledger in ledgers(budget):
        now = ledger.clock()
        with ledger.lock:
            for book in ledger.pools.values():
                requests, tokens = book.minute.sums(now, COLUMNS)[:2]
                facts.update(rpm=requests, tpm=tokens)
                if requests or tokens:
                    pools.setdefault(str(book.pool.shared_name), Counter()).update(rpm=requests, tpm=tokens)
                for kind, meter in book.meters.items():
                    priorities[str(int(kind[2]))] += meter.waiting
                    waited.join(meter.wait)
            facts.update(refused=ledger.refused, answered=ledger.answered_calls, failed=ledger.failed_calls)
            if ledger.spending.spent is not None:
                spent.append(ledger.spending.spent)
    return {
        "queued": budget.waiting(),
        "in_flight": budget.in_flight(),
        **{name: facts[name] for name in ("rpm", "tpm", "refused", "answered", "failed")},
        **_waits.setdefault(budget, _Waits()).lately(waited, now),
        "spent": sum(spent) if spent else None,
        "pools": {name: dict(pools[name]) for name in sorted(pools, key=lambda each: -pools[each]["rpm"])[:MOST_POOLS]},
        "priorities": {name: count for name, count in priorities.items() if count > 0},
        "version": __version__,
        "role": _roles[-1] if _roles else "script",
    }
