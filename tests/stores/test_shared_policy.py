"""What eight processes reach together on one shared limit, in virtual time: all of it, evenly, and nothing refused."""

from __future__ import annotations

import random
from typing import Any

import pytest
from processes import OneProcess, together

from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.core.request import State
from ratelimited_llm.simulator import Enforcement
from ratelimited_llm.testing import Call, Run, call

EIGHT = 8
UNTIL = 60.0


def saturate(
    limits: RateLimits, provider: Any, calls: list[Call] | None = None, **options: Any
) -> tuple[float, list[int], list[Run], list[OneProcess]]:
    """Ask for more than there is: the share used, what each process sent after the first burst, and the runs."""
    traffic = [calls or [call()] * 170] * EIGHT
    runs, processes, _ = together(limits, traffic, provider=provider, until=UNTIL, **options)
    sent = [sum(20.0 <= moment < UNTIL for moment, _ in run.sends) for run in runs]
    return provider.share_used(UNTIL), sent, runs, processes


def even(sent: list[int], within: float) -> bool:
    """Whether everybody had its part, but for so much of it."""
    mean = sum(sent) / len(sent)
    return all(abs(each - mean) <= within * mean for each in sent)


@pytest.mark.parametrize("known", [True, False], ids=["stated", "learned"])
def test_a_request_limit_is_used_up_evenly_without_a_refusal(known: bool) -> None:
    """0.99 of it; one question for each reservation, and one more for each process."""
    provider = Enforcement(rpm=600)
    used, sent, _, processes = saturate(RateLimits(rpm=600 if known else None), provider)
    assert (used >= 0.99, provider.refused, even(sent, 0.05)) == (True, 0, True)
    trips, reserved = sum(each.trips for each in processes), sum(each.reserved for each in processes)
    assert trips <= reserved + 4 * EIGHT


@pytest.mark.parametrize("charge", ["reserve", "settle", "actual"])
def test_token_limits_are_used_up_evenly_under_every_charging_rule(charge: str) -> None:
    """Where most of what is reserved comes back, too: 0.97 of it then."""
    given = [call(prompt=random.Random(n).choice((50, 100, 250)), output=50, max_tokens=200) for n in range(170)]
    rules: dict[str, Any] = {"itpm": 60_000, "otpm": 30_000} if charge == "actual" else {"tpm": 90_000}
    provider = Enforcement(admission=charge, **rules)
    used, sent, _, _ = saturate(RateLimits(**rules), provider, given, charge=charge)
    assert (used >= 0.97, provider.refused, even(sent, 0.15)) == (True, 0, True)


def test_what_idle_processes_do_not_use_is_used_by_the_others() -> None:
    """Two that are busy have all of it, and six that ask now and then are served at once."""
    provider = Enforcement(rpm=600)
    traffic = [[call()] * 600] * 2 + [[call(at=5.0 * n) for n in range(1, 9)]] * 6
    runs, _, _ = together(RateLimits(rpm=600), traffic, provider=provider, until=UNTIL)
    assert (provider.share_used(UNTIL) >= 0.99, provider.refused) == (True, 0)
    waits = [run.started_at[n] - 5.0 * (n + 1) for run in runs[2:] for n in range(8)]
    assert max(waits) < 1.0


def test_a_high_call_waits_no_longer_than_for_one_booking_of_each_process() -> None:
    """While all eight have hundreds of low ones waiting."""
    low, high = [call(priority="low")] * 170, [call(at=20.0 + 3.0 * n, priority="high") for n in range(12)]
    provider = Enforcement(rpm=600)
    runs, _, _ = together(RateLimits(rpm=600), [low + high, *[low] * 7], provider=provider, until=UNTIL)
    waits = [runs[0].started_at[170 + n] - high[n].at for n in range(12)]
    assert max(waits) <= EIGHT / 10.0 + 0.2
    assert provider.refused == 0


def test_a_stranger_on_the_same_key_loses_nobody_a_call() -> None:
    """It takes a third of the limit and shares nothing: what is left is used, and refusals are waited out together."""
    provider = Enforcement(rpm=600)
    stranger = [(0.3 * n, lambda it, now: it.admit(now, reserved=1, input_tokens=1)) for n in range(200)]
    runs, _, _ = together(RateLimits(), [[call()] * 120] * EIGHT, provider=provider, until=UNTIL, events=stranger)
    assert provider.share_used(UNTIL) >= 0.95
    assert sum(run.refused for run in runs) <= 4 * UNTIL
    assert sum(run.states.count(State.FAILED) for run in runs) == 0
