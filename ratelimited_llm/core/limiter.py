"""When a call may go: every limit of one pool, reserved together or not at all.

The policy, and the numbers behind it, were found by simulation: mirror the provider's bucket (never a margin in
percent, never pacing at 60 / rpm); start a first burst on a ramp; read headers as intervals; take a refusal as an exact
measurement. What is not configured is learned: one call goes first, and its answer opens the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..exceptions import BudgetExceeded
from .calibrator import Calibrator
from .feedback import Feedback, Kind, Outcome, Reading
from .limits import MINUTE, PERIODS, RateLimits
from .meter import GUARD, Meter
from .mirrors import Mirrors, charges
from .ramp import DOUBLING_UNTOLD, Ramp
from .request import Cost, Usage

__all__ = ["Limiter", "Standing"]

MAX_WAIT = 120.0  # seconds: the longest wait that a bare Retry-After can impose (the openai SDK's own bound)
PATIENCE = 10.0  # seconds for the first answer of an unknown provider before more are sent
OUTAGE = 3  # failures in a row, sent one after the other, that are taken for an outage
OUTAGE_PAUSE = 0.5  # seconds of the first pause; doubles (the SDKs' own first back-off)
MAX_OUTAGE_PAUSE = 8.0  # seconds (the SDKs' own longest back-off): full rate again soon after the provider is back
HOLD_BACK_FROM = 30.0  # rpm below which nothing is held back for urgent calls: one slot would be too much of it
# Which dimension is charged how; the total-token ones follow the dialect's rule.
RULES = {"rpm": "requests", "rpd": "requests", "itpm": "input", "otpm": "output"}


@dataclass(frozen=True, slots=True)
class Standing:
    """One limit as it stands: what is left of it (units), of how much, and the seconds that it stands for."""

    dimension: str
    remaining: float
    limit: float
    period: float


@dataclass(slots=True)
class _Flight:
    cost: Cost
    sent_at: float


class Limiter:
    """The limits of one pool as they stand at the provider.

    Args:
        limits: what is configured; what is None is learned from answers when `learn`.
        charge: how tokens are charged: "reserve", "settle", "actual" (see `mirrors`); None to find out.
        windowed: whether the provider is known to count in fixed windows (others are found out).
        smoothing: seconds over which requests are judged, when the provider says less than a minute.
        learn: whether answers may teach limits that were not configured (False: the limits are the caller's own).
        ramp: whether a first burst starts on a ramp.

    Not thread-safe: one driver owns it. Every `now` is in seconds of the same monotonic clock.
    """

    def __init__(
        self,
        limits: RateLimits,
        *,
        charge: str | None = "reserve",
        windowed: bool = False,
        smoothing: float | None = None,
        learn: bool = True,
        ramp: bool = True,
    ) -> None:
        self.limits = limits
        self.charge = charge
        self.windowed = windowed
        self.smoothing = smoothing
        self.learn = learn
        self.paused_until = -math.inf
        self.refusals = 0
        self._meters: dict[str, Mirrors] | None = None  # made at the first call, which says what the time is
        self._interval: Meter | None = None
        self._ramp = Ramp() if ramp else None
        self._calibrator: Calibrator | None = None
        self._flights: dict[int, _Flight] = {}
        self._concurrency: float = limits.max_concurrency or math.inf
        self._answered = False
        self._first_sent = math.inf
        self._paused = False  # a pause was ordered, and nobody has gone since
        self._probing: int | None = None  # the one call that goes first after a pause
        self._refusal_time = GUARD  # how long a refusal takes to come back
        self._last_refusal = -math.inf  # when the newest one came back
        self._last_trouble = -math.inf
        self._troubles = 0  # failures in a row, those that left together counted once
        self._urgent_seen = self._patient_seen = False

    # -- reserve ----------------------------------------------------------------------------------------------------

    def reserve(self, key: int, cost: Cost, now: float, *, urgent: bool = False) -> float:
        """Take a call's cost out of every limit, or say how long to wait.

        Returns:
            0.0 when reserved under `key`; otherwise the seconds until it could fit, if nobody else takes the budget
            first. math.inf when only a call that ends can help.

        Raises:
            BudgetExceeded: it asks for more than a whole limit.
        """
        if key in self._flights:
            return 0.0
        meters = self._started(now)
        self._note_urgency(urgent)
        wait = max(self._gate(now), self._meter_wait(meters, cost, now, urgent))
        if wait > 0.0:
            return wait
        for mirrors in meters.values():
            mirrors.take(cost, now)
        if self._interval is not None:
            self._interval.take(1.0, 0.0, now)
        if self._ramp is not None:
            self._ramp.send(now)
        if self._calibrator is not None:
            self._calibrator.sent(now)
        if self._paused and self._probing is None:
            self._probing, self._paused = key, False
        self._first_sent = min(self._first_sent, now)
        self._flights[key] = _Flight(cost, now)
        return 0.0

    def _started(self, now: float) -> dict[str, Mirrors]:
        if self._meters is None:
            self._meters = {}
            for name in PERIODS:
                limit = getattr(self.limits, name)
                if limit is not None:
                    self._add(name, limit, now)
            if self.limits.min_interval is not None:
                self._interval = Meter(1.0, self.limits.min_interval, now, guarded=False)
            if self.learn and "rpm" not in self._meters:
                self._calibrator = Calibrator(MINUTE)
        return self._meters

    def _add(self, name: str, limit: float, now: float) -> Mirrors:
        assert self._meters is not None
        period, capacity = PERIODS[name], None
        if name == "rpm" and self.limits.burst is not None:
            capacity = float(self.limits.burst)
        elif name == "rpm" and self.smoothing is not None:
            capacity = max(1.0, limit * self.smoothing / period)
        rule = RULES.get(name, self.charge)
        guarded = not (name == "rpm" and self.limits.burst == 1)
        mirrors = Mirrors(rule, limit, period, now, capacity=capacity, guarded=guarded and self.learn)
        self._meters[name] = mirrors
        return mirrors

    def _gate(self, now: float) -> float:
        """Seconds that everybody has to wait, whatever the call costs."""
        if now < self.paused_until:
            return self.paused_until - now
        if len(self._flights) >= self._concurrency:
            return math.inf
        wait = self._first_answer_wait(now)
        if self._probing is not None:
            wait = max(wait, self._probe_wait(now))
        if self._interval is not None:
            wait = max(wait, self._interval.wait(1.0, 0.0, now))
        if self._ramp is not None:
            wait = max(wait, self._ramp.wait(now))
        if self._calibrator is not None and self._calibrator.meter is not None:
            wait = max(wait, self._calibrator.meter.wait(1.0, 0.0, now))
        return wait

    def _first_answer_wait(self, now: float) -> float:
        """Nothing is known: one call goes, and the others wait for what its answer tells, but not for ever."""
        if self._answered or not self.learn or not self._flights or self.limits.rpm or self.limits.tpm:
            return 0.0
        return max(0.0, self._first_sent + PATIENCE * len(self._flights) - now)

    def _probe_wait(self, now: float) -> float:
        """After a pause one goes first; the others follow when it is answered, or would have been refused by now."""
        flight = self._flights.get(self._probing) if self._probing is not None else None
        if flight is None:
            self._probing = None
            return 0.0
        return max(0.0, flight.sent_at + max(0.05, 3.0 * self._refusal_time) - now)

    def _meter_wait(self, meters: dict[str, Mirrors], cost: Cost, now: float, urgent: bool) -> float:
        wait = 0.0
        for name, mirrors in meters.items():
            amount, pledge = charges(mirrors.rule, cost)
            if amount > mirrors.meter.limit:
                raise BudgetExceeded(name, mirrors.meter.limit, amount)
            wait = max(wait, mirrors.wait(cost, now, 0.0 if urgent else self._held_back(name, amount + pledge)))
        return wait

    def _note_urgency(self, urgent: bool) -> None:
        if urgent:
            self._urgent_seen = True
        else:
            self._patient_seen = True

    def _held_back(self, name: str, worth: float) -> float:
        """One request's worth that patient calls leave for urgent ones, once a pool has seen both."""
        if not (self._urgent_seen and self._patient_seen) or name not in ("rpm", "tpm", "itpm", "otpm"):
            return 0.0
        rpm = self._meters["rpm"].meter.limit if self._meters and "rpm" in self._meters else math.inf
        return worth if rpm >= HOLD_BACK_FROM else 0.0

    # -- settle and observe -----------------------------------------------------------------------------------------

    def settle(self, key: int, usage: Usage | None, now: float, kind: Kind = Kind.OK) -> None:
        """A call has ended: free its place, and correct what it was charged.

        Args:
            key: what it was reserved under; unknown keys are ignored, so that settling twice does no harm.
            usage: the tokens it really used; None when nobody told.
            now: the present moment.
            kind: how it ended; a refusal gives its charge back, another failure keeps it.
        """
        flight = self._flights.pop(key, None)
        if flight is None:
            return
        for mirrors in (self._meters or {}).values():
            if kind is Kind.OK:
                mirrors.settle(flight.cost, usage, now)
            elif kind is Kind.LIMITED:
                mirrors.undo(flight.cost, now)
            else:
                mirrors.lapse(flight.cost)
        if kind is Kind.OK and self._concurrency < (self.limits.max_concurrency or math.inf):
            self._concurrency += 0.1  # a cap that was learned is tried again, slowly

    def observe(self, key: int, feedback: Feedback, now: float) -> None:
        """Learn from an answer, as soon as its headers are there and before `settle`."""
        flight = self._flights.get(key)
        if flight is None:
            return
        for reading in feedback.readings:
            self._read(reading, flight, now)
        kind = feedback.outcome.kind
        if kind is Kind.OK:
            self._troubles = 0
        if kind is Kind.LIMITED:
            self._refused(key, flight, feedback, now)
        elif kind in (Kind.OVERLOADED, Kind.DROPPED):
            self._troubled(flight, now)
        elif feedback.outcome.status is not None:
            if not self._answered and not feedback.readings and self._ramp is not None and not self._told():
                self._ramp.doubling = DOUBLING_UNTOLD
            self._answered = True
        if key == self._probing:
            self._probing = None

    def _told(self) -> bool:
        return bool(self._meters)

    def _troubled(self, flight: _Flight, now: float) -> None:
        """In an outage the pool pauses and one call goes first, so that the others do not spend their attempts on it."""
        if flight.sent_at <= self._last_trouble:
            return
        self._last_trouble = now
        self._troubles += 1
        if self._troubles >= OUTAGE and len(self._flights) > 1:
            pause = min(OUTAGE_PAUSE * 2.0 ** (self._troubles - OUTAGE), MAX_OUTAGE_PAUSE)
            self._pause(now + pause)

    def _read(self, reading: Reading, flight: _Flight, now: float) -> None:
        meters = self._started(now)
        name = reading.dimension
        if name not in PERIODS:
            return
        configured = getattr(self.limits, name)
        mirrors = meters.get(name)
        if reading.limit is not None:
            if mirrors is None and self.learn:
                mirrors = self._add(name, reading.limit, flight.sent_at)
                self._catch_up(mirrors)
                if name == "rpm":
                    self._calibrator = None
            elif mirrors is not None:
                mirrors.relimit(min(reading.limit, configured) if configured is not None else reading.limit)
        if mirrors is None or reading.remaining is None:
            return
        remaining = reading.remaining
        if configured is not None and reading.limit is not None and reading.limit > configured:
            return  # the caller wants to use less than there is: what is left of the whole says nothing about that
        mirrors.read(remaining, flight.cost, flight.sent_at, now, reading.resolution)

    def _catch_up(self, mirrors: Mirrors) -> None:
        """A meter that is made while calls are in flight has to know of them."""
        for flight in sorted(self._flights.values(), key=lambda flight: flight.sent_at):
            mirrors.take(flight.cost, flight.sent_at)

    # -- refusals ---------------------------------------------------------------------------------------------------

    def _refused(self, key: int, flight: _Flight, feedback: Feedback, now: float) -> None:
        """A refusal measures: take its wait, resynchronise the limit that it speaks of, and hold the pool back."""
        self.refusals += 1
        known = flight.sent_at <= self._last_refusal  # it left before the last one was back: the same news
        self._last_refusal = now
        self._refusal_time += 0.3 * (now - flight.sent_at - self._refusal_time)
        self._answered = True
        outcome = feedback.outcome
        if self._ramp is not None:
            self._ramp.over = True
        if outcome.dimension == "concurrency":
            self._concurrency = max(1.0, min(self._concurrency, len(self._flights) - 1.0))
            wait = min(outcome.retry_after or 0.0, MAX_WAIT)
        else:
            name = self._culprit(feedback, flight)
            if name is None:
                wait = self._untold(flight, outcome, now)
            else:
                wait = self._resynchronise(name, flight, outcome, known, now)
        if wait > 0.0:
            self._pause(now + wait)

    def _pause(self, until: float) -> None:
        self.paused_until = max(self.paused_until, until)
        self._paused, self._probing = True, None

    def _culprit(self, feedback: Feedback, flight: _Flight) -> str | None:
        """Which limit refused: the one it names, or the one that has too little left, or the only one there is."""
        meters = self._meters or {}
        outcome = feedback.outcome
        if outcome.dimension in PERIODS:
            if outcome.dimension not in meters and outcome.limit is not None and self.learn:
                self._catch_up(self._add(outcome.dimension, outcome.limit, flight.sent_at))
                if outcome.dimension == "rpm":
                    self._calibrator = None
            return outcome.dimension if outcome.dimension in meters else None
        for reading in feedback.readings:
            mirrors = meters.get(reading.dimension)
            if mirrors is not None and reading.remaining is not None:
                amount, pledge = charges(mirrors.rule, flight.cost)
                if reading.remaining < amount + pledge:
                    return reading.dimension
        if "rpm" in meters:
            return "rpm"
        return next(iter(meters)) if len(meters) == 1 and self._calibrator is None else None

    def _untold(self, flight: _Flight, outcome: Outcome, now: float) -> float:
        wait = None if outcome.retry_after is None else min(outcome.retry_after, MAX_WAIT)
        if self._calibrator is None:
            return wait or 1.0
        return self._calibrator.refused(flight.sent_at, wait, now)

    def _resynchronise(self, name: str, flight: _Flight, outcome: Outcome, known: bool, now: float) -> float:
        assert self._meters is not None
        mirrors = self._meters[name]
        meter = mirrors.meter
        amount = sum(charges(mirrors.rule, flight.cost))
        if outcome.limit is not None and outcome.limit > 0 and not getattr(self.limits, name):
            mirrors.relimit(outcome.limit)
        told = outcome.retry_after
        if outcome.used is not None and outcome.limit is not None:
            short = outcome.used + (outcome.requested or amount) - outcome.limit
            exact = max(0.0, short) / (outcome.limit / meter.period)
            told = min(told, exact + 1.0) if told is not None else exact  # the numbers bound a wait that lies
            self._set_level(mirrors, min(meter.level, max(0.0, outcome.limit - outcome.used)), now)
        elif told is not None:
            told = min(told, MAX_WAIT)
        if not known:
            self._learn_shape(mirrors, meter, flight, amount, told, now)
        if told is None:
            told = amount / meter.rate
        if not meter.windowed:
            self._set_level(mirrors, min(meter.level, amount - meter.rate * told), now)
        return told

    @staticmethod
    def _set_level(mirrors: Mirrors, level: float, now: float) -> None:
        for meter in mirrors.meters.values():
            meter.refill(now)
            meter.level = level

    def _learn_shape(
        self, mirrors: Mirrors, meter: Meter, flight: _Flight, amount: float, told: float | None, now: float
    ) -> None:
        """A refusal that the mirror did not see coming: a smaller bucket than thought, or a window."""
        since_full = flight.sent_at - meter.full_since
        admitted = meter.charged_between(meter.full_since, flight.sent_at) - meter.rate * since_full
        if since_full < 0.25 * meter.period and 0 < admitted < 0.9 * meter.capacity:
            if meter.level > amount:  # by what we knew, it fitted
                for each in mirrors.meters.values():
                    each.capacity = max(1.0, amount, admitted)
            return
        if meter.period > MINUTE or (told is None and not self.windowed):
            return
        if told is None:
            told = max(1.0, meter.full_since + meter.period - now)
        if told > 2.0 * amount / meter.rate + 1.5:
            for each in mirrors.meters.values():
                each.windowed, each.boundary, each.level = True, now + told, 0.0

    # -- looking at it ----------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Calls that are reserved and not settled."""
        return len(self._flights)

    def standings(self, now: float) -> Iterable[Standing]:
        """Every limit that is known, as it stands."""
        for name, mirrors in (self._meters or {}).items():
            meter = mirrors.meter
            meter.refill(now)
            yield Standing(name, max(0.0, meter.level - meter.pledged), meter.limit, meter.period)
