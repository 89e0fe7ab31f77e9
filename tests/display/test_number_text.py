"""Numbers in a few characters: as the page of examples says, and never wrong by rounding."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimited_llm.display.number_text import amount, money, percent, span

SUFFIXES = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0"), (7, "7"), (0.5, "0.5"), (0.04, "0"), (9.96, "10"), (488, "488"), (999.4, "999"), (999.6, "1k"),
        (1_000, "1k"), (9_700, "9.7k"), (9_960, "10k"), (171_320, "171k"), (999_499, "999k"), (999_500, "1M"),
        (1_200_000, "1.2M"), (10_000_000, "10M"), (999_600_000, "1B"), (2.5e12, "2.5T"), (1e18, "1e18"),
        (1e300, "1e300"), (10**400, "inf"), (-12_000, "-12k"), (-0.01, "0"), (math.inf, "inf"), (math.nan, "?"),
    ],
)  # fmt: skip
def test_amounts_read_as_people_write_them(n: float, text: str) -> None:
    """Each of the examples, and each border at which rounding reaches the next unit."""
    assert amount(n) == text


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_an_amount_has_at_most_five_characters(n: float) -> None:
    """However large, so that a line of them has a known width."""
    assert len(amount(n)) <= 5


@given(st.floats(min_value=1, max_value=9e14))
def test_an_amount_is_near_its_number(n: float) -> None:
    """Rounded by at most half of its last digit: 5 % just above a unit, and never a unit off."""
    text = amount(n)
    factor = SUFFIXES.get(text[-1], 1.0)
    digits = float(text.rstrip("kMBT"))
    assert digits < 1000
    assert digits * factor == pytest.approx(n, rel=0.051)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"), (math.nan, "?"), (math.inf, "?"), (-math.inf, "?"), (-3, "0:00"), (0, "0:00"), (7.2, "0:07"),
        (59.6, "1:00"), (98, "1:38"), (3_599, "59:59"), (3_599.6, "1h00"), (4_260, "1h11"), (86_399, "1d 0h"),
        (3 * 86_400 + 4 * 3_600, "3d 4h"), (99 * 86_400 + 23.6 * 3_600, "100d"), (900 * 86_400, "900d"),
        (1_000 * 86_400, "2.7y"), (1e308, "3e300y"),
    ],
)  # fmt: skip
def test_spans_read_like_a_clock_then_like_a_calendar(seconds: float | None, text: str) -> None:
    """Each of the examples, and each border at which rounding reaches the next unit."""
    assert span(seconds) == text


@given(st.none() | st.floats())
def test_a_span_has_at_most_seven_characters(seconds: float | None) -> None:
    """Whatever it is asked to write."""
    assert 1 <= len(span(seconds)) <= 7


@pytest.mark.parametrize(
    ("dollars", "text"),
    [
        (None, "?"), (math.nan, "?"), (math.inf, "$inf"), (0, "$0"), (0.00001, "<$.0001"), (0.0004, "$0.0004"),
        (0.00456, "$0.005"), (0.0099, "$0.01"), (0.01, "$0.01"), (0.0949, "$0.09"), (0.5, "$0.50"), (9.994, "$9.99"),
        (9.996, "$10"), (18.2, "$18"), (999.4, "$999"), (999.6, "$1k"), (1_234, "$1.2k"), (59_000, "$59k"),
        (-0.09, "-$0.09"),
    ],
)  # fmt: skip
def test_money_shows_the_digits_that_count(dollars: float | None, text: str) -> None:
    """Each of the examples, and each border."""
    assert money(dollars) == text


@given(st.none() | st.floats(min_value=0))
def test_money_has_at_most_seven_characters(dollars: float | None) -> None:
    """However much, however little."""
    assert 1 <= len(money(dollars)) <= 7


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 2_000, "0%"), (1_204, 2_000, "60%"), (1_999, 2_000, "99%"), (2_000, 2_000, "100%"), (2_001, 2_000, "100%"),
        (-1, 10, "0%"), (0, 0, "?"), (1, 0, "?"), (1, math.nan, "?"), (math.nan, 1, "?"), (1, math.inf, "?"),
    ],
)  # fmt: skip
def test_a_percentage_is_rounded_down(part: float, whole: float, text: str) -> None:
    """100% is said when all of it is done, and not before."""
    assert percent(part, whole) == text
