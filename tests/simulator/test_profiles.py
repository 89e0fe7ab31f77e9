"""How providers speak: header forms and error texts, against the forms that were captured from the real ones."""

from __future__ import annotations

import pytest

from ratelimited_llm.simulator import PROFILES, Enforcement, Verdict
from ratelimited_llm.simulator.wire import go_duration, rfc3339

RPM = Verdict(False, "rpm", 3, 3, 1, 20.0)
TPM = Verdict(False, "tpm", 30_000, 26_713, 7_669, 8.764)
LARGE = Verdict(False, "tpm", 30_000, 0, 342_389, None, too_large=True)


def told(provider: str, readings: dict[str, tuple[float, float, float]], **options: object) -> dict[str, str]:
    wanted = {"wall": 1_740_435_946.2, "stream": False, "used": 0} | options
    return dict(PROFILES[provider].limits(readings, **wanted))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.012, "12ms"), (0.12, "120ms"), (1, "1s"), (7.66, "7.66s"), (59.9999, "59.999s"), (60, "1m0s"),
        (179.56, "2m59.56s"), (360, "6m0s"), (432, "7m12s"), (86_400, "24h0m0s"), (7384.5, "2h3m4.5s"),
    ],
)  # fmt: skip
def test_durations_are_written_as_go_does(seconds, text):
    """Each captured form comes out of its number of seconds."""
    assert go_duration(seconds) == text


def test_durations_in_refusals_are_rounded_up():
    """A wait that was rounded down would be answered with another refusal."""
    assert go_duration(8.7640001, up=True) == "8.765s"
    assert go_duration(16.239999999, step=1e-9, up=True) == "16.239999999s"


def test_moments_are_written_in_utc():
    """Anthropic's resets are RFC 3339, in whole seconds rounded up."""
    assert rfc3339(1_740_435_946.2) == "2025-02-24T22:25:47Z"


def test_openai_headers_after_one_call():
    """24 of 160,000 tokens and 1 of 5,000 requests give the resets that were captured."""
    provider = Enforcement(rpm=5000, tpm=160_000)
    provider.admit(0.0, reserved=24, input_tokens=24)
    assert told("openai", provider.reading(0.0)) == {
        "x-ratelimit-limit-requests": "5000",
        "x-ratelimit-remaining-requests": "4999",
        "x-ratelimit-reset-requests": "12ms",
        "x-ratelimit-limit-tokens": "160000",
        "x-ratelimit-remaining-tokens": "159976",
        "x-ratelimit-reset-tokens": "9ms",
    }


def test_openai_refusals_carry_their_numbers():
    """Type, code, numbers and wait are where the real body has them."""
    problem = PROFILES["openai"].refusal(TPM, "gpt-x")
    error = problem.body["error"]
    assert problem.status == 429
    assert problem.headers == [("retry-after", "9")]
    assert (error["type"], error["code"]) == ("tokens", "rate_limit_exceeded")
    assert (
        "on tokens per min (TPM): Limit 30000, Used 26713, Requested 7669. Please try again in 8.764s."
        in (error["message"])
    )
    assert (
        "(RPM): Limit 3, Used 3, Requested 1. Please try again in 20s."
        in (PROFILES["openai"].refusal(RPM, "m").body["error"]["message"])
    )


def test_too_large_is_never_to_be_retried():
    """OpenAI says it with a 429, Groq with a 413, both with x-should-retry: false and no wait."""
    for provider, status in (("openai", 429), ("groq", 413)):
        problem = PROFILES[provider].refusal(LARGE, "m")
        assert (problem.status, problem.headers) == (status, [("x-should-retry", "false")])
        assert "Request too large" in problem.body["error"]["message"]
        assert "Limit 30000, Requested 342389" in problem.body["error"]["message"]


def test_groq_tells_the_day_and_never_the_rpm():
    """Request headers are the day's, token headers the minute's; the binding RPM is in the refusal only."""
    provider = Enforcement(rpm=30, rpd=14_400, tpm=18_000)
    provider.admit(0.0, reserved=2298, input_tokens=10)
    headers = told("groq", provider.reading(0.0))
    assert headers["x-ratelimit-limit-requests"] == "14400"
    assert headers["x-ratelimit-reset-requests"] == "6s"
    assert headers["x-ratelimit-reset-tokens"] == "7.66s"
    text = PROFILES["groq"].refusal(Verdict(False, "rpm", 30, 30, 1, 2.0), "m").body["error"]["message"]
    assert "requests per minute (RPM): Limit 30, Used 30, Requested 1. Please try again in 2s." in text
    assert text.endswith("Upgrade to Dev Tier today at https://console.groq.com/settings/billing")


