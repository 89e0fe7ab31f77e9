"""What share of each limit is used, and how many calls are refused, against providers of every kind.

    python tests/benchmarks/limits.py            # all scenarios, in virtual time: about a minute
    python tests/benchmarks/limits.py smooth     # those with this word in their name

"used" is the share of what the provider could have admitted to anybody. Nothing here takes part in the test suite;
`tests/core/test_policy.py` asserts the same targets on shorter runs.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from crowded import Crowded

from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.simulator.enforcement import Enforcement
from ratelimited_llm.testing import Call, Run, call, simulate

Scenario = tuple[str, Callable[[], tuple[Enforcement, Run, float]]]
NONE = RateLimits()
RPM = RateLimits(rpm=600)
TOLD = ("everything", "headers", "wait", "seconds", "nothing")


def heavy(count: int) -> list[Call]:
    """Prompts of which a few are very long."""
    chance = random.Random(1)
    return [call(prompt=min(20_000, int(chance.paretovariate(1.2) * 100)), output=100) for _ in range(count)]


def at(
    name: str, limits: RateLimits, calls: list[Call], provider: Callable[[], Enforcement], **options: Any
) -> Scenario:
    """One scenario; `until` is 300 s unless told."""
    options.setdefault("until", 300.0)

    def run() -> tuple[Enforcement, Run, float]:
        made = provider()
        return made, simulate(limits, calls, provider=made, **options), options["until"]

    return name, run


def scenarios() -> Iterator[Scenario]:
    many = [call()] * 7_000
    for rpm in (60, 600, 3_000):
        yield at(f"known rpm {rpm}", RateLimits(rpm=rpm), [call()] * 20_000, lambda rpm=rpm: Enforcement(rpm=rpm))
    yield at("known tpm, uniform", RateLimits(tpm=60_000), [call(prompt=300)] * 2_000, lambda: Enforcement(tpm=60_000))
    yield at("known tpm, heavy tail", RateLimits(tpm=60_000), heavy(2_000), lambda: Enforcement(tpm=60_000))
    yield at("known rpm and tpm, heavy tail", RateLimits(rpm=300, tpm=90_000), heavy(2_000),
             lambda: Enforcement(rpm=300, tpm=90_000))  # fmt: skip
    yield at("unknown, headers tell", NONE, many, lambda: Enforcement(rpm=600, tpm=90_000), tells="headers")
    for told in TOLD:
        for word, limits in (("known", RPM), ("unknown", NONE)):
            yield at(f"{word}, smooth 1 s, {told}", limits, many, lambda: Enforcement(rpm=600, smooth=1.0), tells=told)
            yield at(f"{word}, smooth 10 s, {told}", limits, many, lambda: Enforcement(rpm=600, smooth=10.0),
                     tells=told)  # fmt: skip
            yield at(f"{word}, minute windows, {told}", limits, many,
                     lambda: Enforcement(rpm=600, window="fixed", window_offset=17.0), tells=told)  # fmt: skip
            yield at(f"{word}, limit halved, {told}", limits, many, lambda: Enforcement(rpm=600), tells=told,
                     events=[(100.0, lambda provider, now: provider.change(now, rpm=300))])  # fmt: skip
        yield at(f"unknown, limit doubled, {told}", NONE, many, lambda: Enforcement(rpm=600), tells=told,
                 events=[(100.0, lambda provider, now: provider.change(now, rpm=1_200))])  # fmt: skip
        for share in (0.3, 0.6):
            yield at(f"somebody else spends {share}, {told}", RPM, many, lambda share=share: Crowded(share, 600.0),
                     tells=told, until=600.0)  # fmt: skip
    for latency in (0.5, 1.0, 5.0):
        for rule in ("reserve", "settle", "actual"):
            for charge in (rule, None):
                yield at(f"charge {rule}, client {charge}, {latency:g} s", RateLimits(tpm=240_000),
                         [call(prompt=200, output=200, max_tokens=4_096)] * 5_000,
                         lambda rule=rule: Enforcement(tpm=240_000, admission=rule),
                         charge=charge, latency=latency)  # fmt: skip
    for network in ((0.05, 0.1), (0.2, 0.3)):
        yield at(f"slow network {network}", RPM, many, lambda: Enforcement(rpm=600), network=network)
        yield at(f"slow network {network}, smooth 1 s", RPM, many, lambda: Enforcement(rpm=600, smooth=1.0),
                 network=network)  # fmt: skip
    for window in ("bucket", "fixed"):
        for told in ("wait", "seconds", "nothing"):
            yield at(f"120 calls, 30 in 6 s, {window}, {told}", NONE, [call()] * 120,
                     lambda window=window: Enforcement(rpm=300, smooth=6.0, window=window), tells=told,
                     network=(0.005, 0.005), latency=0.2, until=30.0)  # fmt: skip


def main(word: str = "") -> None:
    print(f"{'scenario':44s} {'used':>7s} {'refused':>7s} {'answered':>8s} {'ended':>7s} {'cpu':>5s}")
    for name, run in scenarios():
        if word not in name:
            continue
        began = time.perf_counter()
        provider, result, until = run()
        took = time.perf_counter() - began
        print(f"{name:44s} {provider.share_used(until):7.4f} {result.refused:7d} {result.answered:8d} "
              f"{result.ended_at:7.1f} {took:5.1f}")  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:2])
