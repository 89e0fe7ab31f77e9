"""Limits that change, and machines that sleep, in virtual time: what each comes to within ten seconds.

    python tests/faults/shifts.py --seeds 20

As in `outages.py` the real scheduler, limiter and retries are driven, here with more calls than the limit lets through
all the time, so that the rate at which they are let in says how much of the limit is used. A limit is halved, doubled,
lifted or cut to a tenth at the provider for a minute and comes back. A machine sleeps for a minute or for hours: either
its monotonic clock has slept too (Linux), and the provider's has gone on; or it has not, and everything that was due
meanwhile is overdue at once. What was in flight then is answered, refused or broken.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ratelimited_llm.core.feedback import Feedback, Kind, Outcome
from ratelimited_llm.core.limiter import Limiter
from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.core.request import QueuedRequest
from ratelimited_llm.core.retry import RetryPolicy
from ratelimited_llm.simulator import Enforcement
from ratelimited_llm.testing import Call, call, simulate
from ratelimited_llm.testing.simulation import Simulation

__all__ = ["CHANGES", "SLEEPS", "changed", "slept"]

RPM = 600.0
OFFERED = 2.2  # times as many calls come
BEGINS, ENDS = 60.0, 120.0  # when the limit is another one; or when the sleep begins
WITHIN = 10.0  # seconds after which the rate must be the full one again
LOOK = 20.0  # seconds over which it is looked at
FULL = 0.9
REFUSED = 120  # at most, of some 2,000 calls: a provider that lowers a limit refuses until that is known

# What the limit becomes, by name.
CHANGES: dict[str, float | None] = {
    "halved": RPM / 2, "a tenth": RPM / 10, "doubled": 2 * RPM, "lifted": None,
}  # fmt: skip


class _Provider(Enforcement):
    """Notes when it let somebody in, by the clock of whoever asks; its own may be ahead of that."""

    def __init__(self, ahead: Callable[[float], float] = lambda now: 0.0) -> None:
        super().__init__(rpm=RPM)
        self.let_in: list[float] = []
        self.turned_away = 0
        self.ahead = ahead

    def admit(self, now: float, **call: Any) -> Any:
        verdict = super().admit(now + self.ahead(now), **call)
        if verdict.admitted:
            self.let_in.append(now)
        self.turned_away += not verdict.admitted
        return verdict

    def settle(self, ticket: Any, now: float, **usage: Any) -> None:
        super().settle(ticket, now + self.ahead(now), **usage)

    def reading(self, now: float) -> dict[str, tuple[float, float, float]]:
        return super().reading(now + self.ahead(now))

    def rate(self, since: float) -> float:
        """Calls a minute that it let in during the seconds to look at."""
        return sum(since <= at < since + LOOK for at in self.let_in) / LOOK * 60.0


def _calls(begin: float, end: float) -> list[Call]:
    return [call(at=begin + index * 60.0 / RPM / OFFERED) for index in range(int((end - begin) / 60.0 * RPM * OFFERED))]


def changed(limit: float | None, told: bool, tells: str = "everything", seed: int = 0) -> list[str]:
    """A run in which the limit is another one for a minute; answers what is wrong."""
    provider, until = _Provider(), ENDS + WITHIN + LOOK
    simulate(
        RateLimits(rpm=RPM) if told else RateLimits(), _calls(0.0, until), provider=provider, tells=tells,
        latency=(0.2, 1.0), seed=seed, until=until,
        events=[
            (BEGINS, lambda each, now: each.change(now, rpm=limit)), (ENDS, lambda each, now: each.change(now, rpm=RPM))
        ],
    )  # fmt: skip
    wrong = []
    for name, since, there_is in (("during it", BEGINS, limit or RPM), ("after it", ENDS, RPM)):
        expected = min(there_is, RPM) if told else there_is
        rate = provider.rate(since + WITHIN)
        if rate < FULL * expected:
            wrong.append(f"{rate:.0f} calls a minute {name}, not {expected:.0f}")
    if provider.turned_away > REFUSED:
        wrong.append(f"{provider.turned_away} refusals")
    return wrong


# -- sleep ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sleep:
    """How a machine slept.

    Attributes:
        seconds: how long.
        frozen: whether its monotonic clock slept too.
        outcome: what becomes of what was in flight; None when it is answered.
    """

    seconds: float
    frozen: bool
    outcome: Outcome | None = None

    @property
    def over(self) -> float:
        """The moment of waking, by the machine's clock."""
        return BEGINS if self.frozen else BEGINS + self.seconds


