"""Error bodies as they were captured or documented, and what each dialect says to do about them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from ratelimited_llm.core.feedback import Kind, Outcome
from ratelimited_llm.providers import DIALECTS

DATE = {"date": "Mon, 24 Feb 2025 22:25:40 GMT"}


def error(message="", **more):
    """An OpenAI-shaped error body, as the bytes on the wire."""
    return json.dumps({"error": {"message": message, "param": None, **more}}).encode()


def limit(message, kind="tokens"):
    """The body of a plain rate limit of OpenAI or Groq."""
    return error(message, type=kind, code="rate_limit_exceeded")


def outcome(name, status, body=b"", **headers):
    """What a dialect makes of an answer; keywords become headers."""
    return DIALECTS[name].classify(status, {k.replace("_", "-"): v for k, v in headers.items()}, body)


def groq(period, numbers, wait):
    """Groq's refusal, in which every text contains "billing" and "today"."""
    return limit(
        f"Rate limit reached for model `llama` in organization `org_1` service tier `on_demand` on {period}: "
        f"{numbers}. Please try again in {wait}. Need more tokens? Upgrade to Dev Tier today at "
        "https://console.groq.com/settings/billing"
    )


RPM_TEXT = (
    "Rate limit reached for gpt-3.5-turbo-1106 in organization org-1 on requests per min (RPM): Limit 3, Used 3, "
    "Requested 1. Please try again in 20s. Visit https://platform.openai.com/account/billing to learn more."
)
S0 = "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version x have exceeded {} rate limit of "
S0 += "your current OpenAI S0 pricing tier. Please retry after {} seconds."

# name, body, dimension, limit, used, requested, wait
REFUSALS = [
    ("openai", limit(RPM_TEXT, "requests"), "rpm", 3, 3, 1, 20.0),
    (
        "openai",
        limit("on tokens per min (TPM): Limit 30000, Used 26713, Requested 7669. Please try again in 8.764s."),
        *("tpm", 30000, 26713, 7669, 8.764),
    ),
    (
        "openai",
        limit("on tokens per min (TPM): Limit 30000, Used 22999, Requested 12528. Please try again in 11.054s."),
        *("tpm", 30000, 22999, 12528, 11.054),
    ),
    (
        "openai",
        limit("on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s.", "requests"),
        *("rpd", 200, 200, 1, 432.0),
    ),
    (
        "openai",
        limit("on requests per day (RPD): Limit 10000, Used 10000, Requested 1. Please try again in 8.64s."),
        *("rpd", 10000, 10000, 1, 8.64),
    ),
    ("openai", limit("Please try again in 200ms."), "tpm", None, None, None, 0.2),
    ("openai", limit("Limit: 3 / min. Please try again in 20s.", "requests"), "rpm", 3, None, None, 20.0),
    (
        "groq",
        groq("tokens per minute (TPM)", "Limit 6000, Used 4093, Requested 3531", "16.239999999s"),
        *("tpm", 6000, 4093, 3531, 16.24),
    ),
    (
        "groq",
        groq("tokens per minute (TPM)", "Limit 8000, Used 7297, Requested 974", "2.0325s"),
        *("tpm", 8000, 7297, 974, 2.0325),
    ),
    (
        "groq",
        groq("requests per minute (RPM)", "Limit 30, Used 30, Requested 1", "2s"),
        *("rpm", 30, 30, 1, 2.0),
    ),
    (
        "groq",
        groq("tokens per day (TPD)", "Limit 100000, Used 99922, Requested 710", "9m6.048s"),
        *("tpd", 100000, 99922, 710, 546.048),
    ),
    (
        "groq",
        groq("tokens per minute (TPM)", "Limit 5000, Used 5747, Requested 100", "10.164s"),
        *("tpm", 5000, 5747, 100, 10.164),
    ),
    (
        "azure",
        error(S0.format("token", 33), code="429"),
        *("tpm", None, None, None, 33.0),
    ),
    (
        "azure",
        error(S0.format("call", 86400), code="429"),
        *("rpm", None, None, None, 86400.0),
    ),
    (
        "azure",
        error(
            "Rate limit of 50000 per 60s exceeded for UserByModelByMinuteUncachedInputTokens. Please wait 46 seconds",
            code="RateLimitReached",
        ),
        *("itpm", 50000, None, None, 46.0),
    ),
    (
        "azure",
        error("Rate limit of 150 per 86400s exceeded for UserByModelByDay. Please wait 3600 seconds"),
        *("rpd", 150, None, None, 3600.0),
    ),
    (
        "anthropic",
        b'{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization\'s '
        b'rate limit of 30,000 input tokens per minute (org: o, model: m)."},"request_id":"req_1"}',
        *("itpm", 30000, None, None, None),
    ),
    (
        "anthropic",
        b'{"type":"error","error":{"type":"rate_limit_error","message":"limit of 8,000 output tokens per minute"}}',
        *("otpm", 8000, None, None, None),
    ),
    (
        "anthropic",
        b'{"type":"error","error":{"type":"rate_limit_error","message":"rate limit of 50 requests per minute"}}',
        *("rpm", 50, None, None, None),
    ),
    (
        "cerebras",
        b'{"message":"Tokens per minute limit exceeded - too many tokens processed.","type":"too_many_tokens_error",'
        b'"param":"quota","code":"token_quota_exceeded"}',
        *("tpm", None, None, None, None),
    ),
    ("mistral", b'{"object":"error","message":"Requests rate limit exceeded","code":1300}', *[None] * 5),
    ("openai", limit("Limit 5, Used 5, Requested 1 on concurrent requests", "requests"), "concurrency", 5, 5, 1, None),
    ("deepseek", error("Too many requests"), "concurrency", None, None, None, None),
    ("compatible", b"<html><h1>429 Too Many Requests</h1> limit 5, please wait 9 seconds</html>", *[None] * 5),
    ("compatible", b"", *[None] * 5),
    ("compatible", b"slow down, please retry after 5 seconds", None, None, None, None, 5.0),
    ("compatible", b'{"detail": "Rate limit exceeded: try again in 1 minute 30 seconds"}', *[None] * 4, 90.0),
    ("compatible", b'{"error": "too many, try again in 1m2.5s"}', *[None] * 4, 62.5),
]


