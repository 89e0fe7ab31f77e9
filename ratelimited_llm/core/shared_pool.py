"""One process's part in a pool of limits that several share: what it orders, what it has booked, what it still owes.

Everything but what is left of the limits is this process's own, and its limiter's: places, pauses, the first answer,
the ramp. What is left is counted by a shared store. A reservation is one order there, and if it has to wait, it is
booked: it needs no second question when its time has come. A booking belongs to the process and not to the call that
asked for it, so whoever is first in the queue by then uses it. What calls turn out to cost rides on the next order.

A driver asks (`ask`), takes an order to the store if it was answered one, and says what came of it (`answered`, or
`lose` when there is no store any more). Not thread-safe; one order at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from .booking import Answer, Order, Part
from .feedback import Feedback, Kind
from .limiter import LEAST_WAIT, Limiter, Standing, Survey
from .limits import PERIODS
from .request import Cost, Usage

__all__ = ["Asked", "SharedPool"]

GRACE = 0.25  # seconds after its time that a booking waits for a call that uses it, before it is given back
MOST_BOOKINGS = 3  # of one process: a patient one, an urgent one, and one more when there is room before them
MOST_WAIT = 3_600.0  # seconds that a store is believed: what it says of longer ones is asked again
EARLY = 1e-6  # seconds: what the rounding of clocks may make of a wait
LITTLE = 1e-9  # units that are none
NO_COST = Cost()


@dataclass(slots=True)
class _Booking:
    """Budget that is ours from a moment on."""

    ready_at: float
    amounts: dict[str, float]
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class _Left:
    """What was left of a limit when the store last told: units (below zero: booked ahead) at a moment, and its size."""

    level: float
    limit: float
    period: float
    at: float

    def now(self, now: float) -> float:
        return min(self.level + self.limit / self.period * max(0.0, now - self.at), self.limit)


@dataclass(slots=True)
class Asked:
    """An order on its way to the store, and what it is for.

    Attributes:
        order: what the store is to be told.
        needs: what the call costs in each dimension; empty when it is for no call.
        key, cost, urgent: the call.
        for_call: whether it is for a call; if not, ask again once it is answered.
        booking: a booking that the order adds to, since the call is larger than the one it was made for.
    """

    order: Order
    needs: dict[str, float]
    for_call: bool = False
    key: int = 0
    cost: Cost = NO_COST
    urgent: bool = False
    booking: _Booking | None = None


class SharedPool:
    """What one process has to do with one shared pool.

    Args:
        limiter: a fresh one, with the configured limits and the provider's rules.
        member: what this process is called at the store.
        number: counts the orders of this process.
        now: the present moment.

    Attributes:
        lost: whether there is no store at the moment.
        sooner: whether there is room before the time that calls were told, so that they should ask again; whoever
            looks sets it to False.
    """

    def __init__(self, limiter: Limiter, member: str, number: Callable[[], int], now: float) -> None:
        self.limiter = limiter
        self.member = member
        self.number = number
        self.lost = self.sooner = False
        limiter.counted_elsewhere(now)
        self._fresh = limiter.learn  # what others know was not asked for yet
        self._bookings: list[_Booking] = []
        self._charged: dict[int, Iterable[str]] = {}  # calls in flight: in which dimensions the store has charged them
        self._owed: dict[str, float] = {}
        self._bounds: dict[str, tuple[float, float]] = {}  # the most that there can be, as of a moment
        self._heard: set[str] = set()  # limits that our own answers told, and the store has not heard of
        self._pause_until = -math.inf  # a refusal's pause that the store has not heard of
        self._known: set[str] = set()  # what the store knew when it answered last
        self._left: dict[str, _Left] = {}

    # -- reserve ------------------------------------------------------------------------------------------------------

    def ask(self, key: int, cost: Cost, now: float, *, urgent: bool = False) -> float | Asked:
        """Reserve a call's cost, as `Limiter.reserve` does, or answer what the store has to be asked first."""
        limiter = self.limiter
        if limiter.held(key) is not None:
            return 0.0
        wait = limiter.gate(cost, now, urgent=urgent)
        if wait > 0.0:
            return wait
        needs = limiter.asks(cost)
        if self.lost or not needs:
            limiter.take(key, cost, now)
            return 0.0
        if self._fresh:  # what has learned limits might be asked for too much of them would not easily be given back
            return self._asked(dict.fromkeys(needs, 0.0), now)
        booking = self._booking(urgent, needs, now)
        if booking is None:
            return self._asked(needs, now, key, cost, urgent)
        if now < booking.ready_at - EARLY:
            return max(booking.ready_at - now, LEAST_WAIT)
        more = {name: needs.get(name, 0.0) - booking.amounts.get(name, 0.0) for name in self._known}
        rest = {name: amount for name, amount in more.items() if amount > LITTLE}
        if rest:
            return self._asked(rest, now, key, cost, urgent, booking)
        self._use(booking, needs, key, cost, now)
        return 0.0

    def _booking(self, urgent: bool, needs: dict[str, float], now: float) -> _Booking | None:
        """The booking that a call waits for or uses; None when it orders on its own account."""
        first = min(self._bookings, key=lambda booking: booking.ready_at, default=None)
        if first is None or first.ready_at - EARLY <= now or len(self._bookings) >= MOST_BOOKINGS:
            return first
        first_urgent = urgent and not any(booking.urgent for booking in self._bookings)
        return None if first_urgent or self._room(needs, urgent, now) else first

    def _room(self, needs: dict[str, float], urgent: bool, now: float) -> bool:
        """Whether there is enough for one more call at once, all that is booked ahead counted as taken."""
        for name in self._known:
            need = needs.get(name, 0.0)
            held_back = 0.0 if urgent else self.limiter.held_back(name, need)
            if self._left[name].now(now) - self._owed.get(name, 0.0) < need + held_back:
                return False
        return bool(self._known)

    def _use(self, booking: _Booking, needs: dict[str, float], key: int, cost: Cost, now: float) -> None:
        self._bookings = [each for each in self._bookings if each is not booking]
        for name, amount in booking.amounts.items():
            self._owe(name, needs.get(name, 0.0) - amount)
        self.limiter.take(key, cost, now)
        self._charged[key] = tuple(booking.amounts)

    def _owe(self, name: str, amount: float) -> None:
        if abs(amount) > LITTLE:
            self._owed[name] = self._owed.get(name, 0.0) + amount

    # -- orders -------------------------------------------------------------------------------------------------------

    def _asked(
        self, needs: dict[str, float], now: float, key: int = 0, cost: Cost = NO_COST, urgent: bool = False,
        booking: _Booking | None = None,
    ) -> Asked:  # fmt: skip
        self._take_in(now)
        known = self._known or needs  # what nobody has told may be known to the store: ask, the first time
        names = [name for name in PERIODS if name in known or self.limiter.whole(name) is not None]
        parts = tuple(self._part(name, needs.get(name, 0.0), urgent, now) for name in names)
        pause = max(0.0, self._pause_until - now)
        order = Order(self.member, self.number(), parts, urgent, pause)
        for_call, self._fresh = not self._fresh and bool(needs), False
        asked = Asked(order, needs, for_call, key, cost, urgent, booking)
        self._owed, self._bounds, self._heard, self._pause_until = {}, {}, set(), -math.inf
        return asked

    def _part(self, name: str, amount: float, urgent: bool, now: float) -> Part:
        limiter, left = self.limiter, self._left.get(name)
        stated = getattr(limiter.stated, name, None) is not None
        # What the store knows it is not told again: another process may have heard of a change since we did.
        limit = limiter.whole(name) if stated or name not in self._known or name in self._heard else None
        bound = self._bounds.get(name)
        return Part(
            name,
            amount,
            PERIODS[name],
            limit,
            limiter.capacity(name),
            stated,
            0.0 if urgent else limiter.held_back(name, amount),
            self._owed.get(name, 0.0),
            None if bound is None else self._since(name, *bound, now),
            None if left is None else left.now(now),
        )

    def _since(self, name: str, level: float, at: float, now: float) -> float:
        whole = self.limiter.whole(name) or 0.0
        return level + whole / PERIODS[name] * max(0.0, now - at)

    def _take_in(self, now: float) -> None:
        """What our own answers have told since the last order."""
        heard, bounds = self.limiter.news()
        self._heard |= heard
        for name, level in bounds.items():
            self._bound(name, level, now)

    def _bound(self, name: str, level: float, now: float) -> None:
        known = self._bounds.get(name)
        self._bounds[name] = (level if known is None else min(level, self._since(name, *known, now)), now)

    def answered(self, asked: Asked, answer: Answer, now: float) -> float:
        """The store has answered an order: 0.0 when its call goes, or the seconds until it may.

        Raises:
            BudgetExceeded: the call asks for more than a whole limit, which others have learned.
        """
        self._learn(answer, now)
        if not asked.for_call:
            self.sooner = any(self._room(each.amounts, each.urgent, now) for each in self._bookings)
            return 0.0
        wait = answer.wait if 0.0 <= answer.wait <= MOST_WAIT else MOST_WAIT
        if not answer.booked:
            return max(wait, LEAST_WAIT)
        amounts = {name: amount for name, amount in asked.needs.items() if name in self._known}
        booking = _Booking(now + wait, amounts, asked.urgent)
        if asked.booking is not None:
            self._bookings = [each for each in self._bookings if each is not asked.booking]
            for name, amount in asked.booking.amounts.items():
                amounts[name] = amounts.get(name, 0.0) + amount
        try:
            self.limiter.check(asked.cost)
        except Exception:
            self._give_back(booking)
            raise
        if wait <= EARLY:
            self._use(booking, self.limiter.asks(asked.cost), asked.key, asked.cost, now)
            return 0.0
        self._bookings.append(booking)
        return max(wait, LEAST_WAIT)

    def _learn(self, answer: Answer, now: float) -> None:
        self._known = set()
        for each in answer.limits:
            sound = 0.0 < each.limit < math.inf and 0.0 < each.period < math.inf and math.isfinite(each.level)
            if each.dimension in PERIODS and sound:
                self._known.add(each.dimension)
                self._left[each.dimension] = _Left(each.level, each.limit, each.period, now)
                self.limiter.tell(each.dimension, each.limit, now)

    # -- what calls turn out to cost, and what answers tell ---------------------------------------------------------

    def observe(self, key: int, feedback: Feedback, now: float) -> None:
        """Learn from an answer; see `Limiter.observe`."""
        limiter = self.limiter
        before = limiter.paused_until
        limiter.observe(key, feedback, now)
        self._take_in(now)
        if feedback.outcome.kind is Kind.LIMITED and limiter.paused_until > max(before, now):
            self._pause_until = max(self._pause_until, limiter.paused_until)

    def settle(self, key: int, usage: Usage | None, now: float, kind: Kind = Kind.OK) -> None:
        """A call has ended; see `Limiter.settle`."""
        charged, cost = self._charged.pop(key, None), self.limiter.held(key)
        if charged and cost is not None:
            for name, amount in self.limiter.owes(cost, usage, kind).items():
                if name in charged:
                    self._owe(name, amount)
        self.limiter.settle(key, usage, now, kind)

    @property
    def in_a_hurry(self) -> bool:
        """Whether there is something that the other processes should hear of at once."""
        return self._pause_until > -math.inf

    @property
    def owes(self) -> bool:
        """Whether there is anything to tell the store."""
        return not self.lost and bool(self._owed or self._bounds or self._heard or self.in_a_hurry)

    def flush(self, now: float) -> Asked | None:
        """An order for no call, with what is owed; None when there is nothing to tell."""
        return self._asked({}, now) if self.owes else None

    # -- bookings that nobody uses ----------------------------------------------------------------------------------

    @property
    def booked(self) -> bool:
        """Whether it has bookings that nobody has used."""
        return bool(self._bookings)

    def stale_at(self) -> float:
        """When the next booking is given back if nobody uses it; math.inf when there is none."""
        return min((booking.ready_at + GRACE for booking in self._bookings), default=math.inf)

    def give_back(self, now: float) -> None:
        """Give back the bookings whose time has come and gone; one of a time to come is nothing yet."""
        gone = [each for each in self._bookings if each.ready_at + GRACE <= now]
        self._bookings = [each for each in self._bookings if each not in gone]
        for booking in gone:
            self._give_back(booking)

    def _give_back(self, booking: _Booking) -> None:
        for name, amount in booking.amounts.items():
            self._owe(name, -amount)

    # -- without the store --------------------------------------------------------------------------------------------

    def lose(self, members: int, now: float) -> None:
        """There is no store any more: go on with this process's part of every limit, beginning with nothing.

        What was booked or would be given back is let go: nobody knows whether the store had it.
        """
        self.lost = True
        self.forget_debts()
        self.limiter.alone(1.0 / max(1, members), now)

    def regain(self, now: float) -> None:
        """The store is back, and may have forgotten everything: there is no more than if all others did as we did."""
        self.lost = False
        standings = list(self.limiter.standings(now))
        self.limiter.counted_elsewhere(now)
        for each in standings:
            whole = self.limiter.whole(each.dimension)
            if whole is not None:
                self._bound(each.dimension, each.remaining / each.limit * whole, now)

    def forget_debts(self) -> None:
        """Nothing is booked, nothing is owed, nothing was told; what is in flight is not corrected any more."""
        self._bookings.clear()
        self._charged.clear()
        self._owed, self._bounds, self._heard, self._pause_until = {}, {}, set(), -math.inf
        self._known = set()

    # -- looking at it ------------------------------------------------------------------------------------------------

    def survey(self, now: float) -> Survey:
        """The limits as they stand: what is left is what the store told last."""
        survey = self.limiter.survey(now)
        if self.lost:
            return survey
        return replace(survey, standings=tuple(self._standings(survey.standings, now)))

    def _standings(self, standings: Iterable[Standing], now: float) -> Iterable[Standing]:
        for each in standings:
            left = self._left.get(each.dimension)
            yield (
                each
                if left is None
                else replace(each, remaining=max(0.0, left.now(now)), limit=left.limit, period=left.period)
            )
