"""How long calls of one pool will take: the real scheduler and limiter in virtual time, on a sample when they are many.

Up to 10,000 calls are simulated one by one, and up to 60,000 when that takes less than five minutes: there the ramp of
the first burst matters. Otherwise a random sample of about 8,000 in their order is: each stands for k calls, and the
limits are divided by k, which changes no time. k is kept so small that every limit still holds fifty such calls. When
the sample is then still shorter than the run (a low limit and very many calls), the rest is a flow:

    end = simulated(n) + s * (flow(all) - flow(n))

`flow` fills and empties the same buckets without waits between single calls, and s is the ratio of the two over the
second half of the simulation: what share of the limit the real policy uses. Sums of tokens are those of all calls.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..core.limits import PERIODS
from ..core.mirrors import charges, correction
from ..core.request import Cost
from ..testing import Call, Run, simulate
from .load import Load, Terms

__all__ = ["CONCURRENCY", "INTERVAL", "Forecast", "forecast"]

EXACT = 10_000  # calls that are simulated one by one, in a third of a second
SAMPLE = 8_000
SHORT, SHORT_CALLS = 300.0, 60_000  # seconds, and calls: they are all simulated, from as many as are remembered
LEAST = 50.0  # sampled calls that a divided limit still holds; of concurrency, too
STEADY = 0.9, 1.5  # what the ratio of simulation to flow can be; beyond that it was measured on too little
SPARE = 1.1  # of the average in flight: answers do not come back evenly
MORE, TRIES = 1.5, 4  # the factor by which more in flight are tried, so often, until ...
AS_FAST = 1.01  # ... they take no longer than this
CONCURRENCY, INTERVAL = "concurrency", "min_interval"


@dataclass(frozen=True)
class Forecast:
    """What will happen.

    Attributes:
        seconds: from the first call to the last answer; math.inf when nothing is ever sent.
        alone: the same under each limit alone, by its name, "concurrency" among them.
        binds: the limit that decides; None when all calls fit into what the limits hold at once.
        concurrency: calls in flight that suffice for it.
    """

    seconds: float
    alone: Mapping[str, float]
    binds: str | None
    concurrency: int


def forecast(terms: Terms, load: Load) -> Forecast:
    """Foresee a run of all the calls, which are there from the start."""
    if not load.count:
        return Forecast(0.0, {}, None, 0)
    alone = {name: terms.latency + _alone(terms, load, name) for name in terms.names}
    if terms.limits.max_concurrency is not None:
        alone[CONCURRENCY] = terms.latency * math.ceil(load.count / terms.limits.max_concurrency)
    if terms.limits.min_interval is not None:
        alone[INTERVAL] = terms.latency + terms.limits.min_interval * (load.count - 1)
    model = _Scaled.of(terms, load)
    ended, seconds = model.seconds()
    if seconds < SHORT and len(model.calls) < load.count <= SHORT_CALLS:
        model = _Scaled.whole(terms, load)
        ended, seconds = model.seconds()
    seconds += _shortage(terms, load)
    slowest = max(alone, key=alone.__getitem__, default=None)
    binds = slowest if slowest is not None and alone[slowest] > 1.5 * terms.latency else None
    if binds is not None:
        alone[binds] = seconds
    return Forecast(seconds, alone, binds, _suffices(model, load.count, ended, seconds))


def _suffices(model: _Scaled, count: int, ended: float, seconds: float) -> int:
    """Calls in flight with which it takes no longer: the average, or more when the run is not even."""
    latency = model.terms.latency
    most = min(count, model.concurrency or count)
    enough = math.ceil(SPARE * count * latency / max(seconds, latency)) + 1
    whole = model.represents <= len(model.calls)  # otherwise what is simulated is only the beginning
    fastest = ended if whole else model.flow()
    for _ in range(TRIES):
        if enough >= most or model.narrowed(enough, simulated=whole) <= AS_FAST * fastest:
            break
        enough = math.ceil(MORE * enough)
    else:
        return most
    return min(enough, most)


def _alone(terms: Terms, load: Load, name: str) -> float:
    """Seconds until the last call goes if there were only this limit."""
    missing = load.count * load.mean(terms.rule(name)) - terms.remaining.get(name, terms.capacity(name))
    return max(0.0, missing) * PERIODS[name] / terms.limit(name)


def _shortage(terms: Terms, load: Load) -> float:
    """Seconds that the run takes longer since its limits are not full at its start, as they are in the simulation."""
    full = replace(terms, remaining={})
    now = max((_alone(terms, load, name) for name in terms.names), default=0.0)
    return now - max((_alone(full, load, name) for name in terms.names), default=0.0)


@dataclass(frozen=True)
class _Scaled:
    """A smaller system that takes the same time.

    Attributes:
        terms: with limits divided by k.
        k: calls that each of its calls stands for.
        calls: what is simulated.
        represents: its calls that would be the whole run; more than `calls` when k could not be large enough.
        sample: calls of the whole run, in order.
        concurrency: calls in flight that the real system allows; None for any.
    """

    terms: Terms
    k: float
    calls: Sequence[Cost]
    represents: float
    sample: Sequence[Cost]
    concurrency: int | None

    @classmethod
    def of(cls, terms: Terms, load: Load) -> _Scaled:
        if load.count <= EXACT:
            return cls.whole(terms, load)
        sample = _thinned(load.sample)
        k = max(1.0, min([load.count / len(sample), *_bounds(terms, load)]))
        represents = load.count / k
        calls = sample[: max(1, round(represents))]
        return cls(_divided(terms, load, sample, k), k, calls, represents, sample, terms.limits.max_concurrency)

    @classmethod
    def whole(cls, terms: Terms, load: Load) -> _Scaled:
        """Not smaller: every call, though some that are not remembered are taken to be like the one before."""
        sample, count = load.sample, load.count
        calls = sample if len(sample) == count else [sample[i * len(sample) // count] for i in range(count)]
        return cls(_divided(terms, load, calls, 1.0), 1.0, calls, count, calls, terms.limits.max_concurrency)

    def seconds(self) -> tuple[float, float]:
        """When the last answer is there, of the simulated calls and of all."""
        run = _simulated(self.terms, self.calls)
        ended = run.ended_at
        if self.represents <= len(self.calls):
            return ended, ended
        half = len(self.calls) // 2
        times = sorted(run.finished_at)
        flow = self._flow(self.calls, 1.0)
        rest, even = self.flow() - flow[-1], _slope(flow[half:])
        measured = _slope(times[half:]) / even if even > 0.0 else 1.0
        return ended, ended + max(0.0, rest) * min(max(measured, STEADY[0]), STEADY[1])

    def flow(self) -> float:
        """When the last call goes, as a flow."""
        return self._flow(self.sample, self.represents / len(self.sample))[-1]

    def narrowed(self, concurrency: int, *, simulated: bool) -> float:
        """The same with so many in flight in the real system: when the last answer is there, or of the flow."""
        limits = self.terms.limits.replace(max_concurrency=max(1, int(concurrency / self.k)))
        narrow = replace(self, terms=replace(self.terms, limits=limits))
        return _simulated(narrow.terms, narrow.calls).ended_at if simulated else narrow.flow()

    def _flow(self, calls: Sequence[Cost], weight: float) -> list[float]:
        """When each call has gone, each standing for `weight` calls, if they went as evenly as water."""
        terms, now, times = self.terms, 0.0, []
        buckets = [
            _Bucket(terms.rule(name), terms.capacity(name), terms.limit(name) / PERIODS[name]) for name in terms.names
        ]
        pace = 0.0  # seconds for each call that no bucket gives back
        if terms.limits.max_concurrency is not None:
            pace = terms.latency / terms.limits.max_concurrency
        pace = weight * max(pace, terms.limits.min_interval or 0.0)
        for cost in calls:
            now = max(bucket.ready(cost, weight, now + pace) for bucket in buckets) if buckets else now + pace
            for bucket in buckets:
                bucket.take(cost, weight, now)
            times.append(now)
        return times


def _slope(times: Sequence[float]) -> float:
    """Seconds from one to the next, by least squares: answers come in waves, and the first and last may be of any."""
    middle = (len(times) - 1) / 2.0
    weight = sum((index - middle) ** 2 for index in range(len(times)))
    return sum((index - middle) * moment for index, moment in enumerate(times)) / weight if weight else 0.0


class _Bucket:
    """A limit as a flow."""

    __slots__ = ("_capacity", "_level", "_rate", "_rule", "_stamp")

    def __init__(self, rule: str, capacity: float, rate: float) -> None:
        self._rule = rule
        self._capacity = self._level = capacity
        self._rate = rate
        self._stamp = 0.0

    def ready(self, cost: Cost, weight: float, now: float) -> float:
        """The moment, not before `now`, at which it holds enough."""
        missing = _charge(self._rule, cost) * weight - self._level
        return max(now, self._stamp + missing / self._rate)

    def take(self, cost: Cost, weight: float, now: float) -> None:
        amount = _charge(self._rule, cost) * weight  # can be more than it holds, as it stands for several calls
        self._level = min(max(self._capacity, amount), self._level + self._rate * (now - self._stamp)) - amount
        self._stamp = now


def _charge(rule: str, cost: Cost) -> float:
    """What a call is charged in the end."""
    return charges(rule, cost)[0] + correction(rule, cost, None)


def _mean(rule: str, sample: Sequence[Cost]) -> float:
    return sum(_charge(rule, cost) for cost in sample) / len(sample)


def _divided(terms: Terms, load: Load, sample: Sequence[Cost], k: float) -> Terms:
    """The same with limits divided by k, for calls of which each stands for k."""
    changes: dict[str, Any] = {}
    for name in terms.names:
        # The sample's tokens are a little more or fewer than they should be: so are the limit's.
        true, sampled = load.mean(terms.rule(name)), _mean(terms.rule(name), sample)
        changes[name] = terms.limit(name) / k * (sampled / true if true and sampled else 1.0)
    if terms.limits.max_concurrency is not None:
        changes["max_concurrency"] = max(1, round(terms.limits.max_concurrency / k))
    if terms.limits.burst is not None:
        changes["burst"] = max(1, round(terms.limits.burst / k))
    if terms.limits.min_interval is not None:
        changes["min_interval"] = terms.limits.min_interval * k
    return replace(terms, limits=replace(terms.limits, **changes))


def _thinned(sample: Sequence[Cost]) -> Sequence[Cost]:
    """About as many as are to be simulated, in order."""
    if len(sample) <= SAMPLE:
        return sample
    chosen = sorted(random.Random(0).sample(range(len(sample)), SAMPLE))
    return [sample[index] for index in chosen]


def _bounds(terms: Terms, load: Load) -> Iterable[float]:
    """By how much each limit can be divided, and still hold calls enough to behave as it does."""
    for name in terms.names:
        rule = terms.rule(name)
        need = max(LEAST * load.held(rule), 2.0 * load.most(rule))
        if need:
            yield terms.capacity(name) / need
    if terms.limits.max_concurrency is not None:
        yield terms.limits.max_concurrency / LEAST


def _simulated(terms: Terms, calls: Sequence[Cost]) -> Run:
    """A run of the calls as they are, by the core."""
    traffic = [
        Call(prompt=cost.input_tokens, output=cost.output_tokens, max_tokens=cost.reserved - cost.input_tokens)
        for cost in calls
    ]
    return simulate(
        terms.limits,
        traffic,
        charge=terms.charge,
        latency=terms.latency,
        network=(0.0, 0.0),
        smoothing=terms.smoothing,
    )
