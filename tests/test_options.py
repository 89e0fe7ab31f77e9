"""What users may say about limits and calls, and what they hear when it makes no sense."""

import math

import pytest

from ratelimited_llm import Priority, RateLimits
from ratelimited_llm.options import CallOptions, disabled, limits_from_environment, parse_amount, split_limits


@pytest.mark.parametrize(
    ("given", "rank"),
    [
        ("high", 1),
        ("HIGH", 1),
        ("critical", 0),
        ("normal", 5),
        ("low", 8),
        ("background", 10),
        (Priority.LOW, 8),
        (3, 3),
    ],
)
def test_a_priority_is_a_name_a_member_or_a_number(given: object, rank: int) -> None:
    """People write it in all these ways."""
    assert CallOptions(priority=given).rank == rank  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["urgent", "", 11, -1, 2.5, True, None, [1]])
def test_an_unknown_priority_names_the_known_ones(given: object) -> None:
    """The error is a list of what to write instead."""
    with pytest.raises(ValueError, match='"background"'):
        CallOptions(priority=given)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["deadline", "max_wait"])
@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (math.nan, ValueError), ("5", TypeError)]
)
def test_a_deadline_is_a_number_of_seconds_above_zero(name: str, value: object, error: type[Exception]) -> None:
    """A call that may not live at all is a mistake."""
    with pytest.raises(error, match=name):
        CallOptions(**{name: value})  # type: ignore[arg-type]


def test_an_unknown_mode_or_a_tenant_that_is_no_text_is_refused() -> None:
    """Both are told with what was given."""
    with pytest.raises(ValueError, match="'async'"):
        CallOptions(mode="async")
    with pytest.raises(TypeError, match="tenant"):
        CallOptions(tenant=7)  # type: ignore[arg-type]


def test_replace_keeps_what_is_not_named() -> None:
    """None means "as it was", since with_options passes what the user left out."""
    options = CallOptions(priority="low", tenant="acme", deadline=5)
    assert options.replace(priority="high", tenant=None) == CallOptions(priority="high", tenant="acme", deadline=5)
    assert options.allowed_wait == 5
    assert options.replace(max_wait=2).allowed_wait == 2
    assert CallOptions().allowed_wait is None


def test_limits_given_by_name_go_before_those_given_as_a_value() -> None:
    """`OpenAI(limits=team, rpm=10)` is the team's limits with another rpm."""
    assert split_limits(RateLimits(rpm=500, tpm=9), {"rpm": 10}) == RateLimits(rpm=10, tpm=9)


def test_a_name_that_is_no_limit_is_told_with_the_ones_that_are() -> None:
    """A typo does not silently mean "no limit"."""
    with pytest.raises(TypeError, match=r"'rmp'.*rpm"):
        split_limits(None, {"rmp": 10})
    with pytest.raises(TypeError, match="RateLimits"):
        split_limits({"rpm": 10}, {})  # type: ignore[arg-type]


def test_the_switch_of_the_environment_understands_no(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {}
    for text in ("", "0", "false", "OFF", "no", "1", "true", "on"):
        monkeypatch.setenv("RATELIMITED_LLM_DISABLE", text)
        told[text] = disabled()
    assert [text for text, is_off in told.items() if is_off] == ["1", "true", "on"]


def test_the_environment_states_limits() -> None:
    """RATELIMITED_LLM_RPM and its kin are read as people write them."""
    assert limits_from_environment({"RATELIMITED_LLM_RPM": "10k", "RATELIMITED_LLM_TPM": "1.5M"}) == {
        "rpm": 10_000,
        "tpm": 1_500_000,
    }
    assert limits_from_environment({"RATELIMITED_LLM_RPM": ""}) == {}
    with pytest.raises(ValueError, match="RATELIMITED_LLM_TPM"):
        limits_from_environment({"RATELIMITED_LLM_TPM": "many"})


@pytest.mark.parametrize(("text", "value"), [("500", 500), ("30_000", 30_000), ("30,000", 30_000), (" 2m ", 2e6)])
def test_amounts_are_read_as_people_write_them(text: str, value: float) -> None:
    """With separators and with k and M."""
    assert parse_amount(text, "x") == value
