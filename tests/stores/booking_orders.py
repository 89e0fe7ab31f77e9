"""Random traffic for shared limits, and the bucket of a provider that judges it."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from ratelimited_llm.core.booking import Order, Part

LIMITS = {"rpm": 60.0, "tpm": 6000.0}
PERIOD = 60.0

amounts = st.sampled_from([0.0, 1.0, 2.0, 7.0]), st.sampled_from([0.0, 50.0, 100.0, 900.0, 2500.0])
moves = st.tuples(
    st.sampled_from([0.0, 0.0, 0.01, 0.3, 1.0, 5.0, 40.0]),  # seconds since the one before
    st.sampled_from("abcd"),  # who
    st.booleans(),  # urgent
    st.booleans(),  # whether patient calls hold something back
    *amounts,
)


@dataclass
class Sent:
    """What was allowed to be sent, and when."""

    moment: float
    amounts: dict[str, float]


def orders_of(traffic) -> list[tuple[float, Order]]:
    """Moments and orders; nobody corrects anything."""
    now, found = 0.0, []
    for number, (after, member, urgent, holding, requests, tokens) in enumerate(traffic, 1):
        now += after
        parts = (
            Part("rpm", requests, PERIOD, LIMITS["rpm"], configured=True, held_back=float(holding)),
            Part("tpm", tokens, PERIOD, LIMITS["tpm"], configured=True, held_back=900.0 * holding),
        )
        found.append((now, Order(member, number, parts, urgent)))
    return found


def judged(sent: list[Sent], name: str) -> float:
    """The least that a provider's bucket ever had: below zero it would have refused."""
    limit, at, least = LIMITS[name], 0.0, LIMITS[name]
    level = limit
    for each in sorted(sent, key=lambda each: each.moment):
        level = min(limit, level + limit / PERIOD * (each.moment - at)) - each.amounts[name]
        at, least = each.moment, min(least, level)
    return least