@pytest.mark.parametrize(("name", "body", "dimension", "limit", "used", "requested", "wait"), REFUSALS)
def test_a_refusals_text_tells_its_numbers(name, body, dimension, limit, used, requested, wait):
    """Dimension, limit, used, requested and wait come out of every captured text; the wait to the millisecond."""
    found = outcome(name, 429, body)
    assert found.kind is Kind.LIMITED
    assert (found.dimension, found.limit, found.used, found.requested) == (dimension, limit, used, requested)
    assert found.retry_after == (None if wait is None else pytest.approx(wait, abs=0.001))


@pytest.mark.parametrize(("name", "body"), [row[:2] for row in REFUSALS])
def test_a_body_reads_the_same_as_bytes_text_and_decoded(name, body):
    """What the SDK has decoded, and stripped of its envelope, says the same as the wire."""
    assert outcome(name, 429, body.decode()) == outcome(name, 429, body)
    try:
        decoded = json.loads(body)
    except ValueError:
        return
    assert outcome(name, 429, decoded) == outcome(name, 429, body)
    if isinstance(decoded.get("error"), dict):
        assert outcome(name, 429, decoded["error"]) == outcome(name, 429, body)


FINAL = [
    ("openai", 429, error("You exceeded your current quota", type="insufficient_quota", code="insufficient_quota")),
    ("openai", 429, error(type="insufficient_quota", code="credit_balance_exhausted")),
    ("openai", 429, error(type="insufficient_quota", code="organization_spend_limit_exceeded")),
    ("openai", 429, error(type="insufficient_quota", code="project_spend_limit_exceeded")),
    ("openai", 429, error(type="insufficient_quota", code="organization_usage_limit_exceeded")),
    ("openai", 429, error(type="insufficient_quota")),
    (
        "anthropic",
        429,
        {
            "type": "error",
            "error": {
                "type": "rate_limit_error",
                "message": "spend limit",
                "details": {"error_code": "enforced_spend_limit_reached"},
            },
        },
    ),
    ("openrouter", 402, error("Insufficient credits", code=402)),
    ("deepseek", 402, error("Insufficient Balance")),
]


