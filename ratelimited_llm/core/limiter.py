"""When a call may go: every limit of one pool, reserved together or not at all.

    reserve   the wait is the longest of what holds everybody (concurrency, pause, first answer, interval, ramp)
              and what each limit makes this call wait; 0.0 takes its cost out of all of them
    observe   what an answer's headers tell: limits, what is left, or that it was refused
    settle    what the call turned out to cost

The policy, and the numbers behind it, were found by simulation: mirror the provider's bucket (never a margin in
percent, never pacing at 60 / rpm); start a first burst on a ramp; read headers as intervals; take a refusal as a
measurement. What is not configured is learned: one call goes first, and its answer opens the rest.

    mirrored_limits   which limits there are, and what part of them is ours
    mirrors           one limit under the provider's charging rule, or under three until its headers tell which
    meter, bucket     one limit as it stands: what answers tell of it; its arithmetic
    drift             what others spend of it
    calibrator        what it gives, when nobody tells
    claims, refusals  how far what a provider says is believed; which limit refused, and for how long
    pause, ramp       who may go at all, after trouble and into the unknown
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..exceptions import BudgetExceeded
from .bucket import Bucket
from .claims import MAX_WAIT, sane, unrounded
from .feedback import Feedback, Kind
from .limits import PERIODS, RateLimits
from .meter import Meter
from .mirrored_limits import Flight, MirroredLimits
from .mirrors import Mirrors, charges
from .pause import FIRST_PAUSE, Pause
from .ramp import Ramp
from .refusals import emptiest, own_wait, told_wait, window_end
from .request import Cost, Usage

__all__ = ["Limiter", "Standing", "Survey"]

LEAST_WAIT = 1e-4  # seconds; a shorter one can vanish in the rounding of a clock, and the driver would spin
PATIENCE = 10.0  # seconds for the first answer of an unknown provider before more are sent
HOLD_BACK_FROM = 30.0  # rpm below which nothing is held back for urgent calls: one slot would be too much of it
REOPEN = 0.02  # calls in flight that each answer adds to a cap that refusals taught: it is tried again, slowly


@dataclass(frozen=True, slots=True)
class Standing:
    """One limit as it stands: what is left of it (units), of how much, and the seconds that it stands for.

    Attributes:
        source: whose number `limit` is: "stated" by the user, "learned" from the provider's answers by this process,
            or "shared": told by others, or by an earlier run.
        learned_at: the moment at which an answer told it last that taught something; None when none did.
    """

    dimension: str
    remaining: float
    limit: float
    period: float
    source: str = "learned"
    learned_at: float | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """All limits of a pool at one moment.

    Attributes:
        standings: each that is known, as it stands.
        holding: what holds everybody, and for how many seconds; see `Limiter.holding`.
        concurrency: how many calls may be in flight at once; math.inf for no cap.
    """

    standings: tuple[Standing, ...] = ()
    holding: tuple[str, float] | None = None
    concurrency: float = math.inf


class Limiter(MirroredLimits):
    """The limits of one pool as they stand at the provider.

    Args:
        limits, charge, smoothing, learn: as for `MirroredLimits`.
        ramp: whether a first burst starts on a ramp.

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
        super().__init__(limits, charge=charge, smoothing=smoothing, learn=learn)
        spacing = limits.min_interval  # our own limit, so nothing has to be guarded against, and nobody teaches it
        self._interval = Bucket(1.0, spacing, -math.inf, guarded=False) if spacing is not None else None
        self._concurrency: float = limits.max_concurrency or math.inf
        self._ramp = Ramp.known() if ramp else None
        self._pause = Pause()
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
        mirrors_by_name = self._started(now)
        if urgent:
            self._urgent_seen = True
        else:
            self._patient_seen = True
        wait = max(self._everybody_waits(now), self._limits_wait(mirrors_by_name, cost, now, urgent))
        return max(wait, LEAST_WAIT) if wait > 0.0 else 0.0

    def take(self, key: int, cost: Cost, now: float) -> None:
        """The second half of `reserve`: charge a call that leaves now, under `key`."""
        flight = self._flights[key] = Flight(cost, now)
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

    def _mirror(self, name: str, limit: float | None, now: float) -> Mirrors:
        if name == "rpm" and limit is not None and self._ramp is not None:
            self._ramp.limit(limit)
        return super()._mirror(name, limit, now)

    def _everybody_waits(self, now: float) -> float:
        """Seconds that everybody has to wait, whatever the call costs; math.inf until a call ends."""
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

    def _limits_wait(self, mirrors_by_name: dict[str, Mirrors], cost: Cost, now: float, urgent: bool) -> float:
        """Seconds until every limit has what the call costs."""
        wait = 0.0
        for name, mirrors in mirrors_by_name.items():
            amount, pledge = charges(mirrors.rule, cost)
            meter = mirrors.meters[mirrors.rule]
            if amount > meter.limit:
                if not self._doubted(name, amount, now):
                    raise BudgetExceeded(name, meter.limit, amount)
                amount = meter.limit  # it goes when all of it is there, and its answer tells the limit anew
            if not self._counts and not self._counted_here(meter):
                continue
            held_back = 0.0 if urgent or not self._urgent_seen else self.held_back(name, amount + pledge)
            own = meter.wait(amount, pledge, now, held_back)
            if own > wait:
                wait = own
        return wait

    def _counted_here(self, meter: Meter) -> bool:
        """Whether calls wait for what this meter has left: of what nobody has told, nobody else can count it."""
        return self._counts or not meter.told or self._given.part < 1.0

    def held_back(self, name: str, worth: float) -> float:
        """One request's worth that patient calls leave for urgent ones, once a pool has seen both."""
        if not self._urgent_seen or not self._patient_seen or name not in ("rpm", "tpm", "itpm", "otpm"):
            return 0.0
        rpm = self._mirrors["rpm"].meter.limit if self._mirrors and "rpm" in self._mirrors else math.inf
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
        for mirrors in (self._mirrors or {}).values():
            if kind is Kind.OK:
                mirrors.settle(flight.cost, usage, now)
            else:
                mirrors.lapse(flight.cost)
        if kind is Kind.OK and self._concurrency < (self.limits.max_concurrency or math.inf):
            self._concurrency += REOPEN

    def _undo(self, flight: Flight, now: float) -> None:
        if not flight.undone:
            flight.undone = True
            for mirrors in (self._mirrors or {}).values():
                mirrors.undo(flight.cost, flight.sent_at, now)

    def observe(self, key: int, feedback: Feedback, now: float) -> None:
        """Learn from an answer, as soon as its headers are there and before `settle`; unknown keys are ignored."""
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
            if not self._answered and self._ramp is not None and not self._any_told:
                self._ramp = Ramp.untold()
            self._answered = True
            self._pause.answered(key)

    # -- refusals ---------------------------------------------------------------------------------------------------

    def _refused(self, flight: Flight, feedback: Feedback, now: float) -> None:
        """A refusal measures: take its wait, resynchronise the limit that it speaks of, and hold the pool back."""
        fresh = self._pause.refused(flight.sent_at, now)
        self._answered = True
        outcome = feedback.outcome
        if outcome.dimension == "concurrency":
            self._concurrency = max(1.0, min(self._concurrency, len(self._flights) - 1.0))
            self._undo(flight, now)
            wait = max(min(outcome.retry_after or 0.0, MAX_WAIT), self._pause.backoff())
        else:
            name = self._culprit(feedback, flight, now)
            self._undo(flight, now)
            if name is None:
                wait = max(min(outcome.retry_after or FIRST_PAUSE, MAX_WAIT), self._pause.backoff())
            else:
                wait = self._measured(name, flight, feedback, fresh, now)
        self._pause.order(now + wait)

    def _culprit(self, feedback: Feedback, flight: Flight, now: float) -> str | None:
        """Which limit refused: the one that is named (which is news, perhaps), or the one that looks emptiest."""
        mirrors_by_name = self._mirrors or {}
        outcome = feedback.outcome
        if outcome.dimension not in PERIODS:
            return emptiest(mirrors_by_name, feedback.readings, flight.cost)
        name = outcome.dimension
        known = name in mirrors_by_name and mirrors_by_name[name].meter.told
        if not known and sane(outcome.limit) and self.learn:
            self._mirror_in_flight(name, self._heard_of(name, outcome.limit, now), flight.sent_at)
        return name if name in mirrors_by_name else None

    def _measured(self, name: str, flight: Flight, feedback: Feedback, fresh: bool, now: float) -> float:
        """Let the limit that refused learn from it; answer the seconds that the pool has to wait."""
        assert self._mirrors is not None
        mirrors, outcome = self._mirrors[name], feedback.outcome
        if sane(outcome.limit) and not getattr(self.limits, name) and self.learn:
            mirrors.relimit(self._heard_of(name, outcome.limit, now))
        amount = mirrors.asked(flight.cost)
        told = told_wait(outcome, PERIODS[name], amount)
        meter = mirrors.meter
        if not self._counted_here(meter):
            return self._bounded(name, amount, told, meter, now)
        hint = told if told is not None else window_end(feedback.readings, name, now - flight.sent_at)
        mirrors.refused(flight.cost, flight.sent_at, hint, now, fresh=fresh, held=flight.held.get(name))
        if meter.searching:
            self._ramp = Ramp.search(meter.before_refusal)
        elif self._ramp is not None:
            self._ramp.over = True
        wait = told if told is not None else own_wait(meter, mirrors.asked(flight.cost), now)
        wait = max(wait, self._pause.backoff())
        mirrors.resynchronise(flight.cost, wait, flight.sent_at, now)
        return wait

    def _bounded(self, name: str, amount: float, told: float | None, meter: Meter, now: float) -> float:
        """A limit that others spend too has refused, so it says nothing about our count but what there is of it."""
        wait = max(told if told is not None else own_wait(meter, amount, now), self._pause.backoff())
        self._bound(name, amount - meter.nominal * unrounded(wait, amount / meter.nominal))
        return wait

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
        for name, mirrors in (self._mirrors or {}).items():
            meter = mirrors.meter
            meter.refill(now)
            if meter.told:
                left = max(0.0, meter.level - meter.pledged)
                yield Standing(name, left, meter.limit, meter.period, *self.source(name))
