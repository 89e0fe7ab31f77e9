"""A short rain of `campaign.py`, and the minutes of trouble of `outages.py` that take a second."""

from __future__ import annotations

import math
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest imports files without their directory
from campaign import MIDDLE, Round
from lies import LIES
from outages import RPM, TROUBLES, Storm, judge
from shifts import CHANGES, SLEEPS, changed, slept

from ratelimited_llm.core.feedback import ANSWERED, Feedback, Reading
from ratelimited_llm.core.limiter import Limiter
from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.core.request import Cost
from ratelimited_llm.providers import DIALECTS
from ratelimited_llm.providers.parsing import telling

posix = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="stops and forks as POSIX does")


@posix
@pytest.mark.timeout(90)  # some five seconds of work, on a machine that may be busy
def test_whatever_a_provider_does_every_call_ends_with_what_is_its_own(tmp_path):
    """100 calls in all ways, trouble in four of ten requests, and all that can happen to a process in the middle."""
    found = Round(tmp_path, seed=3, calls=100, middle=list(MIDDLE), quick=True).run()
    assert found.wrong == []
    assert found.answered > 30


LEARNED = ("unavailable", "refused without a word", "some of everything")  # all of them: `outages.py`


@pytest.mark.parametrize(
    ("name", "limits"),
    [*((name, RateLimits(rpm=RPM)) for name in TROUBLES), *((name, RateLimits()) for name in LEARNED)],
)
def test_after_a_minute_of_trouble_there_is_full_rate_within_ten_seconds(name, limits):
    """Every call has ended, and an outage made no storm at any moment."""
    assert judge(Storm(TROUBLES[name], seed=1, limits=limits)).wrong == ()


@pytest.mark.parametrize("name", CHANGES)
def test_a_limit_that_changes_is_followed_within_ten_seconds(name):
    """Down and up, as soon as answers tell it."""
    assert changed(CHANGES[name], told=False) == []


@pytest.mark.parametrize("name", [name for name in SLEEPS if "three hours" in name and "by name" not in name])
def test_after_a_sleep_there_is_full_rate_within_ten_seconds(name):
    """Whether the clock slept too, and whatever became of what was in flight."""
    assert slept(SLEEPS[name], told=False) == []


class Headers:
    """Headers as an HTTP client has them."""

    def __init__(self, pairs):
        self.raw = [(name.encode(), value.encode("latin-1")) for name, value in pairs]


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
@pytest.mark.parametrize("limits", [RateLimits(rpm=600, tpm=60_000), RateLimits()], ids=["told", "learned"])
def test_headers_that_cannot_be_true_hold_nobody_up(dialect, limits):
    """Whatever they are, the next calls wait no longer than a moment, and never for ever."""
    cost, waits = Cost(100, 80, 50, 30), {}
    for number, lie in enumerate(LIES):
        limiter, now = Limiter(limits), 1_000.0
        for key in range(20):
            wait = limiter.reserve(key, cost, now)
            waits[number, key] = wait
            now += min(wait, 5.0)
            if wait and limiter.reserve(key, cost, now):
                break
            limiter.observe(key, Feedback(ANSWERED, dialect.readings(telling(Headers(lie)))), now + 0.1)
            limiter.settle(key, None, now + 0.2)
            now += 0.3
    assert {place: wait for place, wait in waits.items() if not 0.0 <= wait < 2.0 or math.isnan(wait)} == {}


def test_a_limit_beyond_all_limits_is_none():
    """Taken for one, it would be blamed for refusals without a reason, measured by them, and hold all calls back."""
    limiter, cost = Limiter(RateLimits(rpm=60_000)), Cost(100, 80, 50, 30)
    limiter.reserve(1, cost, 0.0)
    limiter.observe(1, Feedback(ANSWERED, (Reading("tpm", 999_999_999_999.0, 999_999_999_999.0),)), 0.1)
    assert [each.dimension for each in limiter.survey(1.0).standings] == ["rpm"]
