"""The one line of a terminal, and the one at the end."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimited_llm.books.status import LimitStatus, PoolStatus, Status
from ratelimited_llm.display.line import line, summary

RPM = LimitStatus("rpm", used=488, limit=500, remaining=1, period=60, binds=True)
TPM = LimitStatus("tpm", used=171_320, limit=200_000, remaining=3_000, period=60)
RPD = LimitStatus("rpd", used=1_204, limit=10_000, remaining=8_700, period=86_400)
POOL = PoolStatus("api.example.com", "gpt-4.1-mini", 787, 9, 488.0, 171_320.0, limits=(RPM, TPM))
STATUS = Status(
    at=1_790_000_000.0, elapsed=150.0, total=2_000, submitted=2_000, answered=1_204, replayed=0, failed=0, cancelled=0,
    queued=787, in_flight=9, refused=0, retries=0, perhaps_paid=0, input_tokens=300_000, output_tokens=100_000,
    spent=0.09, expected=0.15, eta=98.0, latency=1.2, latency_p95=2.1, pools=(POOL,),
)  # fmt: skip


def status(**changes: Any) -> Status:
    return replace(STATUS, **changes)


def pool(**changes: Any) -> PoolStatus:
    return replace(POOL, **changes)


def test_the_line_reads_as_the_page_of_examples_says() -> None:
    """Count, rates against limits, open calls, 429s, money and the time that is left, in 79 columns."""
    text = line(STATUS)
    assert text == "1204/2000 60%  488/500 rpm*  171k/200k tpm  9 open  0x429  $0.09/0.15  ETA 1:38"
    assert len(text) == 79


def test_a_million_calls_are_counted_in_thousands() -> None:
    """The same width, whatever the size."""
    limits = (replace(RPM, used=9_700, limit=10_000), replace(TPM, used=3.4e6, limit=10e6))
    text = line(
        status(
            total=1_000_000, submitted=313_000, answered=312_480, in_flight=212, spent=18.3, expected=58.8, eta=4_260.0,
            pools=(pool(limits=limits),),
        )
    )  # fmt: skip
    assert text == "312k/1M 31%  9.7k/10k rpm*  3.4M/10M tpm  212 open  0x429  $18/59  ETA 1h11"


def test_unknown_limits_leave_just_the_rate() -> None:
    """Before the first answer there is nothing to measure a rate against."""
    text = line(status(pools=(pool(limits=()),), eta=None, spent=None, expected=None))
    assert text == "1204/2000 60%  488 rpm  171k tpm  9 open  0x429"


def test_separate_token_limits_take_the_place_of_the_token_rate() -> None:
    """A provider that counts input and output apart shows both; a limit that is unknown shows its rate."""
    limits = (replace(TPM, dimension="itpm", binds=True), replace(TPM, dimension="otpm", used=8_000, limit=16_000))
    text = line(status(pools=(pool(limits=limits),), eta=None, spent=None))
    assert text == "1204/2000 60%  488 rpm  171k/200k itpm*  8k/16k otpm  9 open  0x429"


def test_a_pause_says_how_long_and_that_nothing_is_lost() -> None:
    """The refused calls were given back; in a full line it is said shorter, and the 429s stay."""
    paused = status(pools=(pool(paused=11.2),), refused=3)
    assert "  paused 12 s (429, 3 given back)  " in line(paused, width=110)
    assert "  3x429 paused 12 s  " in line(paused)
    assert "paused 3:20 (" in line(status(pools=(pool(paused=200.0),), refused=3), width=110)


def test_what_became_of_calls_is_shown_when_there_are_such() -> None:
    """Reused, failed and cancelled calls are counted; nothing is said of none."""
    text = line(status(replayed=1_240, failed=3, cancelled=2, answered=100), width=120)
    assert "1345/2000 67%  1.2k reused  3 failed  2 cancelled  488/500" in text
    assert "reused" not in line(STATUS, width=120)


def test_of_several_pools_the_busiest_is_shown_and_the_others_counted() -> None:
    """Pools without an open call are not counted."""
    idle = pool(queued=0, in_flight=0)
    text = line(status(pools=(POOL, pool(queued=1), pool(queued=0), idle)), width=120)
    assert "488/500 rpm*  171k/200k tpm  (+2)  9 open" in text
    assert "(+" not in line(status(pools=(POOL, idle)), width=120)


def test_daily_limits_give_way_first_unless_they_bind() -> None:
    """A day is far away, until it is what the calls wait for."""
    assert "rpd" in line(status(pools=(pool(limits=(RPM, TPM, RPD)),)), width=100)
    assert line(status(pools=(pool(limits=(RPM, TPM, RPD)),))) == line(STATUS)
    daily = (replace(RPM, binds=False), TPM, replace(RPD, binds=True))
    text = line(status(pools=(pool(limits=daily),)))
    assert "1.2k/10k rpd*" in text
    assert "tpm" not in text


def test_parts_are_left_out_in_the_stated_order() -> None:
    """The narrower, the less is told; the count and the 429s are told as long as there is room for them."""
    told = [line(STATUS, width=width) for width in (78, 60, 50, 48, 37, 33, 20, 16, 10, 8, 6)]
    assert told == [
        "1204/2000 60%  488/500 rpm*  9 open  0x429  $0.09/0.15  ETA 1:38",
        "1204/2000 60%  488/500 rpm*  0x429  $0.09/0.15  ETA 1:38",
        "1204/2000 60%  488/500 rpm*  0x429  ETA 1:38",
        "1204/2000 60%  488/500 rpm*  0x429  ETA 1:38",
        "1204/2000  0x429  ETA 1:38",
        "1204/2000  0x429  ETA 1:38",
        "1204/2000  0x429",
        "1204/2000  0x429",
        "1.2k/2k",
        "1.2k/2k",
        "",
    ]


def test_a_run_that_is_over_has_no_time_left_and_nothing_expected() -> None:
    """All of it is done, and paid."""
    assert line(status(answered=2_000, queued=0, in_flight=0, eta=0.0, spent=0.15, pools=())) == (
        "2000/2000 100%  0 open  0x429  $0.15"
    )


def test_nothing_is_said_to_be_so_before_the_first_call() -> None:
    """An empty run is no division by zero."""
    nothing = Status(0.0, 0.0, *[0] * 13, None, None, None, None, None)
    assert line(nothing) == "no calls yet"
    assert summary(nothing) == "0 answered, 0 failed, 0 refused, in 0:00"


COUNTS = st.integers(min_value=0, max_value=10**9)
ANY = st.floats(min_value=0) | st.just(math.nan)
MAYBE = st.none() | ANY
LIMITS = st.builds(
    LimitStatus, st.sampled_from(["rpm", "tpm", "rpd", "itpm"]), ANY, ANY, ANY, st.sampled_from([60.0, 86_400.0]),
    st.booleans(),
)  # fmt: skip
POOLS = st.builds(
    PoolStatus, st.just("host"), st.just("m"), COUNTS, COUNTS, ANY, ANY, st.lists(LIMITS, max_size=4).map(tuple),
    MAYBE, st.floats(min_value=0, max_value=1e6),
)  # fmt: skip
STATES = st.builds(
    Status, ANY, ANY, *[COUNTS] * 13, MAYBE, MAYBE, MAYBE, MAYBE, MAYBE, st.lists(POOLS, max_size=3).map(tuple)
)


@given(STATES, st.integers(min_value=0, max_value=120))
def test_any_state_fits_any_width(state: Status, width: int) -> None:
    """Never wider than asked for, plain ASCII, one line; and the 429s are there if there is room for anything else."""
    text = line(state, width=width)
    assert len(text) <= width
    assert text.isascii()
    assert text.isprintable()
    if width >= 40 and state.submitted:
        assert "429" in text
    assert summary(state).isascii()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"answered": 757, "replayed": 1_240, "failed": 3, "queued": 0, "in_flight": 0, "elapsed": 242.0,
             "input_tokens": 1_000_000, "output_tokens": 200_000, "spent": 0.15},
            "1,997 answered (1,240 reused), 3 failed, 0 refused, in 4:02; 1.2M tokens, $0.15",
        ),
        (
            {"answered": 812, "cancelled": 1_180, "refused": 5, "spent": None},
            "812 of 2,000 answered, 0 failed, 1,180 cancelled, 8 open, 5 refused, in 2:30; 400k tokens",
        ),
        (
            {"answered": 2_000, "perhaps_paid": 8, "input_tokens": 0, "output_tokens": 0},
            "2,000 answered, 0 failed, 0 refused, 8 perhaps paid twice, in 2:30; $0.09",
        ),
    ],
)  # fmt: skip
def test_the_summary_says_how_it_ended(changes: dict[str, Any], text: str) -> None:
    """How many were answered and from where, what was lost and refused, how long it took, what it cost."""
    assert summary(status(**changes)) == text
