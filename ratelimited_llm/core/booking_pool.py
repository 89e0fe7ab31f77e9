"""What an order does to a pool of limits that several processes share, and what it is answered.

A pool has one queue of bookings. An order of patient calls goes behind the last booking, at the moment at which every
limit has what it asks for and what is held back; or in front of it, where something was given back since. Urgent ones
may use what is held back, so they find room in front far more often. What a booking in front takes is missing behind
the last one, so patients that come later pay for it: at no moment is more sent than a bucket of the whole capacity
allows.

A pool is lines of text, so that a store need not know what they mean: `state` has one for the pool ("pool": the moment
it was last seen, the turn of its last booking, the end of a refusal's pause, and whether one order has to go first
after it) and one for each limit; `orders` has one for each process (until when it is busy, the number of its last
order, the moment it was booked for, and whether it was). `stores/book.lua` has the same in Lua, and one table of cases
tests both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field

from .booking import Answer, Order, Part, Shared
from .booking_bucket import AHEAD, LARGEST, MEMORY, Bucket, finite, within

__all__ = ["Wishes", "book", "look"]

LONGEST_PAUSE = 120.0  # seconds: as long as any refusal may hold back a pool
ONE_FIRST = 0.2  # seconds after a pause in which one order is out, before all others follow
ASK_AGAIN = 0.5  # seconds after which an order is asked again when operators have paused everything
LATE = 0.1  # seconds after which an order is asked again that a newer one of its process has overtaken
ASK_LATER = 60.0  # seconds at most after which an order is asked again that lies too far ahead
STEP = 60.0  # seconds: a clock that goes back further was set, and says nothing about who was seen when
POOL = "pool"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What operators want of every pool: see `stores.shared_store.Control`."""

    news: int = 0
    paused: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)

    def at_most(self, dimension: str) -> float:
        """Units per period that operators allow of one limit; `LARGEST` when they have not lowered it."""
        limit = finite(self.limits.get(dimension), LARGEST)
        return limit if 0.0 < limit < LARGEST else LARGEST


NO_WISHES = Wishes()


@dataclass(slots=True)
class _Queue:
    """The pool's own line: `end` is the turn of its last booking, or the present moment when that is over."""

    end: float
    pause: float
    one_first: bool

    @classmethod
    def read(cls, state: Mapping[str, str], orders: MutableMapping[str, str], now: float) -> _Queue:
        """Bring it to the present; a clock that went back takes all moments with it."""
        words = state.get(POOL, "").split()
        words += [""] * (4 - len(words))
        last, end, pause = finite(words[0], now), finite(words[1], now), finite(words[2], now)
        back = max(0.0, last - now)
        if back > STEP:
            orders.clear()
        end, pause = min(end - back, now + AHEAD), min(pause - back, now + LONGEST_PAUSE)
        return cls(max(now, end), pause, words[3] == "1")

    def text(self, now: float) -> str:
        return f"{now!r} {self.end!r} {self.pause!r} {int(self.one_first)}"


@dataclass(frozen=True, slots=True)
class _Ask:
    """One limit of an order: what it takes, and what has to be there."""

    part: Part
    bucket: Bucket
    amount: float
    need: float


def book(
    state: MutableMapping[str, str],
    orders: MutableMapping[str, str],
    order: Order,
    now: float,
    wishes: Wishes = NO_WISHES,
) -> Answer:
    """Book an order out of a pool, all parts or none.

    Args:
        state, orders: the lines of the pool, which are changed; empty for one that nobody has used.
        order: what is asked.
        now: the present moment, seconds of the store's clock.
        wishes: what operators want.
    """
    queue = _Queue.read(state, orders, now)
    number, moment, booked = _record(orders.get(order.member, ""), now) or (-1.0, now, False)
    if order.number < number:
        moment, booked = now + LATE, False
    elif order.number > number:
        moment, booked = _answer(state, queue, order, now, wishes)
        orders[order.member] = f"{moment if booked else now!r} {order.number} {moment!r} {int(booked)}"
    state[POOL] = queue.text(now)
    _forget(orders, now)
    shared = _shared(state, queue, now, wishes)
    return Answer(max(0.0, moment - now), booked, shared, max(1, len(orders)), wishes.news)


def look(state: Mapping[str, str], now: float, wishes: Wishes = NO_WISHES) -> tuple[float, tuple[Shared, ...]]:
    """Seconds of pause that are left of a pool, and its limits; nothing is changed."""
    queue = _Queue.read(state, {}, now)
    return max(0.0, queue.pause - now), _shared(state, queue, now, wishes, whose=True)


