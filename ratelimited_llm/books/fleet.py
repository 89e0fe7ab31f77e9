"""Everybody who shares a budget, as values: the pools of limits, the processes, and what operators have ordered.

What other processes report is untrusted: whatever is no number counts as not known, and texts are kept as they are,
so whoever shows them has to escape them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from ..core.booking import Shared
    from ..stores.shared_store import Control, Member, PoolFacts, SharedStore

__all__ = ["Fleet", "FleetLimit", "FleetPool", "FleetWorker", "fleet_of"]

MINUTE = 60.0
LITTLE_LEFT = 0.1  # of a limit: with less, and with calls waiting, it is what they wait for
RATES = ("rpm", "tpm", "itpm", "otpm")  # dimensions that processes may report a rate of
ROLES = frozenset({"script", "worker", "gateway"})


@dataclass(frozen=True, slots=True)
class FleetLimit:
    """One limit of a pool.

    Attributes:
        dimension: "rpm", "tpm", "rpd", "tpd", "itpm" or "otpm".
        limit: units per period.
        left: units that could be spent at this moment; below zero when calls are booked ahead.
        period: seconds that it stands for.
        rate: units that all processes together spent in the last 60 s, as far as they report it; None when they do
            not tell it for this pool.
        binds: whether it is probably what the waiting calls wait for.
        source: whose number it is: "stated" by a user, "learned" from the provider, "lowered" by an operator.
        learned: seconds since an answer of the provider taught it; None when none did.
    """

    dimension: str
    limit: float
    left: float
    period: float
    rate: float | None = None
    binds: bool = False
    source: str = ""
    learned: float | None = None

    @property
    def used(self) -> float:
        """The rate; where that is not known, what is missing from the full limit."""
        return self.rate if self.rate is not None else min(self.limit, max(0.0, self.limit - self.left))


@dataclass(frozen=True, slots=True)
class FleetPool:
    """A pool of limits.

    Attributes:
        name: what it is called in the store.
        label: the same for people: "gpt-4.1-mini @ api.openai.com"; with the begin of the key's digest where it takes
            that to tell it from others.
        paused: seconds that a refusal still holds it back.
        limits: what is known of them.
    """

    name: str
    label: str
    paused: float
    limits: tuple[FleetLimit, ...]


@dataclass(frozen=True, slots=True)
class FleetWorker:
    """A process that shares the budget; None is "it did not say".

    Attributes:
        name, role: what it calls itself, and "script", "worker", "gateway" or "".
        seen: seconds since it reported last.
        in_flight, queued: calls.
        rpm, tpm: requests sent and tokens spent in its last 60 s.
        wait_p50, wait_p95: seconds in the queue of its latest calls.
        refused, answered, failed: calls since it began; refused counts 429s.
        spent: US dollars since it began.
        priorities: waiting calls by priority.
    """

    name: str
    role: str
    seen: float
    in_flight: float | None = None
    queued: float | None = None
    rpm: float | None = None
    tpm: float | None = None
    wait_p50: float | None = None
    wait_p95: float | None = None
    refused: float | None = None
    answered: float | None = None
    failed: float | None = None
    spent: float | None = None
    priorities: Mapping[str, float] = field(default_factory=dict)


SUMMED = ("in_flight", "queued", "rpm", "tpm", "refused", "answered", "failed", "spent")


@dataclass(frozen=True, slots=True)
class Fleet:
    """All of it at one moment.

    Attributes:
        paused: whether an operator has paused everybody.
        lowered: units per period by dimension that an operator lowered the limits to; empty for none.
        pools, workers: by name.
        totals: sums over the workers, by the name of the fact; what no worker told is missing.
    """

    paused: bool
    lowered: Mapping[str, float]
    pools: tuple[FleetPool, ...]
    workers: tuple[FleetWorker, ...]
    totals: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes; every number in it is finite."""
        found: dict[str, Any] = asdict(self)
        for pool, made in zip(self.pools, found["pools"], strict=True):
            for limit, written in zip(pool.limits, made["limits"], strict=True):
                written["used"] = limit.used
        return found


def fleet_of(store: SharedStore) -> Fleet:
    """Ask a store for everything: three round trips.

    Raises:
        SharedStoreLost: it cannot be reached.
    """
    return fleet(store.pools(), store.members(), store.control())