@pytest.mark.parametrize(("name", "status", "body"), FINAL)
def test_an_exhausted_quota_is_no_rate_limit(name, status, body):
    """No waiting helps against an empty account, though the SDKs would retry it."""
    assert outcome(name, status, body, retry_after="1", x_should_retry="true").kind is Kind.EXHAUSTED


TOO_LARGE = "Request too large for gpt-4o in organization o on tokens per min (TPM): Limit 30000, Requested 342389. "


@pytest.mark.parametrize(
    ("name", "status", "body", "headers"),
    [
        ("openai", 429, limit(TOO_LARGE + "The input or output tokens must be reduced in order to run."), {}),
        ("openai", 429, limit("Request too large for gpt-4o."), {"x_should_retry": "false"}),
        ("groq", 413, limit("on tokens per minute (TPM): Limit 8000, Requested 32979"), {"retry_after": "9"}),
        ("groq", 429, limit("on tokens per minute (TPM): Limit 6000, Used 100, Requested 7000"), {}),
        ("anthropic", 413, b'{"type":"error","error":{"type":"request_too_large","message":"x"}}', {}),
        ("compatible", 413, b"<html>", {}),
    ],
)
def test_more_than_a_whole_limit_never_waits(name, status, body, headers):
    """Over the whole limit no wait helps, whatever retry-after says."""
    found = outcome(name, status, body, **headers)
    assert (found.kind, found.retry_after) == (Kind.TOO_LARGE, None)


def test_too_large_carries_its_numbers():
    """The error that the user sees can say how much too much it was."""
    found = outcome("openai", 429, limit(TOO_LARGE))
    assert (found.dimension, found.limit, found.requested) == ("tpm", 30000, 342389)


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("openai", 429, error("Reduce your rate", type="rate_limit_error", code="slow_down")),
        ("openai", 429, error("Flex does not have sufficient resources available", type="requests")),
        ("openai", 503, error(type="service_unavailable_error", code="server_is_overloaded")),
        ("openai", 500, b"<html>"),
        ("openai", 408, b""),
        ("openai", 409, b""),
        ("azure", 429, error("The system is currently experiencing high demand", code="429")),
        ("groq", 498, error(code="capacity_exceeded")),
        ("anthropic", 529, b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'),
        ("anthropic", 504, b'{"type":"error","error":{"type":"timeout_error","message":"x"}}'),
        ("together", 503, b""),
        ("mistral", 429, b'{"type":"service_tier_capacity_exceeded","message":"x","code":"3505"}'),
    ],
)
def test_the_providers_trouble_is_backed_off_from(name, status, body):
    """It says nothing about our budget, even when it comes as a 429."""
    assert outcome(name, status, body).kind is Kind.OVERLOADED


def test_cerebras_queue_is_tried_again_though_it_says_not_to():
    """queue_exceeded carries x-should-retry: false and clears in seconds."""
    body = b'{"message":"high traffic","type":"too_many_requests_error","param":"queue","code":"queue_exceeded"}'
    assert outcome("cerebras", 429, body, x_should_retry="false").kind is Kind.OVERLOADED


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422, 451])
def test_bad_requests_are_final(status):
    """Words such as "rate limit" in a 400 change nothing."""
    final = Outcome(Kind.REJECTED, status=status, code="invalid_api_key")
    for name in DIALECTS:
        body = error("rate limit, try again in 5s", code="invalid_api_key")
        assert outcome(name, status, body) == final, name


@pytest.mark.parametrize(("status", "kind"), [(500, Kind.REJECTED), (429, Kind.REJECTED), (400, Kind.REJECTED)])
def test_a_provider_that_says_not_to_retry_is_believed(status, kind):
    """x-should-retry: false beats the status, as in the SDKs."""
    assert outcome("openai", status, b"", x_should_retry="false").kind is kind


