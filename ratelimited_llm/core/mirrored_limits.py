"""Which limits a pool has, and the mirrors of them: what is configured, what answers told, what part of it is ours.

A *whole* limit is what the provider gives to all processes on the key. *Ours* is what this process may use of it: all,
or the share that was configured. Where several processes spend the same limits, who sees them all may do the counting
(see `shared_pool`): then mirrors hold no call back, and what answers say of what is left is only passed on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..exceptions import BudgetExceeded
from .claims import plausible, sane
from .feedback import Kind, Reading
from .limits import PERIODS, RateLimits
from .mirrors import CORRECTED, Mirrors, charges, correction
from .request import Cost, Usage

__all__ = ["Flight", "MirroredLimits"]

# Which dimension is charged how; the total-token ones follow the dialect's rule.
RULES = {"rpm": "requests", "rpd": "requests", "itpm": "input", "otpm": "output"}

DOUBT = 60.0  # seconds after which a limit that nobody has told again may have been raised, or never have been true


@dataclass(slots=True)
class Flight:
    """A call that was reserved and is not settled.

    Attributes:
        cost: what it was to cost.
        sent_at: when it left.
        held: by dimension, what each of several mirrors held when it left.
        undone: whether its charge was taken back, since it was refused.
    """

    cost: Cost
    sent_at: float
    held: dict[str, tuple[float, ...]] = field(default_factory=dict)
    undone: bool = False


class MirroredLimits:
    """The limits of one pool by dimension, and what calls in flight were charged.

    Args:
        limits: what is configured; what is None is learned from answers when `learn`. Its share is taken of both.
        charge: how tokens are charged: "reserve", "settle", "actual" (see `mirrors`); None to find out.
        smoothing: seconds over which requests are judged, when the provider says less than a minute.
        learn: whether answers may teach limits that were not configured (False: the limits are the caller's own).

    Attributes:
        limits: what this process may use of what is configured.
        stated: what is configured for all.

    Not thread-safe: one driver owns it. Every `now` is in seconds of the same monotonic clock.
    """

    def __init__(self, limits: RateLimits, *, charge: str | None, smoothing: float | None, learn: bool) -> None:
        self.limits = limits.spendable()
        self.stated = limits
        self.charge = charge
        self.smoothing = smoothing
        self.learn = learn
        self._given = limits  # with the share, which what answers tell is still to be divided by
        self._counts = True  # what is left; False: somebody else does, see `counted_elsewhere`
        self._wholes: dict[str, float] = {}  # whole limits as they were told
        self._learned_at: dict[str, float] = {}  # when our own answers told them first, or otherwise than before
        self._told_at: dict[str, float] = {}  # when our own answers told them last
        self._heard: set[str] = set()  # of these, what our own answers told since `news`
        self._bounds: dict[str, float] = {}  # the most that can be left, as our own answers told since `news`
        self._mirrors: dict[str, Mirrors] | None = None  # made at the first call, which says what the time is
        self._flights: dict[int, Flight] = {}
        self._answered = False  # whether the provider, or another process, has told what there is to know

    # -- which there are --------------------------------------------------------------------------------------------

    def _started(self, now: float) -> dict[str, Mirrors]:
        """The mirrors, by dimension; the first call makes them."""
        if self._mirrors is None:
            self._mirrors = {}
            for name in PERIODS:
                limit = getattr(self.limits, name)
                if limit is not None or (name == "rpm" and self.learn):
                    self._mirror(name, limit, now)
        return self._mirrors

    def _mirror(self, name: str, limit: float | None, now: float) -> Mirrors:
        """Make the mirrors of a limit; `limit` None is one that refusals will have to tell."""
        assert self._mirrors is not None
        period, capacity = PERIODS[name], None
        if name == "rpm" and self.limits.burst is not None:
            capacity = float(self.limits.burst)
        elif name == "rpm" and self.smoothing is not None and limit is not None:
            capacity = max(1.0, limit * self.smoothing / period)
        guarded = self.learn and not (name == "rpm" and self.limits.burst == 1)
        mirrors = Mirrors(self._rule(name), limit, period, now, capacity=capacity, guarded=guarded)
        self._mirrors[name] = mirrors
        return mirrors

    def _mirror_in_flight(self, name: str, limit: float | None, since: float) -> Mirrors:
        """Make the mirrors of a limit that is known only now, and charge them with all that is on its way."""
        mirrors = self._mirror(name, limit, since)
        for flight in sorted(self._flights.values(), key=lambda flight: flight.sent_at):
            mirrors.take(flight.cost, flight.sent_at)
        return mirrors

    def _rule(self, name: str) -> str | None:
        rule = RULES.get(name, self.charge)
        # Where others spend too, no comparison of levels could tell which rule is the right one: the careful one is.
        return rule if rule is not None or self._counts else "reserve"

    @property
    def _any_told(self) -> bool:
        return any(mirrors.meter.told for mirrors in (self._mirrors or {}).values())

    def whole(self, name: str) -> float | None:
        """A limit for all processes together, per period; None when nobody has told it."""
        stated, told = getattr(self.stated, name), self._wholes.get(name)
        return min(stated, told) if stated is not None and told is not None else told if stated is None else stated

    def told(self, name: str) -> float | None:
        """A whole limit as answers have told it, whatever is configured; None when none has."""
        return self._wholes.get(name)

    def source(self, name: str) -> tuple[str, float | None]:
        """Whose number a limit is, and when an answer taught it; see `Standing`."""
        stated, told = getattr(self.stated, name), self._wholes.get(name)
        learned_at = self._learned_at.get(name)
        if stated is not None and (told is None or stated <= told):
            return "stated", learned_at
        return ("shared" if told is not None and learned_at is None else "learned"), learned_at

    def capacity(self, name: str) -> float | None:
        """Units that a full bucket of a whole limit holds, without the guard; None when the limit is not known."""
        whole, mirrors = self.whole(name), (self._mirrors or {}).get(name)
        if whole is None or mirrors is None:
            return None
        meter = mirrors.meter
        return max(1.0, whole * meter.capacity / meter.limit - meter.guard * whole / meter.period)

    # -- what answers and other processes tell ----------------------------------------------------------------------

    def _read(self, reading: Reading, flight: Flight, kind: Kind, now: float) -> None:
        """Take in what an answer says of one limit; a provider may say anything, so what cannot be is ignored."""
        mirrors_by_name = self._started(now)
        name, limit = reading.dimension, reading.limit
        if name not in PERIODS:
            return
        if limit is not None and not (sane(limit) and (kind is not Kind.OK or plausible(name, limit, flight.cost))):
            return
        configured = getattr(self.limits, name)
        mirrors = mirrors_by_name.get(name)
        if limit is not None:
            limit = self._heard_of(name, limit, now)
            if self.learn and (mirrors is None or not mirrors.meter.told):
                mirrors = self._mirror_in_flight(name, limit, flight.sent_at)
            elif mirrors is not None:
                mirrors.relimit(min(limit, configured) if configured is not None else limit)
        if mirrors is None or not mirrors.meter.told:
            return
        if self._given.part < 1.0 or (configured is not None and limit is not None and limit > configured):
            return  # the caller wants to use less than there is: what is left of the whole says nothing about that
        self._read_remaining(mirrors, reading, flight, now)

    def _read_remaining(self, mirrors: Mirrors, reading: Reading, flight: Flight, now: float) -> None:
        """Take in how much is left of a limit."""
        if reading.remaining is None or not 0.0 <= reading.remaining < math.inf:
            return
        name = reading.dimension
        if self._counts:
            mirrors.read(reading, flight.cost, flight.sent_at, flight.held.get(name), now)
        elif mirrors.rule not in CORRECTED:  # what others were given back since the snapshot, nobody here knows
            self._bound(name, mirrors.ceiling(reading, flight.cost, flight.sent_at, now))

    def _heard_of(self, name: str, limit: float, now: float) -> float:
        """An answer of ours told a whole limit; what this process may use of it."""
        if self._wholes.get(name) != limit:
            self._wholes[name] = limit
            self._heard.add(name)
            self._learned_at[name] = now
        self._learned_at.setdefault(name, now)
        self._told_at[name] = now
        return self._given.part_of(name, limit)

    def _doubted(self, name: str, amount: float, now: float) -> bool:
        """Whether a call that asks for more than a learned limit may try it: a provider may have lied, or recovered.

        Without that, calls that are all too large for it would fail for ever, since only an answer can raise it.
        """
        configured = getattr(self.limits, name)
        if not self._counts or (configured is not None and amount > configured):
            return False
        return now - self._told_at.get(name, now) >= DOUBT

    def _bound(self, name: str, amount: float | None) -> None:
        """No more than `amount` can be left of a limit that somebody else counts; None: nobody knows."""
        if amount is not None:
            self._bounds[name] = min(amount, self._bounds.get(name, math.inf))

    def tell(self, name: str, limit: float, now: float) -> None:
        """Another process has learned a whole limit."""
        mirrors_by_name, configured = self._started(now), getattr(self.limits, name)
        if name not in PERIODS or not sane(limit):
            return
        part, mirrors = self._given.part_of(name, limit), mirrors_by_name.get(name)
        if self.learn and configured is None:
            self._answered = True
            if self._wholes.get(name) != limit:
                self._learned_at.pop(name, None)  # others were told something else since
            self._wholes[name] = limit
        if mirrors is not None and mirrors.meter.told:
            mirrors.relimit(part if configured is None else min(part, configured))
        elif self.learn:
            self._mirror_in_flight(name, part, now)

    def news(self) -> tuple[set[str], dict[str, float]]:
        """What our own answers told since the last time: limits, by name, and the most that there can be left now."""
        heard, bounds = self._heard, self._bounds
        self._heard, self._bounds = set(), {}
        return heard, bounds

    # -- who counts what is left ------------------------------------------------------------------------------------

    def counted_elsewhere(self, now: float) -> None:
        """From now on somebody else counts what is left, who sees what all processes spend.

        Told limits hold no call back then, but for a share of them that is this process's own; and what answers say of
        what is left is not taken in, but kept for `news`.
        """
        self._rearrange(self.stated, False, now)

    def alone(self, part: float, now: float) -> None:
        """Count again, this part of every limit; since nobody knows what is left, there is nothing at first."""
        self._rearrange(self.stated.replace(share=self.stated.part * part, safety_margin=None), True, now)
        for mirrors in self._started(now).values():
            for meter in mirrors.meters.values():
                if meter.told:
                    meter.level = min(meter.level, 0.0)

    def _rearrange(self, given: RateLimits, counts: bool, now: float) -> None:
        """Make all mirrors anew, full but for what is in flight."""
        wholes = {name: whole for name in PERIODS if (whole := self.whole(name)) is not None}
        self._given, self.limits, self._counts = given, given.spendable(), counts
        if self._mirrors is None:
            return
        self._mirrors = {}
        for flight in self._flights.values():
            flight.held.clear()
        for name in PERIODS:
            if name in wholes:
                self._mirror_in_flight(name, given.part_of(name, wholes[name]), now)
            elif name == "rpm" and self.learn:
                self._mirror_in_flight(name, None, now)

    # -- what a call is charged -------------------------------------------------------------------------------------

    def asks(self, cost: Cost) -> dict[str, float]:
        """What a call is charged in each dimension that may be limited, at once or at its end."""
        names = PERIODS if self.learn else (self._mirrors or {})
        return {name: sum(charges(self._rule(name) or "reserve", cost)) for name in names}

    def owes(self, cost: Cost, usage: Usage | None, kind: Kind) -> dict[str, float]:
        """What a call that has ended is still to be charged beyond `asks`; below zero, what it gives back."""
        owed = {}
        for name in PERIODS if self.learn else (self._mirrors or {}):
            rule = self._rule(name) or "reserve"
            amount, pledge = charges(rule, cost)
            late = correction(rule, cost, usage) if kind is Kind.OK else -amount if kind is Kind.LIMITED else 0.0
            owed[name] = late - pledge
        return owed

    def check(self, cost: Cost) -> None:
        """Raise BudgetExceeded for a call that asks for more than a whole limit."""
        for name, mirrors in (self._mirrors or {}).items():
            amount, limit = charges(mirrors.rule, cost)[0], mirrors.meter.limit
            if amount > limit:
                raise BudgetExceeded(name, limit, amount)

    def held(self, key: int) -> Cost | None:
        """What a call that is reserved and not settled was to cost; None for one that is not."""
        flight = self._flights.get(key)
        return None if flight is None else flight.cost
