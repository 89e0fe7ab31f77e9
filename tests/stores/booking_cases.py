"""One table of what orders are answered: every spelling of the arithmetic, and every store, goes through it.

A case is a list of steps: (moment, member, parts, and what else the order says) -> what is expected of the answer.
Moments are seconds after noon; parts are written by `part`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ratelimited_llm.core.booking import Answer, Order, Part

NOON = 1_800_000_000.0
MINUTE, DAY = 60.0, 86_400.0


def part(dimension: str = "rpm", amount: float = 1.0, limit: float | None = 60.0, **more: Any) -> Part:
    """One limit of an order; a configured one of 60 requests a minute unless said otherwise."""
    more.setdefault("configured", limit is not None)
    return Part(dimension, amount, DAY if dimension in ("rpd", "tpd") else MINUTE, limit, **more)


@dataclass
class Step:
    """An order and what comes of it; None: not looked at."""

    at: float
    parts: tuple[Part, ...]
    wait: float
    booked: bool = True
    member: str = "a"
    urgent: bool = False
    pause: float = 0.0
    number: int | None = None
    levels: dict[str, float] | None = None
    limits: dict[str, float] | None = None
    members: int | None = None


@dataclass
class Spoil:
    """Something writes over a line of the pool: `text` may hold {now}."""

    line: str
    text: str


@dataclass
class Want:
    """An operator changes something."""

    change: dict[str, Any]


@dataclass
class Case:
    name: str
    steps: list[Step | Spoil | Want] = field(default_factory=list)


def ask(at: float, *parts: Part, wait: float = 0.0, **more: Any) -> Step:
    """A step that is booked; `refused` is one that is not."""
    return Step(at, parts or (part(),), wait, **more)


def refused(at: float, *parts: Part, wait: float, **more: Any) -> Step:
    return Step(at, parts or (part(),), wait, booked=False, **more)


def empty(at: float, **more: Any) -> Step:
    """Take all that a limit of 60 a minute has."""
    return ask(at, part(amount=60.0), **more)


HELD = part(held_back=1.0)

CASES = [
    Case("a full bucket is booked at once, and then at the rate", [
        empty(0, levels={"rpm": 0.0}),
        ask(0, wait=1.0, levels={"rpm": -1.0}),
        ask(0, wait=2.0, member="b", levels={"rpm": -2.0}),
        ask(1.5, wait=1.5, member="b", levels={"rpm": -1.5}),
    ]),
    Case("it refills continuously, and never above its capacity", [
        empty(0), ask(0.5, wait=0.5), ask(30, levels={"rpm": 28.0}), ask(500, levels={"rpm": 59.0}),
    ]),
    Case("all parts are booked at the moment of the slowest", [
        empty(0),
        ask(0, part(), part("tpm", 100.0, 6000.0), wait=1.0, levels={"rpm": -1.0, "tpm": 5800.0}),
        ask(0, part(), part("tpm", 5900.0, 6000.0), wait=2.0),
        ask(0, part(), part("tpm", 300.0, 6000.0), wait=4.0, levels={"rpm": -3.0, "tpm": -400.0}),
        ask(4, part(), part("tpm", 0.0, 6000.0), levels={"rpm": 0.0, "tpm": 0.0}),
    ]),
    Case("what nobody knows costs nothing", [
        ask(0, part(limit=None), levels={}), ask(0, part("tpm", 1e9, None), levels={}),
        ask(1, part(), levels={"rpm": 59.0}),
        ask(1, part(limit=None), levels={"rpm": 58.0}, limits={"rpm": 60.0}, member="b"),
    ]),
    Case("what one process has learned counts for all, and the newest counts", [
        ask(0, part(limit=500.0, configured=False), limits={"rpm": 500.0}),
        ask(0, part(limit=None), member="b", limits={"rpm": 500.0}),
        ask(0, part(limit=250.0, configured=False), member="b", limits={"rpm": 250.0}, levels={"rpm": 249.0}),
        ask(0, part(limit=None), limits={"rpm": 250.0}),
    ]),
    Case("the lowest limit that is configured counts while its process is there", [
        ask(0, part(limit=60.0)),
        ask(10, part(limit=120.0), member="b", limits={"rpm": 60.0}),
        ask(10, part(limit=500.0, configured=False), member="c", limits={"rpm": 60.0}),
        ask(71, part(limit=120.0), member="b", limits={"rpm": 120.0}),
        ask(72, part(limit=30.0), limits={"rpm": 30.0}),
        ask(140, part(limit=None), member="c", limits={"rpm": 500.0}),
    ]),
    Case("a limit that is configured counts as long as its process waits for its turn", [
        ask(0, part(amount=60.0), part("tpm", 0.0, 9000.0)),
        ask(0, part(amount=50.0), part("tpm", 0.0, 9000.0), wait=50.0),
        ask(0, part(limit=None), part("tpm", 0.0, 90_000.0, configured=False), wait=51.0, member="b"),
        ask(105, part(limit=None), part("tpm", 0.0, None), limits={"rpm": 60.0, "tpm": 9000.0}, member="b"),
        ask(111, part(limit=None), part("tpm", 0.0, None), limits={"rpm": 60.0, "tpm": 90_000.0}, member="b"),
    ]),
    Case("a bucket of another size is one", [
        ask(0, part(capacity=2.0), levels={"rpm": 1.0}), ask(0, part(capacity=2.0)),
        ask(0, part(capacity=2.0), wait=1.0), ask(100, part(capacity=2.0), levels={"rpm": 1.0}),
    ]),
    Case("a limit per day is one", [
        ask(0, part("rpd", 8640.0, 8640.0)), ask(0, part("rpd", 1.0, 8640.0), wait=10.0),
        refused(0, part("rpd", 8640.0, 8640.0), wait=60.0, levels={"rpd": -1.0}),
    ]),
    Case("what is too far ahead is not booked", [
        empty(0), ask(0, part(amount=60.0), wait=60.0), ask(0, part(amount=60.0), wait=120.0),
        *[ask(0, part(amount=60.0), wait=60.0 * turn) for turn in range(3, 11)],
        refused(0, wait=1.0), refused(0, part(amount=30.0), wait=30.0), ask(1, wait=600.0),
    ]),
    Case("patient calls leave what is held back", [
        ask(0, part(amount=59.0), levels={"rpm": 1.0}),
        ask(0, HELD, wait=1.0, levels={"rpm": 0.0}), ask(0, HELD, wait=2.0, levels={"rpm": -1.0}),
    ]),
    Case("urgent calls use what is held back, in front of what is booked", [
        ask(0, part(amount=59.0), levels={"rpm": 1.0}), ask(0, HELD, wait=1.0), ask(0, HELD, wait=2.0),
        ask(0.5, urgent=True, member="b", levels={"rpm": -1.5}),
        ask(0.5, HELD, wait=3.5),
        ask(0.5, urgent=True, member="b", wait=2.5),
    ]),
    Case("urgent calls wait for no more than what is missing", [
        empty(0), ask(0.25, HELD, wait=1.75), ask(0.25, HELD, wait=2.75),
        ask(0.25, urgent=True, member="b", wait=0.75), ask(0.25, HELD, wait=4.75),
    ]),
    Case("urgent calls find room again when patient ones have made it", [
        ask(0, part(amount=59.0)), ask(0, HELD, wait=1.0), ask(0, HELD, wait=2.0), ask(0, urgent=True, member="b"),
        ask(1, HELD, wait=3.0), ask(2, HELD, wait=3.0), ask(2.5, urgent=True, member="b", wait=0.5),
        ask(3, HELD, wait=4.0), ask(4, HELD, wait=4.0), ask(6, urgent=True, member="b"),
    ]),
    Case("without anything held back, urgent calls take their turn", [
        empty(0), ask(0, wait=1.0), ask(0, wait=2.0), ask(0, urgent=True, wait=3.0),
    ]),
    Case("what is given back can be used at once, in front of what is booked", [
        ask(0, part(amount=50.0)), ask(0, part(amount=20.0), wait=10.0),
        ask(1, part(correction=-20.0), levels={"rpm": 10.0}, member="b"),
        ask(1, part(amount=20.0), wait=10.0, member="b"),
    ]),
    Case("what calls have cost more is charged", [
        ask(0, part(amount=50.0)), ask(0, part(correction=14.0), wait=5.0, levels={"rpm": -5.0}),
    ]),
    Case("nothing is given back above the capacity", [
        ask(0), ask(0, part(correction=-1e12), levels={"rpm": 59.0}),
    ]),
    Case("a header bounds what there can be", [
        ask(0, part(at_most=10.0), levels={"rpm": 9.0}), ask(0, part(at_most=50.0), levels={"rpm": 8.0}),
        ask(0, part(at_most=-5.0), wait=1.0, levels={"rpm": -1.0}),
    ]),
    Case("a process that remembers more is believed when everything is forgotten", [
        ask(0, part(last_level=3.0), levels={"rpm": 2.0}), ask(0, part(last_level=50.0), levels={"rpm": 1.0}),
        ask(0, part("tpm", 100.0, 6000.0, last_level=-400.0), wait=5.0, levels={"rpm": 1.0, "tpm": -500.0}),
    ]),
    Case("nobody goes during a pause, and one goes first after it", [
        ask(0), refused(1, pause=10.0, wait=10.0), refused(2, member="b", wait=9.0),
        refused(3, pause=2.0, wait=8.0), refused(4, member="b", urgent=True, wait=7.0),
        ask(11, member="b"), refused(11.05, wait=0.15), ask(11.2), ask(11.2, member="b"),
    ]),
    Case("a pause has an end", [
        refused(0, pause=1e9, wait=120.0), refused(60, wait=60.0), ask(120),
    ]),
    Case("the corrections of an order that is not booked count", [
        ask(0, part(amount=50.0)), refused(0, part(correction=-30.0), pause=1.0, wait=1.0, levels={"rpm": 40.0}),
    ]),
    Case("a repeated order is answered as before, and charged nothing", [
        empty(0), ask(0, wait=1.0, number=7, member="b"), ask(0.25, wait=0.75, number=7, member="b"),
        ask(0.25, wait=1.75, number=8, member="b", levels={"rpm": -1.75}),
        refused(0.25, wait=0.1, number=7, member="b", levels={"rpm": -1.75}),
    ]),
    Case("a repeated order that was not booked is not booked", [
        refused(0, pause=5.0, wait=5.0, number=1), refused(1, pause=5.0, wait=4.0, number=1),
    ]),
    Case("processes that have asked in the last minute are counted", [
        ask(0, members=1), ask(1, member="b", members=2), ask(50, member="c", members=3),
        ask(60.5, member="c", members=2), ask(200, member="c", members=1),
        ask(200, number=1, member="a", members=2),
    ]),
    Case("operators pause everything, and lower limits", [
        ask(0), Want({"paused": True}), refused(1, wait=0.5), Want({"paused": False, "limits": {"rpm": 6.0}}),
        ask(2, limits={"rpm": 6.0}, levels={"rpm": 5.0}), ask(2, part(amount=5.0)), ask(2, wait=10.0),
        Want({"limits": {"rpm": 600.0}}), ask(100, limits={"rpm": 60.0}),
        Want({"limits": {"rpm": None}}), ask(100, limits={"rpm": 60.0}),
    ]),
    Case("a clock that goes back lets no time pass", [
        empty(0), ask(0, wait=1.0), ask(-3600, wait=2.0, levels={"rpm": -2.0}), ask(-3599, wait=2.0),
        refused(-3599, pause=10.0, wait=10.0, member="b"), refused(-7200, wait=10.0, member="b"),
    ]),
    Case("a clock that goes far ahead fills, and no more", [
        empty(0), ask(3600, levels={"rpm": 59.0}), ask(3600 * 24 * 365 * 40, levels={"rpm": 59.0}),
    ]),
    Case("spoilt levels are read as nothing left", [
        ask(0), Spoil("rpm", "nan {now} nan {now} nan 60 0 60 {now}"), ask(0, wait=1.0, levels={"rpm": -1.0}),
        Spoil("rpm", "inf {now} inf {now} inf 60 0 60 {now}"), ask(0, wait=2.0),
        Spoil("rpm", "some words"), ask(0, wait=3.0),
        Spoil("rpm", ""), ask(0, wait=4.0),
        Spoil("rpm", "5 nan 5 {now} 1e18 60 0 60 {now}"), ask(0, wait=5.0),
    ]),
    Case("spoilt levels out of bounds are drawn to them", [
        ask(0), Spoil("rpm", "1e300 {now} 1e300 {now} 1e300 60 0 60 {now}"), ask(0, levels={"rpm": 59.0}),
        Spoil("rpm", "-1e300 {now} -1e300 {now} -1e300 60 0 60 {now}"), ask(0, wait=121.0),
    ]),
    Case("spoilt moments neither admit all nor block for ever", [
        empty(0), Spoil("rpm", "0 1e300 0 1e300 1e18 60 0 60 1e300"), ask(0, wait=1.0),
        Spoil("pool", "{now} 1e300 1e300 0"), refused(1, wait=120.0), refused(120, wait=1.0),
        Spoil("pool", "1e300 {now} {now} 0"), ask(121, member="b"),
        Spoil("pool", "nan nan nan nan"), ask(122, member="b"), Spoil("pool", ""), ask(123, member="b"),
    ]),
    Case("spoilt limits are not believed", [
        ask(0, part(limit=60.0, configured=False)), Spoil("rpm", "9 {now} 9 {now} 1e18 60 nan -5 {now}"),
        ask(0, part(limit=60.0, configured=False), limits={"rpm": 60.0}, levels={"rpm": 8.0}),
        Spoil("rpm", "9 {now} 9 {now} 1e18 0 1e300 inf {now}"), ask(0, part(limit=None), levels={}),
    ]),
    Case("orders that ask for what cannot be are no loophole", [
        ask(0, part(amount=float("nan")), levels={"rpm": 0.0}), ask(0, part(amount=float("inf")), wait=60.0),
        ask(60, part(amount=-5.0), wait=60.0),
        ask(120, part(correction=float("nan"), held_back=float("inf")), wait=1.0),
    ]),
]  # fmt: skip


def play(case: Case, book: Callable[[float, Order], Answer], spoil: Callable[[str, str], Any], want: Any) -> None:
    """Go through a case; `want` takes what an operator changes."""
    number = 100
    for place, step in enumerate(case.steps):
        if isinstance(step, Spoil):
            spoil(step.line, step.text.replace("{now}", repr(NOON)))
        elif isinstance(step, Want):
            want(**step.change)
        else:
            number += 1
            order = Order(step.member, step.number or number, step.parts, step.urgent, step.pause)
            compare(f"{case.name}, step {place}", step, book(NOON + step.at, order))


def compare(where: str, step: Step, answer: Answer) -> None:
    """Whether an answer is what the table says, but for the rounding of a clock that counts in millions."""
    levels = {each.dimension: each.level for each in answer.limits}
    assert (answer.booked, close(answer.wait, step.wait)) == (step.booked, True), (where, answer)
    if step.levels is not None:
        assert levels.keys() == step.levels.keys(), (where, answer)
        assert all(close(levels[name], level, 1e-3) for name, level in step.levels.items()), (where, answer)
    if step.limits is not None:
        assert {each.dimension: each.limit for each in answer.limits} == step.limits, (where, answer)
    if step.members is not None:
        assert answer.members == step.members, (where, answer)


def close(one: float, other: float, within: float = 1e-5) -> bool:
    """Whether two numbers are one."""
    return abs(one - other) <= within