def test_a_provider_that_says_to_retry_is_believed():
    """x-should-retry: true makes even a 400 worth another attempt, as in the SDKs."""
    assert outcome("openai", 400, b"", x_should_retry="true").kind is Kind.OVERLOADED


@pytest.mark.parametrize("status", [200, 201, 204, 304])
def test_below_400_is_an_answer(status):
    """Nothing in its body makes an answer an error."""
    for name in DIALECTS:
        assert outcome(name, status, limit(RPM_TEXT)) == Outcome(Kind.OK, status=status), name


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry_after": "56"}, 56.0),
        ({"retry_after": "7.66"}, 7.66),
        ({"retry_after_ms": "2000"}, 2.0),
        ({"retry_after_ms": "2500", "retry_after": "2"}, 2.5),
        ({"retry_after": "Mon, 24 Feb 2025 22:26:10 GMT", **DATE}, 30.0),
        ({"retry_after": "Mon, 24 Feb 2025 22:20:00 GMT", **DATE}, None),
        ({"retry_after": "Mon, 24 Feb 2025 22:26:10 GMT"}, None),
        ({"retry_after": "Fri, 31 Dec 9999 23:59:59 GMT", **DATE}, 366 * 86400.0),
        ({"retry_after": "0", "retry_after_ms": "0"}, None),
        ({"retry_after": "-1"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "9" * 18}, 366 * 86400.0),
        ({}, None),
    ],
)
def test_retry_after_is_read_as_the_sdks_read_it_or_better(headers, wait):
    """Milliseconds, seconds and dates; the largest; 0 and nonsense are no wait."""
    assert outcome("openai", 429, b"", **headers).retry_after == wait
    assert outcome("openai", 503, b"", **headers).retry_after == wait


def test_the_largest_wait_wins():
    """An integer header above a fractional text, and a text above a short header."""
    body = limit("Please try again in 16.239999999s.")
    assert outcome("groq", 429, body, retry_after="17").retry_after == 17.0
    assert outcome("groq", 429, body, retry_after="2").retry_after == pytest.approx(16.24)


def test_azures_short_retry_after_gives_way_to_the_renewal_period():
    """Captured: retry-after 1 with remaining-tokens 0, and four obedient retries that all failed."""
    found = outcome(
        "azure",
        429,
        error(code="429"),
        retry_after="1",
        retry_after_ms="0",
        x_ratelimit_remaining_tokens="0",
        x_ratelimit_reset_tokens="0",
        x_ratelimit_renewalperiod_tokens="60",
        x_ratelimit_type="Tokens",
    )
    assert (found.kind, found.retry_after, found.dimension) == (Kind.LIMITED, 60.0, "tpm")


def test_azure_without_retry_after_waits_for_its_reset():
    """openai-python issue 937: only x-rate-limit-reset-tokens was sent."""
    assert outcome("azure", 429, error(code="429"), x_rate_limit_reset_tokens="55").retry_after == 55.0


def test_github_models_concurrency_is_told_apart():
    """It advertises 20000 RPM but enforces 5 at once; the renewal period is no wait then."""
    found = outcome(
        "azure",
        429,
        error("Rate limit of 5 per 0s exceeded for UserConcurrentRequests. Please wait 0 seconds"),
        retry_after="0",
        x_ratelimit_type="UserConcurrentRequests",
        x_ratelimit_remaining_requests="0",
        x_ratelimit_renewalperiod_requests="60",
    )
    assert (found.kind, found.dimension, found.retry_after, found.limit) == (Kind.LIMITED, "concurrency", None, 5)


def test_the_empty_limit_refused_when_the_text_does_not_say():
    """Of the readings, the one with nothing left names the dimension."""
    headers = {"x_ratelimit_limit_tokens": "100", "x_ratelimit_remaining_tokens": "0"}
    assert outcome("compatible", 429, b"", **headers).dimension == "tpm"