SLEEPS: dict[str, Sleep] = {
    f"{length}, {clock}, {end}": Sleep(seconds, frozen, outcome)
    for length, seconds in (("a minute", 60.0), ("three hours", 10_800.0))
    for clock, frozen in (("the clock too", True), ("the clock not", False))
    for end, outcome in (
        ("answered", None), ("broken", Outcome(Kind.DROPPED)), ("refused", Outcome(Kind.LIMITED, 0.5, status=429)),
        ("refused by name", Outcome(Kind.LIMITED, 0.5, "rpm", RPM, RPM, 1.0, 429)),
    )
}  # fmt: skip


class _Asleep(Simulation):
    """The driver on a machine that sleeps: what was due meanwhile is overdue, if its clock tells it at all."""

    sleep: Sleep
    sent_at: dict[int, float]

    def at(self, moment: float, action: Callable[[float], None]) -> None:
        super().at(self.sleep.over if BEGINS < moment < self.sleep.over else moment, action)

    def _send(self, request: QueuedRequest, now: float) -> None:
        self.sent_at[request.sequence] = now
        super()._send(request, now)

    def _answered(self, request: QueuedRequest, answer: Feedback, now: float) -> None:
        outcome = self.sleep.outcome
        if outcome is not None and self.sent_at[request.sequence] < BEGINS and now >= self.sleep.over:
            self._failed(request, Feedback(outcome), now)
        else:
            super()._answered(request, answer, now)


def slept(sleep: Sleep, told: bool, seed: int = 0) -> list[str]:
    """A run on a machine that sleeps; answers what is wrong."""
    limits = RateLimits(rpm=RPM) if told else RateLimits()
    provider = _Provider(lambda now: sleep.seconds if sleep.frozen and now >= BEGINS else 0.0)
    until = sleep.over + WITHIN + LOOK
    calls = _calls(0.0, BEGINS) + _calls(sleep.over, until)
    run = _Asleep(
        calls, lambda: Limiter(limits), provider, "everything", (0.2, 1.0), (0.02, 0.02), seed, None, RetryPolicy(),
        None, None,
    )  # fmt: skip
    run.sleep, run.sent_at = sleep, {}
    run.run(until, ())
    rate = provider.rate(sleep.over + WITHIN)
    wrong = [f"{rate:.0f} calls a minute after it, not {RPM:.0f}"] if rate < FULL * RPM else []
    return wrong + ([f"{provider.turned_away} refusals"] if provider.turned_away > REFUSED else [])


def main() -> None:
    """Run everything with many seeds, print the worst, and end with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = range(parser.parse_args().seeds)
    failed = 0
    for told in (True, False):
        runs: dict[str, Callable[[int], list[str]]] = {
            f"{name}, tells {tells}": partial(changed, limit, told, tells)
            for name, limit in CHANGES.items()
            for tells in ("everything", "headers")
        }
        runs |= {name: partial(slept, sleep, told) for name, sleep in SLEEPS.items()}
        for name, run in runs.items():
            wrong = [f"seed {seed}: {', '.join(found)}" for seed in seeds if (found := run(seed))]
            failed += len(wrong)
            print(f"{'told' if told else 'learned':8} {name:46} {wrong[:3] or 'good'}", flush=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
