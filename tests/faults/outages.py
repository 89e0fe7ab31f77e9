"""Whole outages, changing limits, lying waits and jumps of the clock in virtual time: minutes of trouble in a second.

    python tests/faults/outages.py --seeds 200

The real scheduler, limiter and retries are driven by `ratelimited_llm.testing.simulate`. Every run has a steady traffic
of calls, trouble between two moments, and peace afterwards. What must hold: every call ends; no more than 1.1 attempts
are made for each, beyond the retries that are always there; and within 10 seconds of the trouble's end the calls are
answered at full rate again.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass

from ratelimited_llm.core.feedback import Kind, Outcome
from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.core.request import QueuedRequest, State
from ratelimited_llm.core.retry import RetryBudget
from ratelimited_llm.simulator import Enforcement
from ratelimited_llm.testing import Run, call, simulate

__all__ = ["TROUBLES", "judge", "storm"]

BEGINS, ENDS = 30.0, 90.0  # a minute of trouble
FULL_RATE = 10.0  # seconds after it within which there is full rate again
ALL = 180.0
RPM = 600.0
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


def storm(trouble: Trouble, *, seed: int = 0, limits: RateLimits | None = None) -> tuple[Run, list[float], int]:
    """A run through that minute; answers it, when each call came, and how many attempts a limit had refused."""
    rng = random.Random(seed)
    arrivals = sorted(rng.uniform(0.0, ALL) for _ in range(int(ALL * RPM / 60.0 * 0.75)))
    refused = 0

    def faults(now: float, request: QueuedRequest, chance: float) -> Outcome | None:
        nonlocal refused
        if not BEGINS <= now < ENDS:
            return None
        outcome = trouble(now, request, chance)
        refused += outcome is not None and outcome.kind is Kind.LIMITED
        return outcome

    run = simulate(
        RateLimits(rpm=RPM) if limits is None else limits,
        [call(at=at) for at in arrivals],
        provider=Enforcement(rpm=RPM),
        latency=(0.2, 1.0),
        seed=seed,
        faults=faults,
        until=ALL + 300.0,
    )
    return run, arrivals, refused + run.refused


def judge(run: Run, arrivals: list[float], refused: int) -> Judged:
    """Say how it went."""
    wrong = []
    if run.lost:
        wrong.append(f"{run.lost} calls never ended")
    tries = len(run.sends) - refused
    most = (1.0 + RetryBudget().share) * len(arrivals) + RetryBudget().reserve
    if tries > most:
        wrong.append(f"{tries} attempts for {len(arrivals)} calls")
    full_after = _full_after(run)
    if full_after > FULL_RATE:
        wrong.append(f"full rate only after {full_after:.1f} s")
    late = [
        at for at, state in zip(arrivals, run.states, strict=True) if at > ENDS + FULL_RATE and state is not State.DONE
    ]
    if late:
        wrong.append(f"{len(late)} calls failed that came after it was over")
    return Judged(tries / len(arrivals), full_after, run.answered, tuple(wrong))


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
            found = [judge(*storm(trouble, seed=seed, limits=told)) for seed in range(options.seeds)]
            wrong = [f"seed {seed}: {', '.join(each.wrong)}" for seed, each in enumerate(found) if each.wrong]
            failed += len(wrong)
            attempts, after = max(each.attempts for each in found), max(each.full_after for each in found)
            print(f"{told!r:22} {name:34} attempts {attempts:.2f}  full after {after:4.1f} s  {wrong[:3] or 'good'}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