def fleet(pools: Sequence[PoolFacts], members: Sequence[Member], control: Control) -> Fleet:
    """Put together what a store has told."""
    workers = tuple(sorted((_worker(each) for each in members), key=lambda worker: worker.name))
    totals: dict[str, float] = {}
    for worker in workers:
        for name in SUMMED:
            value = getattr(worker, name)
            if value is not None:
                totals[name] = totals.get(name, 0.0) + value
    lowered = {str(name): value for name, given in control.limits.items() if (value := number(given)) is not None}
    rates = _rates(pools, members, totals)
    waiting = totals.get("queued", 0.0) > 0
    labels = _labels([str(each.name) for each in pools])
    found = [_pool(each, labels[str(each.name)], rates.get(each.name, {}), waiting) for each in pools]
    found.sort(key=lambda pool: (pool.label, pool.name))
    return Fleet(bool(control.paused), lowered, tuple(found), workers, totals)


def number(value: Any) -> float | None:
    """The value if it is a finite number from 0 on, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) and found >= 0 else None


def _worker(member: Member) -> FleetWorker:
    facts = member.facts if isinstance(member.facts, Mapping) else {}
    role, priorities = facts.get("role"), facts.get("priorities")
    known = {name: number(facts.get(name)) for name in (*SUMMED, "wait_p50", "wait_p95")}
    counted = priorities.items() if isinstance(priorities, Mapping) else ()
    return FleetWorker(
        name=str(member.name),
        role=role if isinstance(role, str) and role in ROLES else "",
        seen=number(member.seen) or 0.0,
        priorities={str(name): found for name, count in counted if (found := number(count)) is not None},
        **known,
    )


def _rates(
    pools: Sequence[PoolFacts], members: Sequence[Member], totals: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """What was spent in the last minute by pool and dimension: as told by pool, or of the only pool that there is."""
    found: dict[str, dict[str, float]] = {}
    for member in members:
        told = member.facts.get("pools") if isinstance(member.facts, Mapping) else None
        for name, rates in told.items() if isinstance(told, Mapping) else ():
            for dimension in RATES if isinstance(rates, Mapping) else ():
                rate = number(rates.get(dimension))
                if rate is not None:
                    sums = found.setdefault(str(name), {})
                    sums[dimension] = sums.get(dimension, 0.0) + rate
    if not found and len(pools) == 1:
        found[pools[0].name] = {name: totals[name] for name in ("rpm", "tpm") if name in totals}
    return found


def _labels(names: Sequence[str]) -> dict[str, str]:
    """What people call the pools of these names, which have a base URL, the digest of a key, and a model family."""
    short: dict[str, str] = {}
    for name in names:
        parts = name.split("|", 2)
        host = _host(parts[0])
        short[name] = (f"{parts[2]} @ {host}" if parts[2] else host) if len(parts) == 3 and host else name
    seen = Counter(short.values())
    return {
        name: label if seen[label] == 1 or label == name else f"{label} (key {name.split('|')[1][:6]})"
        for name, label in short.items()
    }


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:  # a bracket that does not close
        return ""


def _pool(pool: PoolFacts, label: str, rates: Mapping[str, float], waiting: bool) -> FleetPool:
    limits = [_limit(each, rates) for each in pool.limits if (number(each.limit) or 0.0) > 0]
    tightest = min(limits, key=lambda limit: limit.left / limit.limit, default=None)
    if waiting and tightest is not None and tightest.left <= LITTLE_LEFT * tightest.limit:
        limits[limits.index(tightest)] = replace(tightest, binds=True)
    return FleetPool(str(pool.name), label, number(pool.pause) or 0.0, tuple(limits))


def _limit(shared: Shared, rates: Mapping[str, float]) -> FleetLimit:
    limit, period = number(shared.limit) or 0.0, number(shared.period) or MINUTE
    level = shared.level if isinstance(shared.level, (int, float)) and math.isfinite(shared.level) else 0.0
    return FleetLimit(
        str(shared.dimension), limit, float(level), period, rates.get(str(shared.dimension)),
        source=shared.source, learned=shared.learned,
    )  # fmt: skip