def _answer(
    state: MutableMapping[str, str], queue: _Queue, order: Order, now: float, wishes: Wishes
) -> tuple[float, bool]:
    """The moment of an order that is new, and whether it is booked for it; if not, it is the moment to ask again."""
    asks = [ask for part in order.parts if (ask := _take_in(state, part, queue, now, wishes)) is not None]
    moment, booked = _decide(queue, asks, order, now, wishes)
    for ask in asks:
        if ask.part.configured and ask.bucket.stated == ask.part.limit:
            ask.bucket.stated_until = (moment if booked else now) + MEMORY
        state[ask.part.dimension] = ask.bucket.text()
    return moment, booked


def _take_in(state: Mapping[str, str], part: Part, queue: _Queue, now: float, wishes: Wishes) -> _Ask | None:
    """Bring one limit to the present, with what the order says of it; None when nobody knows it."""
    text = state.get(part.dimension)
    bucket = Bucket.new(queue.end) if text is None else Bucket.read(text, queue.end)
    bucket.hear(part, now)
    bucket.rule(wishes.at_most(part.dimension), now)
    if not bucket.limit:
        return None
    if text is None:
        bucket.fill(bucket.capacity if part.last_level is None else part.last_level)
    bucket.advance(now, queue.end)
    bucket.correct(part.correction)
    bucket.bound(part.at_most)
    amount = part.amount if 0.0 <= part.amount < math.inf else bucket.capacity
    held_back = within(finite(part.held_back, 0.0), 0.0, bucket.capacity)
    return _Ask(part, bucket, amount, amount + held_back)


def _decide(queue: _Queue, asks: list[_Ask], order: Order, now: float, wishes: Wishes) -> tuple[float, bool]:
    if order.pause > 0.0:
        queue.pause = max(queue.pause, now + min(order.pause, LONGEST_PAUSE))
        queue.one_first = True
    if wishes.paused:
        return now + ASK_AGAIN, False
    if queue.pause > now:
        return queue.pause, False
    wanted = [(ask.bucket, ask.amount, ask.amount if order.urgent else ask.need) for ask in asks if ask.amount > 0.0]
    moment, booked = _book(queue, wanted, now) if wanted else (now, True)
    if booked and wanted and queue.one_first:
        queue.one_first = False
        queue.pause = min(moment + ONE_FIRST, now + LONGEST_PAUSE)
    return moment, booked


def _book(queue: _Queue, wanted: list[tuple[Bucket, float, float]], now: float) -> tuple[float, bool]:
    """Find the earliest turn for (bucket, amount, need), and take it."""
    last = queue.end + max(bucket.turn(need) for bucket, _, need in wanted)
    gap = max(bucket.gap(need, now) for bucket, _, need in wanted) if queue.end > now else math.inf
    moment = min(gap, last)
    if moment > now + AHEAD:
        return now + within(moment - now - AHEAD, 1.0, ASK_LATER), False
    for bucket, amount, _ in wanted:
        if gap < last:
            bucket.take_in_front(amount)
        else:
            bucket.take_last(amount, now, last)
    if gap >= last:
        queue.end = last
    return moment, True


def _shared(
    state: Mapping[str, str], queue: _Queue, now: float, wishes: Wishes, *, whose: bool = False
) -> tuple[Shared, ...]:
    """Every limit that is known, at present; and whose number it is, for those who ask."""
    known = []
    for dimension, text in sorted(state.items()):
        if dimension == POOL:
            continue
        bucket = Bucket.read(text, queue.end)
        bucket.rule(wishes.at_most(dimension), now)
        if bucket.limit:
            source = bucket.source(now) if whose else ""
            learned = max(0.0, now - bucket.learned_at) if whose and bucket.learned and bucket.learned_at else None
            known.append(Shared(dimension, bucket.limit, bucket.left(now), bucket.period, source, learned))
    return tuple(known)


def _record(line: str, now: float) -> tuple[float, float, bool] | None:
    """(number, moment, booked) of a process's last order; None when it was too long ago, or the line was spoilt."""
    words = line.split()
    busy = finite(words[0], math.inf) if len(words) == 4 else math.inf
    if not now - MEMORY <= busy <= now + AHEAD + STEP:
        return None
    return finite(words[1], -1.0), min(finite(words[2], now), now + AHEAD), words[3] == "1"


def _forget(orders: MutableMapping[str, str], now: float) -> None:
    """Leave out the processes that have not asked for a while."""
    for member in [member for member, line in orders.items() if _record(line, now) is None]:
        del orders[member]
