"""Whole outages, refusals and lying waits in virtual time: 2,000 calls and a minute of trouble in half a second.

    python tests/faults/outages.py --seeds 200

The real scheduler, limiter and retries are driven by `ratelimited_llm.testing.simulate`. Every run has a steady traffic
of calls, trouble between two moments, and peace afterwards. What must hold: every call ends; at no moment were more
than 1.1 attempts made for each, beyond the retries that are always there; and within 10 seconds of the trouble's end
the calls are answered at full rate again. Limits that change, and machines that sleep, are in `shifts.py`.
"""

from __future__ import annotations

import argparse
import random
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from ratelimited_llm.core.feedback import Kind, Outcome
from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.core.request import QueuedRequest, State
from ratelimited_llm.core.retry import RetryBudget
from ratelimited_llm.simulator import Enforcement
from ratelimited_llm.testing import Run, call, simulate

__all__ = ["TROUBLES", "Storm", "judge"]

BEGINS, ENDS = 30.0, 90.0  # a minute of trouble
FULL_RATE = 10.0  # seconds after it within which there is full rate again
ALL = 180.0
ON_ITS_WAY = 1.0  # seconds: a call earns its share of a retry when it leaves, and is seen when it arrives
RPM = 900.0  # of which three quarters are used: 2,025 calls
FULL = 0.9  # of the traffic: what counts as full rate, since a second of it has some jitter

Trouble = Callable[[float, QueuedRequest, float], "Outcome | None"]


def _always(outcome: Outcome) -> Trouble:
    return lambda now, request, chance: outcome


def _some(share: float, *outcomes: Outcome) -> Trouble:
    def strikes(now: float, request: QueuedRequest, chance: float) -> Outcome | None:
        if chance >= share:
            return None
        return outcomes[int(chance / share * len(outcomes)) % len(outcomes)]

    return strikes


DROPPED, UNAVAILABLE, OVERLOADED = (
    Outcome(Kind.DROPPED),
    Outcome(Kind.OVERLOADED, status=503),
    Outcome(Kind.OVERLOADED, status=529),
)
# What happens to the requests of that minute, by name.
TROUBLES: dict[str, Trouble] = {
    "connections break": _always(DROPPED),
    "unavailable": _always(UNAVAILABLE),
    "overloaded, with a wait": _always(Outcome(Kind.OVERLOADED, retry_after=2.0, status=529)),
    "refused without a word": _always(Outcome(Kind.LIMITED, status=429)),
    "refused for a second": _always(Outcome(Kind.LIMITED, retry_after=1.0, status=429)),
    "refused for as good as nothing": _always(Outcome(Kind.LIMITED, retry_after=1e-9, status=429)),
    "half of it breaks": _some(0.5, DROPPED, UNAVAILABLE, OVERLOADED),
    "some of everything": _some(0.4, DROPPED, UNAVAILABLE, Outcome(Kind.LIMITED, retry_after=0.02, status=429)),
    "a tenth is refused for no reason": _some(0.1, Outcome(Kind.LIMITED, retry_after=0.05, status=429)),
    "numbers that cannot be": _some(
        0.2,
        Outcome(Kind.LIMITED, retry_after=0.01, dimension="rpm", limit=1e13, used=-5.0, requested=0.0, status=429),
        Outcome(Kind.LIMITED, retry_after=0.01, dimension="tpm", limit=0.0, used=1e300, requested=1e300, status=429),
        Outcome(Kind.LIMITED, retry_after=0.01, dimension="nonsense", limit=5.0, used=5.0, requested=1.0, status=429),
    ),
}


@dataclass(frozen=True)
class Judged:
    """What one run came to: attempts beyond refusals for each call, seconds until full rate, and what is wrong."""

    attempts: float
    full_after: float
    answered: int
    wrong: tuple[str, ...]


