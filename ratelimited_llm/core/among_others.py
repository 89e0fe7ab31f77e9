"""What a limiter does when others spend the same limits: leave counting to who sees them all, or take a part."""

from __future__ import annotations

from typing import Any

from ..exceptions import BudgetExceeded
from .claims import sane
from .feedback import Kind
from .limits import PERIODS, RateLimits
from .mirrors import Mirrors, charges, correction
from .request import Cost, Usage

__all__ = ["AmongOthers"]


class AmongOthers:
    """This side of a `Limiter`, which has the attributes; see there."""

    limits: RateLimits
    stated: RateLimits
    learn: bool
    _given: RateLimits
    _counts: bool
    _answered: bool
    _wholes: dict[str, float]
    _heard: set[str]
    _bounds: dict[str, float]
    _meters: dict[str, Mirrors] | None
    _flights: dict[int, Any]

    def _started(self, now: float) -> dict[str, Mirrors]:
        raise NotImplementedError

    def _tell(self, name: str, limit: float | None, since: float) -> Mirrors:
        raise NotImplementedError

    def _rule(self, name: str) -> str | None:
        raise NotImplementedError

    def counted_elsewhere(self, now: float) -> None:
        """From now on somebody else counts what is left, who sees what all processes spend (see `shared_pool`).

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
        wholes = {name: whole for name in PERIODS if (whole := self.whole(name)) is not None}
        self._given, self.limits, self._counts = given, given.spendable(), counts
        if self._meters is None:
            return
        self._meters = {}
        for flight in self._flights.values():
            flight.held.clear()
        for name in PERIODS:
            if name in wholes:
                self._tell(name, given.part_of(name, wholes[name]), now)
            elif name == "rpm" and self.learn:
                self._tell(name, None, now)

    def tell(self, name: str, limit: float, now: float) -> None:
        """Another process has learned a whole limit."""
        meters, configured = self._started(now), getattr(self.limits, name)
        if name not in PERIODS or not sane(limit):
            return
        part, mirrors = self._given.part_of(name, limit), meters.get(name)
        if self.learn and configured is None:
            self._answered = True
            self._wholes[name] = limit
        if mirrors is not None and mirrors.meter.told:
            mirrors.relimit(part if configured is None else min(part, configured))
        elif self.learn:
            self._tell(name, part, now)

    def whole(self, name: str) -> float | None:
        """A limit for all processes together, per period; None when nobody has told it."""
        stated, told = getattr(self.stated, name), self._wholes.get(name)
        return min(stated, told) if stated is not None and told is not None else told if stated is None else stated

    def told(self, name: str) -> float | None:
        """A whole limit as answers have told it, whatever is configured; None when none has."""
        return self._wholes.get(name)

    def capacity(self, name: str) -> float | None:
        """Units that a full bucket of a whole limit holds, without the guard; None when the limit is not known."""
        whole, mirrors = self.whole(name), (self._meters or {}).get(name)
        if whole is None or mirrors is None:
            return None
        meter = mirrors.meter
        return max(1.0, whole * meter.capacity / meter.limit - meter.guard * whole / meter.period)

    def news(self) -> tuple[set[str], dict[str, float]]:
        """What our own answers told since the last time: limits, by name, and the most that there can be left now."""
        heard, bounds = self._heard, self._bounds
        self._heard, self._bounds = set(), {}
        return heard, bounds

    def asks(self, cost: Cost) -> dict[str, float]:
        """What a call is charged in each dimension that may be limited, at once or at its end."""
        names = PERIODS if self.learn else (self._meters or {})
        return {name: sum(charges(self._rule(name) or "reserve", cost)) for name in names}

    def owes(self, cost: Cost, usage: Usage | None, kind: Kind) -> dict[str, float]:
        """What a call that has ended is still to be charged beyond `asks`; below zero, what it gives back."""
        owed = {}
        for name in PERIODS if self.learn else (self._meters or {}):
            rule = self._rule(name) or "reserve"
            amount, pledge = charges(rule, cost)
            late = correction(rule, cost, usage) if kind is Kind.OK else -amount if kind is Kind.LIMITED else 0.0
            owed[name] = late - pledge
        return owed

    def check(self, cost: Cost) -> None:
        """Raise BudgetExceeded for a call that asks for more than a whole limit."""
        for name, mirrors in (self._meters or {}).items():
            amount, limit = charges(mirrors.rule, cost)[0], mirrors.meter.limit
            if amount > limit:
                raise BudgetExceeded(name, limit, amount)

    def held(self, key: int) -> Cost | None:
        """What a call that is reserved and not settled was to cost; None for one that is not."""
        flight = self._flights.get(key)
        return None if flight is None else flight.cost
