"""When a call may go: every limit of one pool, reserved together or not at all.

The policy, and the numbers behind it, were found by simulation: mirror the provider's bucket (never a margin in
percent, never pacing at 60 / rpm); start a first burst on a ramp; read headers as intervals; take a refusal as a
measurement. What is not configured is learned: one call goes first, and its answer opens the rest.

    meter, mirrors    what a limit holds, under which charging rule
    drift             what others spend of it
    among_others      limits that other processes share
    calibrator        what it gives, when nobody tells
    claims            how far what a provider says is believed
    pause, ramp       who may go at all, after trouble and into the unknown
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..exceptions import BudgetExceeded
from .among_others import AmongOthers
from .claims import MAX_WAIT, plausible, sane, told_wait, window_end
from .feedback import Feedback, Kind, Reading
from .limits import PERIODS, RateLimits
from .meter import Meter, unrounded
from .mirrors import CORRECTED, Mirrors, charges
from .pause import FIRST_PAUSE, Pause
from .ramp import Ramp
from .request import Cost, Usage

__all__ = ["Limiter", "Standing", "Survey"]

LEAST_WAIT = 1e-4  # seconds; a shorter one can vanish in the rounding of a clock, and the driver would spin
PATIENCE = 10.0  # seconds for the first answer of an unknown provider before more are sent
HOLD_BACK_FROM = 30.0  # rpm below which nothing is held back for urgent calls: one slot would be too much of it
NEARLY_EMPTY = 10.0  # seconds of refill: a limit that has less left is the likelier one to have refused
# Which dimension is charged how; the total-token ones follow the dialect's rule.
RULES = {"rpm": "requests", "rpd": "requests", "itpm": "input", "otpm": "output"}


@dataclass(frozen=True, slots=True)
class Standing:
    """One limit as it stands: what is left of it (units), of how much, and the seconds that it stands for."""

    dimension: str
    remaining: float
    limit: float
    period: float


@dataclass(frozen=True, slots=True)
class Survey:
    """All limits of a pool at one moment: each as it stands, what holds everybody (see `Limiter.holding`), and how many
    calls may be in flight at once."""

    standings: tuple[Standing, ...] = ()
    holding: tuple[str, float] | None = None
    concurrency: float = math.inf


@dataclass(slots=True)
class _Flight:
    cost: Cost
    sent_at: float
    held: dict[str, tuple[float, ...]] = field(default_factory=dict)  # what each of several mirrors held then
    undone: bool = False


class Limiter(AmongOthers):
    """The limits of one pool as they stand at the provider.

    Args:
        limits: what is configured; what is None is learned from answers when `learn`. Its share is taken of both.
        charge: how tokens are charged: "reserve", "settle", "actual" (see `mirrors`); None to find out.
        smoothing: seconds over which requests are judged, when the provider says less than a minute.
        learn: whether answers may teach limits that were not configured (False: the limits are the caller's own).
        ramp: whether a first burst starts on a ramp.

    Attributes:
        limits: what this process may use of what is configured.
        stated: what is configured for all.

    Not thread-safe: one driver owns it. Every `now` is in seconds of the same monotonic clock.
    """

    def __init__(
        self,
        limits: RateLimits,
        *,
        charge: str | None = "reserve",
        smoothing: float | None = None,
        learn: bool = True,
        ramp: bool = True,
    ) -> None:
        self.limits = limits.spendable()
        self._given = limits  # with the share, which what answers tell is still to be divided by
        self.stated = limits
        self._counts = True  # what is left; False: somebody else does, see `counted_elsewhere`
        self._wholes: dict[str, float] = {}  # limits as they were told, of which our part may be less
        self._heard: set[str] = set()  # of these, what our own answers told since `news`
        self._bounds: dict[str, float] = {}
        self.charge = charge
        self.smoothing = smoothing
        self.learn = learn
        self._meters: dict[str, Mirrors] | None = None  # made at the first call, which says what the time is
        self._interval: Meter | None = None
        self._ramp = Ramp.known() if ramp else None
        self._pause = Pause()
        self._flights: dict[int, _Flight] = {}
        self._concurrency: float = limits.max_concurrency or math.inf
        self._answered = False
        self._first_sent = math.inf
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
        wait = self.gate(cost, now, urgent=urgent)
        if wait == 0.0:
            self.take(key, cost, now)
        return wait

    def gate(self, cost: Cost, now: float, *, urgent: bool = False) -> float:
        """The first half of `reserve`: what that would answer, with nothing taken."""
        meters = self._started(now)
        if urgent:
            self._urgent_seen = True
        else:
            self._patient_seen = True
        wait = max(self._gate(now), self._meter_wait(meters, cost, now, urgent))
        return max(wait, LEAST_WAIT) if wait > 0.0 else 0.0

    def take(self, key: int, cost: Cost, now: float) -> None:
        """The second half: the call goes."""
        flight = self._flights[key] = _Flight(cost, now)
        for name, mirrors in self._started(now).items():
            held = mirrors.take(cost, now)
            if held is not None:
                flight.held[name] = held
        if self._interval is not None:
            self._interval.take(1.0, 0.0, now)
        if self._ramp is not None:
            self._ramp.send(now)
        self._pause.sent(key, now)
        self._first_sent = min(self._first_sent, now)

    def _started(self, now: float) -> dict[str, Mirrors]:
        if self._meters is None:
            self._meters = {}
            for name in PERIODS:
                limit = getattr(self.limits, name)
                if limit is not None or (name == "rpm" and self.learn):
                    self._add(name, limit, now)
            if self.limits.min_interval is not None:
                self._interval = Meter(1.0, self.limits.min_interval, now, guarded=False)
        return self._meters

    def _add(self, name: str, limit: float | None, now: float) -> Mirrors:
        """Make the mirrors of a limit; `limit` None is one that refusals will have to tell."""
        assert self._meters is not None
        period, capacity = PERIODS[name], None
        if name == "rpm" and self.limits.burst is not None:
            capacity = float(self.limits.burst)
        elif name == "rpm" and self.smoothing is not None and limit is not None:
            capacity = max(1.0, limit * self.smoothing / period)
        guarded = self.learn and not (name == "rpm" and self.limits.burst == 1)
        mirrors = Mirrors(self._rule(name), limit, period, now, capacity=capacity, guarded=guarded)
        self._meters[name] = mirrors
        if name == "rpm" and limit is not None and self._ramp is not None:
            self._ramp.limit(limit)
        return mirrors

    def _rule(self, name: str) -> str | None:
        rule = RULES.get(name, self.charge)
        # Where others spend too, no comparison of levels could tell which rule is the right one: the careful one is.
        return rule if rule is not None or self._counts else "reserve"

    def _gate(self, now: float) -> float:
        """Seconds that everybody has to wait, whatever the call costs."""
        if len(self._flights) + 1 > self._concurrency:
            return math.inf
        wait = self._pause.wait(now)
        if not self._answered:
            wait = max(wait, self._first_answer_wait(now))
        if self._interval is not None:
            wait = max(wait, self._interval.wait(1.0, 0.0, now))
        if self._ramp is not None:
            wait = max(wait, self._ramp.wait(now))
        return wait

    def _first_answer_wait(self, now: float) -> float:
        """Nothing is known: one call goes, and the others wait for what its answer tells, but not for ever."""
        if not self.learn or not self._flights or self.limits.rpm or self.limits.tpm:
            return 0.0
        return max(0.0, self._first_sent + PATIENCE * len(self._flights) - now)

    def _meter_wait(self, meters: dict[str, Mirrors], cost: Cost, now: float, urgent: bool) -> float:
        wait = 0.0
        for name, mirrors in meters.items():
            amount, pledge = charges(mirrors.rule, cost)
            meter = mirrors.meters[mirrors.rule]
            if amount > meter.limit:
                raise BudgetExceeded(name, meter.limit, amount)
            if not self._counts and not self._counting(meter):
                continue
            held_back = 0.0 if urgent or not self._urgent_seen else self.held_back(name, amount + pledge)
            own = meter.wait(amount, pledge, now, held_back)
            if own > wait:
                wait = own
        return wait

    def _counting(self, meter: Meter) -> bool:
        """Whether calls wait for what this meter has left: of what nobody has told, nobody else can count it."""
        return self._counts or not meter.told or self._given.part < 1.0

    def held_back(self, name: str, worth: float) -> float:
        """One request's worth that patient calls leave for urgent ones, once a pool has seen both."""
        if not self._urgent_seen or not self._patient_seen or name not in ("rpm", "tpm", "itpm", "otpm"):
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
        self._pause.ended(key)
        if kind is Kind.LIMITED:
            self._undo(flight, now)
            return
        for mirrors in (self._meters or {}).values():
            if kind is Kind.OK:
                mirrors.settle(flight.cost, usage, now)
            else:
                mirrors.lapse(flight.cost)
        if kind is Kind.OK and self._concurrency < (self.limits.max_concurrency or math.inf):
            self._concurrency += 0.02  # a cap that was learned is tried again, slowly

    def _undo(self, flight: _Flight, now: float) -> None:
        if not flight.undone:
            flight.undone = True
            for mirrors in (self._meters or {}).values():
                mirrors.undo(flight.cost, flight.sent_at, now)

    def observe(self, key: int, feedback: Feedback, now: float) -> None:
        """Learn from an answer, as soon as its headers are there and before `settle`."""
        flight = self._flights.get(key)
        if flight is None:
            return
        kind = feedback.outcome.kind
        for reading in feedback.readings:
            self._read(reading, flight, kind, now)
        if kind is Kind.LIMITED:
            self._refused(flight, feedback, now)
        elif kind in (Kind.OVERLOADED, Kind.DROPPED):
            self._pause.troubled(flight.sent_at, now, len(self._flights))
            self._pause.ended(key)
        elif feedback.outcome.status is not None:
            if not self._answered and self._ramp is not None and not self._told():
                self._ramp = Ramp.untold()
            self._answered = True
            self._pause.answered(key)

    def _told(self) -> bool:
        """Whether any limit is known."""
        return any(mirrors.meter.told for mirrors in (self._meters or {}).values())

    def _read(self, reading: Reading, flight: _Flight, kind: Kind, now: float) -> None:
        """Take in what an answer says of one limit; a provider may say anything, so what cannot be is ignored."""
        meters = self._started(now)
        name, limit = reading.dimension, reading.limit
        if name not in PERIODS:
            return
        if limit is not None and not (sane(limit) and (kind is not Kind.OK or plausible(name, limit, flight.cost))):
            return
        configured = getattr(self.limits, name)
        mirrors = meters.get(name)
        if limit is not None:
            limit = self._heard_of(name, limit)
            if self.learn and (mirrors is None or not mirrors.meter.told):
                mirrors = self._tell(name, limit, flight.sent_at)
            elif mirrors is not None:
                mirrors.relimit(min(limit, configured) if configured is not None else limit)
        if mirrors is None or not mirrors.meter.told or reading.remaining is None:
            return
        if self._given.part < 1.0 or (configured is not None and limit is not None and limit > configured):
            return  # the caller wants to use less than there is: what is left of the whole says nothing about that
        if not 0.0 <= reading.remaining < math.inf:
            return
        if not self._counts:
            if mirrors.rule not in CORRECTED:  # what others were given back since the snapshot, nobody here knows
                self._bound(name, mirrors.ceiling(reading, flight.cost, flight.sent_at, now))
        else:
            mirrors.read(reading, flight.cost, flight.sent_at, flight.held.get(name), now)

    def _heard_of(self, name: str, limit: float) -> float:
        """A whole limit was told; what this process may use of it."""
        if self._wholes.get(name) != limit:
            self._wholes[name] = limit
            self._heard.add(name)
        return self._given.part_of(name, limit)

    def _tell(self, name: str, limit: float | None, since: float) -> Mirrors:
        """A limit that nobody had told is known now: mirror it, with all that is on its way."""
        mirrors = self._add(name, limit, since)
        for flight in sorted(self._flights.values(), key=lambda flight: flight.sent_at):
            mirrors.take(flight.cost, flight.sent_at)
        return mirrors

    # -- refusals ---------------------------------------------------------------------------------------------------

    def _refused(self, flight: _Flight, feedback: Feedback, now: float) -> None:
        """A refusal measures: take its wait, resynchronise the limit that it speaks of, and hold the pool back."""
        fresh = self._pause.refused(flight.sent_at, now)
        self._answered = True
        outcome = feedback.outcome
        if outcome.dimension == "concurrency":
            self._concurrency = max(1.0, min(self._concurrency, len(self._flights) - 1.0))
            self._undo(flight, now)
            wait = max(min(outcome.retry_after or 0.0, MAX_WAIT), self._pause.backoff())
        else:
            name = self._culprit(feedback, flight)
            self._undo(flight, now)
            wait = self._measured(name, flight, feedback, fresh, now)
        self._pause.order(now + wait)

    def _culprit(self, feedback: Feedback, flight: _Flight) -> str | None:
        """Which limit refused: the one it names, or the one that has too little left, or the likeliest."""
        meters = self._meters or {}
        outcome = feedback.outcome
        if outcome.dimension in PERIODS:
            name = outcome.dimension
            known = name in meters and meters[name].meter.told
            if not known and sane(outcome.limit) and self.learn:
                self._tell(name, self._heard_of(name, outcome.limit), flight.sent_at)
            return name if name in meters else None
        for reading in feedback.readings:
            mirrors = meters.get(reading.dimension)
            if mirrors is None or reading.remaining is None or not mirrors.meter.whole:
                continue
            if reading.remaining < mirrors.asked(flight.cost):
                return reading.dimension
        return min(meters, key=lambda name: self._left(meters[name].meter), default=None)

    @staticmethod
    def _left(meter: Meter) -> float:
        """Seconds of refill that are left, to tell which limit is the likeliest to have refused."""
        return NEARLY_EMPTY if not meter.rate else max(0.0, meter.level) / meter.rate

    def _measured(self, name: str | None, flight: _Flight, feedback: Feedback, fresh: bool, now: float) -> float:
        """Let the limit that refused learn from it; answer the seconds that the pool has to wait."""
        outcome = feedback.outcome
        if name is None:
            return max(min(outcome.retry_after or FIRST_PAUSE, MAX_WAIT), self._pause.backoff())
        assert self._meters is not None
        mirrors = self._meters[name]
        if sane(outcome.limit) and not getattr(self.limits, name) and self.learn:
            mirrors.relimit(self._heard_of(name, outcome.limit))
        told = told_wait(outcome, PERIODS[name], mirrors.asked(flight.cost))
        hint = told if told is not None else window_end(feedback.readings, name, now - flight.sent_at)
        meter = mirrors.meter
        if not self._counting(meter):
            return self._bounded(name, mirrors.asked(flight.cost), told, meter, now)
        mirrors.refused(flight.cost, flight.sent_at, hint, now, fresh=fresh, held=flight.held.get(name))
        if meter.searching:
            self._ramp = Ramp.search(meter.before_refusal)
        elif self._ramp is not None:
            self._ramp.over = True
        wait = told if told is not None else self._own_wait(meter, mirrors.asked(flight.cost), now)
        wait = max(wait, self._pause.backoff())
        mirrors.resynchronise(flight.cost, wait, flight.sent_at, now)
        return wait

    def _bounded(self, name: str, amount: float, told: float | None, meter: Meter, now: float) -> float:
        """A limit that others spend too has refused, so it says nothing about our count but what there is of it."""
        wait = max(told if told is not None else self._own_wait(meter, amount, now), self._pause.backoff())
        self._bound(name, amount - meter.limit / meter.period * unrounded(wait, amount * meter.period / meter.limit))
        return wait

    def _bound(self, name: str, amount: float | None) -> None:
        if amount is not None:
            self._bounds[name] = min(amount, self._bounds.get(name, math.inf))

    @staticmethod
    def _own_wait(meter: Meter, amount: float, now: float) -> float:
        """Nobody said how long to wait: until the window ends, or for one call's worth of refill."""
        if meter.windowed:
            return max(meter.boundary - now, 0.0)
        return min(amount / meter.rate, MAX_WAIT) if meter.rate else FIRST_PAUSE

    # -- looking at it ----------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Calls that are reserved and not settled."""
        return len(self._flights)

    @property
    def refusals(self) -> int:
        """Calls that were refused by a limit so far."""
        return self._pause.refusals

    @property
    def paused_until(self) -> float:
        """The moment before which nobody goes."""
        return self._pause.until

    def holding(self, now: float) -> tuple[str, float] | None:
        """What holds back every call, whatever it costs, and the seconds that it still will; None when nothing does.

        It is "pause" (a refusal's), "first answer" (of a provider whose limits are unknown) or "concurrency" (math.inf:
        until a call ends).
        """
        wait = self._pause.wait(now)
        if wait > 0.0:
            return "pause", wait
        wait = 0.0 if self._answered else self._first_answer_wait(now)
        if wait > 0.0:
            return "first answer", wait
        return ("concurrency", math.inf) if len(self._flights) + 1 > self._concurrency else None

    def survey(self, now: float) -> Survey:
        """Everything there is to say about these limits at this moment."""
        return Survey(tuple(self.standings(now)), self.holding(now), self._concurrency)

    def standings(self, now: float) -> Iterable[Standing]:
        """Every limit that is known, as it stands."""
        for name, mirrors in (self._meters or {}).items():
            meter = mirrors.meter
            meter.refill(now)
            if meter.told:
                yield Standing(name, max(0.0, meter.level - meter.pledged), meter.limit, meter.period)
