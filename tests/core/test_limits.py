"""RateLimits: a value that is checked once and can be pasted back."""

import math

import pytest

from ratelimited_llm import BudgetExceeded, RateLimits
from ratelimited_llm.core.request import Cost

NAMES = ["rpm", "tpm", "rpd", "tpd", "itpm", "otpm", "max_concurrency", "min_interval", "burst"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -5, math.nan, math.inf])
def test_a_number_that_is_no_limit_is_refused_by_name(name: str, value: float) -> None:
    """0, negative numbers, NaN and infinity are refused, and the error says which limit and what None means."""
    with pytest.raises(ValueError, match=name):
        RateLimits(**{name: value})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["500", True, [1], 1j])
def test_what_is_no_number_is_a_type_error(name: str, value: object) -> None:
    """Strings, booleans and the like are refused: nobody means them."""
    with pytest.raises(TypeError, match=name):
        RateLimits(**{name: value})


@pytest.mark.parametrize("name", NAMES)
def test_none_and_minus_one_mean_no_such_limit(name: str) -> None:
    """-1 is what some dashboards show for unlimited, so it is read as None."""
    assert getattr(RateLimits(**{name: None}), name) is None
    assert getattr(RateLimits(**{name: -1}), name) is None


@pytest.mark.parametrize("name", ["burst", "max_concurrency"])
def test_counts_are_whole_numbers(name: str) -> None:
    """Half a request cannot be in flight."""
    with pytest.raises(ValueError, match="whole number"):
        RateLimits(**{name: 1.5})


def test_it_is_a_value_with_a_repr_to_paste_back() -> None:
    """Equal limits are equal, hashable, and their repr makes them again."""
    limits = RateLimits(rpm=500, tpm=30_000)
    assert limits == RateLimits(tpm=30_000, rpm=500)
    assert hash(limits) == hash(RateLimits(tpm=30_000, rpm=500))
    assert eval(repr(limits)) == limits
    assert limits.replace(rpm=None) == RateLimits(tpm=30_000)
    assert bool(limits)
    assert not RateLimits()


def test_long_names_are_read_and_one_limit_given_twice_is_an_error() -> None:
    """`max_requests_per_minute` is `rpm`; both at once would leave open which counts."""
    assert RateLimits.read({"max_requests_per_minute": 10, "max_tokens_per_minute": 20}) == RateLimits(rpm=10, tpm=20)
    with pytest.raises(TypeError, match="same limit"):
        RateLimits.read({"rpm": 10, "max_requests_per_minute": 20})


@pytest.mark.parametrize(
    ("name", "cost"),
    [("tpm", Cost(101, 60, 50, 10)), ("tpd", Cost(101, 60, 50, 10)), ("itpm", Cost(200, 150, 101, 49))],
)
def test_a_call_larger_than_a_whole_limit_is_refused_with_the_numbers(name: str, cost: Cost) -> None:
    """No waiting could ever let it go, so it is told at once."""
    with pytest.raises(BudgetExceeded) as told:
        RateLimits(**{name: 100}).check(cost)
    assert (told.value.dimension, told.value.limit, told.value.requested) == (name, 100, 101)


def test_a_call_that_just_fits_is_not_refused() -> None:
    """The whole limit may be asked for at once."""
    RateLimits(tpm=100, tpd=100, itpm=100).check(Cost(100, 100, 100, 0))
