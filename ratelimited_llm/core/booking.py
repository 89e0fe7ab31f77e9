"""A limit that several processes share: what a process asks of it, what it is told, and the arithmetic between.

One process has one order open at a time. What it asks for is booked at once, if need be for a moment to come (the level
goes below zero then): the answer says when, and the booking stands. So one question is enough, however long the wait,
and processes take turns in the order in which they asked.

    booking_pool      `book`: what an order does to a pool, and what it is answered
    booking_bucket    one limit of a pool
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Answer", "Order", "Part", "Shared"]


@dataclass(frozen=True, slots=True)
class Part:
    """One limit in an order.

    Attributes:
        dimension: "rpm", "tpm", "rpd", "tpd", "itpm" or "otpm".
        amount: units to book; 0.0 for none.
        period: seconds that the limit stands for.
        limit: units per period, as this process knows it; None when it does not: what others have learned counts.
        capacity: units that a full bucket holds; None for a whole period's worth.
        configured: whether the user stated the limit, so that no answer of a provider raises it.
        held_back: units that are left to urgent calls.
        correction: units to charge (or, below zero, to give back) for calls that have ended since the last order.
        at_most: units that there can be at this moment, as a refusal or a header told; None when nothing did.
        last_level: units that this process was told last, brought up to now; it counts should everything be forgotten.
    """

    dimension: str
    amount: float
    period: float
    limit: float | None = None
    capacity: float | None = None
    configured: bool = False
    held_back: float = 0.0
    correction: float = 0.0
    at_most: float | None = None
    last_level: float | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What a process asks of one pool of limits, all parts or none.

    Attributes:
        member: who asks; the same for the life of a process.
        number: counts the orders of a member: one that is repeated, since its answer was lost, is answered as before
            and charged nothing. One that was not booked is asked anew under the next number; its corrections, bounds
            and pause were taken in all the same.
        parts: the limits.
        urgent: whether it may use what is held back.
        pause: seconds from now that nobody may send, since a refusal said so; 0.0 for none.
    """

    member: str
    number: int
    parts: tuple[Part, ...]
    urgent: bool = False
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class Shared:
    """One limit as all processes together know it: units per period, and units left (below zero: booked ahead).

    Attributes:
        source: whose number `limit` is, for those who only look: "stated" by a user, "learned" from the provider, or
            "lowered" by an operator; "" in the answer to an order, which needs no such thing.
        learned: seconds since an answer of the provider taught this limit; None when none did, or nobody looked.
    """

    dimension: str
    limit: float
    level: float
    period: float
    source: str = ""
    learned: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a process is told.

    Attributes:
        wait: seconds from now at which what was asked for may be sent: it is booked, unless `booked` is False.
        booked: False when nothing was taken: somebody has paused the pool, or it is under a refusal's pause. Ask again
            after `wait`.
        limits: every limit of the pool that anybody knows.
        members: processes that have asked in the last minute, this one included.
        news: a number that changes when an operator has changed something (see `SharedStore.report`).
    """

    wait: float
    booked: bool
    limits: tuple[Shared, ...]
    members: int = 1
    news: int = 0