def test_anthropic_rounds_tokens_and_sums_both_kinds():
    """Remainders are in thousands, resets moments, and tokens-* is input plus output."""
    provider = Enforcement(rpm=50, itpm=80_000, otpm=16_000, admission="actual")
    provider.admit(0.0, reserved=0, input_tokens=1400)
    headers = told("anthropic", provider.reading(0.0))
    assert headers["anthropic-ratelimit-input-tokens-remaining"] == "79000"
    assert headers["anthropic-ratelimit-tokens-limit"] == "96000"
    assert headers["anthropic-ratelimit-requests-remaining"] == "49"
    assert headers["anthropic-ratelimit-requests-reset"] == "2025-02-24T22:25:48Z"


def test_anthropic_refusals_name_the_limit():
    """The limit is written with separators, the error in Anthropic's form."""
    problem = PROFILES["anthropic"].refusal(Verdict(False, "itpm", 30_000, 29_000, 5000, 8.0), "claude-x")
    assert problem.headers == [("retry-after", "8"), ("x-should-retry", "true")]
    assert problem.body["error"]["type"] == "rate_limit_error"
    assert "rate limit of 30,000 input tokens per minute" in problem.body["error"]["message"]


def test_spend_caps_look_like_their_providers():
    """OpenAI has a code for it; Anthropic hides it in the details of an ordinary rate limit error."""
    assert PROFILES["openai"].exhausted().body["error"]["code"] == "insufficient_quota"
    error = PROFILES["anthropic"].exhausted().body["error"]
    assert (error["type"], error["details"]["error_code"]) == ("rate_limit_error", "enforced_spend_limit_reached")


def test_azure_waits_in_milliseconds_too():
    """Both headers, integer resets, and the wait in words."""
    problem = PROFILES["azure"].refusal(TPM, "m")
    assert ("retry-after-ms", "8764") in problem.headers
    assert ("retry-after", "9") in problem.headers
    assert "have exceeded token rate limit" in problem.body["error"]["message"]
    assert "Please retry after 9 seconds" in problem.body["error"]["message"]
    assert told("azure", {"tpm": (1000, 500, 29.2)})["x-ratelimit-reset-tokens"] == "30"


def test_mistral_tells_no_wait_and_nothing_on_streams():
    """Limits and the cost of the query on plain answers, no reset, no Retry-After, code 1300."""
    readings = {"rpm": (60.0, 59.0, 12.0), "tpm": (1000.0, 800.0, 12.0)}
    assert told("mistral", readings, used=200) == {
        "x-ratelimit-limit-req-minute": "60",
        "x-ratelimit-remaining-req-minute": "59",
        "x-ratelimit-limit-tokens-minute": "1000",
        "x-ratelimit-remaining-tokens-minute": "800",
        "x-ratelimit-tokens-query-cost": "200",
    }
    assert told("mistral", readings, stream=True) == {}
    problem = PROFILES["mistral"].refusal(RPM, "m")
    assert (problem.headers, problem.body["code"]) == ([], "1300")


@pytest.mark.parametrize(("provider", "held"), [("openai", 400), ("azure", 500), ("groq", 500), ("generic", 500)])
def test_reservations_follow_the_provider(provider, held):
    """OpenAI holds the larger of prompt and maximum, the others their sum."""
    assert PROFILES[provider].reserve(100, 400) == held
    assert PROFILES[provider].reserve(100, None) == 100


@pytest.mark.parametrize("provider", sorted(PROFILES))
def test_every_refusal_can_be_written(provider):
    """No combination of provider and limit is without words."""
    for dimension in ("rpm", "rpd", "tpm", "tpd", "itpm", "otpm", "concurrency"):
        for too_large in (False, True):
            problem = PROFILES[provider].refusal(Verdict(False, dimension, 10, 10, 1, None, too_large), "m")
            assert problem.status in (413, 429), dimension
            assert problem.body, dimension