def gemini(quota, value="15", delay="33.5s"):
    """Google's array around an error with QuotaFailure and RetryInfo."""
    details = [
        {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaMetric": "m", "quotaId": quota, "quotaValue": value}],
        },
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
    ]
    error = {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": details}
    return json.dumps([{"error": error}]).encode()


@pytest.mark.parametrize(
    ("quota", "dimension", "wait"),
    [
        ("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "rpm", 33.5),
        ("GenerateContentInputTokensPerModelPerMinute-FreeTier", "tpm", 33.5),
        ("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "rpd", 34460.0),
    ],
)
def test_geminis_array_tells_quota_and_delay(quota, dimension, wait):
    """A day's quota waits for midnight Pacific, whatever its retryDelay says."""
    found = outcome("gemini", 429, gemini(quota), **DATE)
    assert found == Outcome(Kind.LIMITED, wait, dimension, 15, status=429, code="429")


def test_a_gemini_quota_of_zero_is_exhausted():
    """A model that the plan does not have at all never comes back."""
    assert outcome("gemini", 429, gemini("GenerateRequestsPerDay", "0")).kind is Kind.EXHAUSTED


def test_geminis_text_tells_the_wait_too():
    """ "Please retry in 42.921954507s." is the longer one here."""
    body = [{"error": {"code": 429, "message": "Please retry in 42.921954507s.", "status": "RESOURCE_EXHAUSTED"}}]
    assert outcome("gemini", 429, body).retry_after == pytest.approx(42.921954507)


def test_openrouter_repeats_its_headers_in_the_body():
    """The reset is the end of a wall-clock minute, in milliseconds since 1970."""
    inner = {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1740435960000"}
    found = outcome("openrouter", 429, error("x", code=429, metadata={"headers": inner}), **DATE)
    assert (found.retry_after, found.dimension) == (20.0, "rpm")


EVENTS = [
    (
        "openai",
        {
            "type": "response.failed",
            "response": {"error": {"code": "rate_limit_exceeded", "message": "Please try again in 11.054s."}},
        },
        Kind.LIMITED,
        11.054,
    ),
    ("openai", {"type": "error", "code": "rate_limit_exceeded", "message": "try again in 2s"}, Kind.LIMITED, 2.0),
    ("openai", {"code": "server_is_overloaded", "message": "x"}, Kind.OVERLOADED, None),
    ("openai", {"code": "slow_down", "message": "x"}, Kind.OVERLOADED, None),
    ("openai", {"code": "server_error", "message": "x"}, Kind.OVERLOADED, None),
    ("openai", {"code": "insufficient_quota", "message": "x"}, Kind.EXHAUSTED, None),
    ("openai", {"code": "invalid_prompt", "message": "x"}, Kind.REJECTED, None),
    ("anthropic", {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, Kind.OVERLOADED, None),
    ("anthropic", {"type": "error", "error": {"type": "rate_limit_error", "message": "x"}}, Kind.LIMITED, None),
    ("anthropic", {"type": "error", "error": {"type": "invalid_request_error", "message": "x"}}, Kind.REJECTED, None),
    ("openrouter", {"error": {"code": 429, "message": "x"}, "choices": []}, Kind.LIMITED, None),
    ("openrouter", {"error": {"code": 502, "message": "x"}}, Kind.OVERLOADED, None),
    ("compatible", {"error": "something broke"}, Kind.OVERLOADED, None),
    ("compatible", None, Kind.OVERLOADED, None),
]


@pytest.mark.parametrize(("name", "event", "kind", "wait"), EVENTS)
def test_an_error_inside_a_stream_is_classified_by_its_code(name, event, kind, wait):
    """The status was 200 long before, so only code and type can tell."""
    found = DIALECTS[name].classify_event(event)
    assert (found.kind, found.retry_after, found.status) == (kind, wait, 200)
    assert DIALECTS[name].classify_event(json.dumps(event)).kind is kind


def test_an_sdks_event_object_reads_like_its_json():
    """The SDK hands out models, not dicts."""
    event = SimpleNamespace(
        type="response.failed",
        response=SimpleNamespace(error=SimpleNamespace(code="rate_limit_exceeded", message="try again in 3s")),
    )
    found = DIALECTS["openai"].classify_event(event)
    assert (found.kind, found.retry_after) == (Kind.LIMITED, 3.0)