class Storm:
    """A run through that minute.

    Args:
        trouble: what happens to requests in it.
        seed: of everything.
        limits: what the client is told about its limits; None for what the provider has.

    Attributes:
        arrivals: when each call comes.
        firsts, retries: when requests were at the provider, for the first time or after a failure. Those that come
            again since a limit had refused them are in neither.
        run: what became of the calls.
    """

    def __init__(self, trouble: Trouble, *, seed: int = 0, limits: RateLimits | None = None) -> None:
        rng = random.Random(seed)
        self.arrivals = sorted(rng.uniform(0.0, ALL) for _ in range(int(ALL * RPM / 60.0 * 0.75)))
        self.firsts: list[float] = []
        self.retries: list[float] = []
        self._trouble = trouble
        self._last: dict[int, Outcome | None] = {}  # what happened to each call; None when the provider had the say
        self.run = simulate(
            RateLimits(rpm=RPM) if limits is None else limits,
            [call(at=at) for at in self.arrivals],
            provider=Enforcement(rpm=RPM),
            latency=(0.2, 1.0),
            seed=seed,
            faults=self._strikes,
            until=ALL + 300.0,
        )

    def _strikes(self, now: float, request: QueuedRequest, chance: float) -> Outcome | None:
        last = self._last.get(request.sequence)
        if request.sequence not in self._last:
            self.firsts.append(now)
        elif last is not None and last.kind is not Kind.LIMITED:
            self.retries.append(now)
        outcome = self._trouble(now, request, chance) if BEGINS <= now < ENDS else None
        self._last[request.sequence] = outcome
        return outcome

    def most_at_once(self) -> float:
        """Retries beyond their share of the calls, counted from the beginning of the trouble, at the worst moment."""
        worst = 0.0
        for number, moment in enumerate(self.retries, 1):
            firsts = bisect_right(self.firsts, moment + ON_ITS_WAY) - bisect_left(self.firsts, BEGINS)
            worst = max(worst, number - RetryBudget().share * firsts)
        return worst


def judge(storm: Storm) -> Judged:
    """Say how it went."""
    run, wrong = storm.run, []
    if run.lost:
        wrong.append(f"{run.lost} calls never ended")
    if storm.most_at_once() > RetryBudget().reserve + 1.0:
        wrong.append(f"{storm.most_at_once():.0f} retries more than their share")
    full_after = _full_after(run)
    if full_after > FULL_RATE:
        wrong.append(f"full rate only after {full_after:.1f} s")
    late = [
        at
        for at, state in zip(storm.arrivals, run.states, strict=True)
        if at > ENDS + FULL_RATE and state is not State.DONE
    ]
    if late:
        wrong.append(f"{len(late)} calls failed that came after it was over")
    attempts = (len(storm.firsts) + len(storm.retries)) / len(storm.arrivals)
    return Judged(attempts, full_after, run.answered, tuple(wrong))


def _full_after(run: Run) -> float:
    """Seconds from the end of the trouble until a second in which as much is sent as comes."""
    usual = RPM / 60.0 * 0.75
    second = 0
    while ENDS + second < ALL - 3.0:
        begins = ENDS + second
        sent = sum(begins <= at < begins + 3.0 for at, _ in run.sends) / 3.0
        if sent >= FULL * usual:
            return float(second)
        second += 1
    return float(second)


def main() -> None:
    """Run every trouble with many seeds, print the worst of each, and end with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    failed = 0
    for told in (RateLimits(rpm=RPM), RateLimits()):
        for name, trouble in TROUBLES.items():
            found = [judge(Storm(trouble, seed=seed, limits=told)) for seed in range(options.seeds)]
            wrong = [f"seed {seed}: {', '.join(each.wrong)}" for seed, each in enumerate(found) if each.wrong]
            failed += len(wrong)
            attempts, after = max(each.attempts for each in found), max(each.full_after for each in found)
            print(f"{told!r:22} {name:34} attempts {attempts:.2f}  full after {after:4.1f} s  {wrong[:3] or 'good'}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
