"""Headers as they were captured or documented, and the limits that each dialect reads out of them."""

from __future__ import annotations

import httpx
import pytest

from ratelimited_llm.core.feedback import Reading
from ratelimited_llm.providers import DIALECTS
from ratelimited_llm.providers.parsing import telling


def family(requests=(None, None, None), tokens=(None, None, None), **more):
    """The x-ratelimit-* family as a dict with lower-case names."""
    headers = {"date": "Mon, 24 Feb 2025 22:25:40 GMT"}
    for what, values in (("requests", requests), ("tokens", tokens)):
        for part, value in zip(("limit", "remaining", "reset"), values, strict=True):
            if value is not None:
                headers[f"x-ratelimit-{part}-{what}"] = value
    return headers | {name.replace("_", "-"): value for name, value in more.items()}


OPENAI = {
    "documented sample": (
        family(("60", "59", "1s"), ("150000", "149984", "6m0s")),
        [Reading("rpm", 60, 59, 1.0), Reading("tpm", 150000, 149984, 360.0)],
    ),
    "a minute of 5000": (
        family(("5000", "4999", "12ms"), ("160000", "159976", "9ms")),
        [Reading("rpm", 5000, 4999, 0.012), Reading("tpm", 160000, 159976, 0.009)],
    ),
    "truncated resets": (
        family(("3000", "2999", "20ms"), ("250000", "249989", "2ms")),
        [Reading("rpm", 3000, 2999, 0.02), Reading("tpm", 250000, 249989, 0.002)],
    ),
    "a day behind the same name": (family(("10000", "9999", "8.64s")), [Reading("rpd", 10000, 9999, 8.64)]),
    "a small day": (family(("200", "199", "7m12s")), [Reading("rpd", 200, 199, 432.0)]),
    "a small minute": (family(("3", "2", "20s")), [Reading("rpm", 3, 2, 20.0)]),
    "full, so undecided": (family(("10000", "10000", "0s")), [Reading("rpm", 10000, 10000, 0.0)]),
    "no reset, so undecided": (family(("500", "499", None)), [Reading("rpm", 500, 499, None)]),
    "the project's tokens are fewer": (
        family(
            tokens=("150000", "149984", "6ms"),
            x_ratelimit_limit_project_tokens="60000",
            x_ratelimit_remaining_project_tokens="57000",
            x_ratelimit_reset_project_tokens="3s",
        ),
        [Reading("tpm", 60000, 57000, 3.0)],
    ),
    "the organisation's tokens are fewer": (
        family(
            tokens=("150000", "1000", "59.6s"),
            x_ratelimit_limit_project_tokens="60000",
            x_ratelimit_remaining_project_tokens="57000",
        ),
        [Reading("tpm", 150000, 1000, 59.6)],
    ),
    "-1 and 0": (family(("-1", "0", "0"), ("-1", "0", "0")), []),
    "0 and 0": (family(("0", "0", "0s"), ("0", "0", "0s")), []),
    "-1 remaining of a real limit": (family(("60", "-1", "1s")), [Reading("rpm", 60, None, 1.0)]),
    "more left than there is": (family(("60", "61", "0s")), [Reading("rpm", 60, 60, 0.0)]),
    "nothing at all": ({}, []),
}
AZURE = {
    "captured 200": (
        family(
            ("9000", "8999", "0"),
            ("1500000", "745399", "30"),
            x_ratelimit_renewalperiod_requests="10",
            x_ratelimit_renewalperiod_tokens="60",
        ),
        [Reading("rpm", 9000, 8999, 0.0), Reading("tpm", 1500000, 745399, 30.0)],
    ),
    "documented whole seconds": (
        family(("60", "59", "10"), ("1000", "0", "300")),
        [Reading("rpm", 60, 59, 10.0), Reading("tpm", 1000, 0, 300.0)],
    ),
    "1 of 5 requests": (family(("5", "4", "12")), [Reading("rpm", 5, 4, 12.0)]),
    "a renewal period of a day": (
        family(("150", "149", "86400"), x_ratelimit_renewalperiod_requests="86400"),
        [Reading("rpd", 150, 149, 86400.0)],
    ),
    "-1 and 0": (family(("-1", "0", "0"), ("-1", "0", "0")), []),
    "GitHub Models": (
        family(("20000", "19999", "0"), x_ratelimit_renewalperiod_requests="60"),
        [Reading("rpm", 20000, 19999, 0.0)],
    ),
}
GROQ = {
    "documented": (
        family(("14400", "14370", "2m59.56s"), ("18000", "17997", "7.66s")),
        [Reading("rpd", 14400, 14370, 179.56), Reading("tpm", 18000, 17997, 7.66)],
    ),
    "2 of 1000": (family(("1000", "998", "2m52.8s")), [Reading("rpd", 1000, 998, 172.8)]),
    "a day even when it looks like a minute": (family(("60", "59", "1s")), [Reading("rpd", 60, 59, 1.0)]),
}
RESET = "2025-02-24T22:25:47Z"


def anthropic(date="Mon, 24 Feb 2025 22:25:40 GMT", **limits):
    """The anthropic-ratelimit-* family; each keyword is (limit, remaining, reset)."""
    headers = {"date": date} if date else {}
    for what, values in limits.items():
        for part, value in zip(("limit", "remaining", "reset"), values, strict=True):
            headers[f"anthropic-ratelimit-{what.replace('_', '-')}-{part}"] = value
    return headers


ANTHROPIC = {
    "captured stream of 2025-02": (
        anthropic(
            requests=("1000", "999", RESET),
            input_tokens=("80000", "80000", "2025-02-24T22:25:40Z"),
            output_tokens=("16000", "12000", "2025-02-24T22:25:55Z"),
            tokens=("96000", "92000", "2025-02-24T22:25:55Z"),
        ),
        [
            Reading("rpm", 1000, 999, 7.0),
            Reading("itpm", 80000, 80000, 0.0, 1000.0),
            Reading("otpm", 16000, 12000, 15.0, 1000.0),
        ],
    ),
    "only the most restrictive": (
        anthropic(tokens=("96000", "92000", RESET)),
        [Reading("tpm", 96000, 92000, 7.0, 1000.0)],
    ),
    "a reset that is past": (
        anthropic(requests=("50", "50", "2025-02-24T22:25:39Z")),
        [Reading("rpm", 50, 50, 0.0)],
    ),
    "no date": (anthropic(None, requests=("50", "49", RESET)), [Reading("rpm", 50, 49, None)]),
    "a reset in another zone": (
        anthropic(requests=("50", "49", "2025-02-24T23:25:47.5+01:00")),
        [Reading("rpm", 50, 49, 7.5)],
    ),
    "no such day": (anthropic(requests=("50", "49", "2025-02-31T22:25:47Z")), [Reading("rpm", 50, 49, None)]),
}
OTHERS = {
    "Mistral": (
        "mistral",
        {
            "x-ratelimit-limit-req-minute": "23",
            "x-ratelimit-remaining-req-minute": "22",
            "x-ratelimit-limit-tokens-minute": "500000",
            "x-ratelimit-remaining-tokens-minute": "499000",
            "x-ratelimit-tokens-query-cost": "1000",
        },
        [Reading("rpm", 23, 22), Reading("tpm", 500000, 499000)],
    ),
    "Cerebras": (
        "cerebras",
        {
            "x-ratelimit-limit-requests-day": "1000000",
            "x-ratelimit-remaining-requests-day": "999985",
            "x-ratelimit-reset-requests-day": "33011.382867097855",
            "x-ratelimit-limit-tokens-minute": "60000",
            "x-ratelimit-remaining-tokens-minute": "59000",
            "x-ratelimit-reset-tokens-minute": "11.38",
        },
        [Reading("rpd", 1000000, 999985, 33011.382867097855), Reading("tpm", 60000, 59000, 11.38)],
    ),
    "Together": (
        "together",
        {
            "x-ratelimit-limit": "10",
            "x-ratelimit-remaining": "9",
            "x-ratelimit-reset": "1",
            "x-tokenlimit-limit": "3000",
            "x-tokenlimit-remaining": "2990",
        },
        [Reading("rpm", 600), Reading("tpm", 180000)],
    ),
    "OpenRouter's minute": (
        "openrouter",
        {
            "date": "Mon, 24 Feb 2025 22:25:40 GMT",
            "x-ratelimit-limit": "20",
            "x-ratelimit-remaining": "0",
            "x-ratelimit-reset": "1740435960000",
        },
        [Reading("rpm", 20, 0, 20.0)],
    ),
    "OpenRouter's day": (
        "openrouter",
        {
            "date": "Mon, 24 Feb 2025 22:25:40 GMT",
            "x-ratelimit-limit": "50",
            "x-ratelimit-remaining": "0",
            "x-ratelimit-reset": "1740441600000",
        },
        [Reading("rpd", 50, 0, 5660.0)],
    ),
    "OpenRouter's day without a date": (
        "openrouter",
        {"x-ratelimit-limit": "50", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1740441600000"},
        [Reading("rpd", 50, 0, None)],
    ),
    "IETF draft": (
        "compatible",
        {
            "ratelimit-policy": '"burst";q=60;w=60, "daily";q=5000;w=86400',
            "ratelimit": '"burst";r=8;t=1, "daily";r=4998;t=69076',
        },
        [Reading("rpm", 60, 8, 1.0), Reading("rpd", 5000, 4998, 69076.0)],
    ),
    "Hugging Face": (
        "compatible",
        {"ratelimit": '"api";r=495;t=140', "ratelimit-policy": '"fixed window";"api";q=500;w=300'},
        [Reading("rpm", 100, 100)],
    ),
    "OpenAI's names on an unknown host": (
        "compatible",
        family(("500", "499", "120ms"), ("30000", "29000", "2s")),
        [Reading("rpm", 500, 499, 0.12), Reading("tpm", 30000, 29000, 2.0)],
    ),
    "bare names": (
        "compatible",
        {"x-ratelimit-limit": "100", "x-ratelimit-remaining": "42", "x-ratelimit-reset": "23"},
        [Reading("rpm", 100, 42, 23.0)],
    ),
    "bare names of nobody knows which period": (
        "compatible",
        {"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "42", "x-ratelimit-reset": "1800"},
        [],
    ),
    "only what is left (Cohere)": (
        "compatible",
        {"x-ratelimit-remaining-requests": "39"},
        [Reading("rpm", None, 39)],
    ),
    "DeepSeek": ("deepseek", {"date": "Mon, 24 Feb 2025 22:25:40 GMT"}, []),
}
CASES = [
    *(("openai", *case) for case in OPENAI.values()),
    *(("azure", *case) for case in AZURE.values()),
    *(("groq", *case) for case in GROQ.values()),
    *(("anthropic", *case) for case in ANTHROPIC.values()),
    *OTHERS.values(),
]
NAMES = [*OPENAI, *(f"Azure: {n}" for n in AZURE), *(f"Groq: {n}" for n in GROQ), *ANTHROPIC, *OTHERS]


@pytest.mark.parametrize(("name", "headers", "expected"), CASES, ids=NAMES)
def test_captured_headers_read_as_the_limits_they_told(name, headers, expected):
    """Every header set that was captured or documented comes out as the limits behind it."""
    assert list(DIALECTS[name].readings(headers)) == expected


@pytest.mark.parametrize(("name", "headers", "expected"), CASES, ids=NAMES)
def test_readings_are_the_same_from_an_sdk_response(name, headers, expected):
    """httpx.Headers with names in any case give what a lower-case dict gives."""
    assert list(DIALECTS[name].readings(httpx.Headers({k.title(): v for k, v in headers.items()}))) == expected


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-5", "-1", "", "1e9", "٣", "0x10", "1_000", "9" * 10_000, "1,5", "+1"]
)
def test_a_limit_that_is_no_number_is_no_reading(value):
    """What is not plain ASCII digits is not believed, however Python would read it."""
    headers = {
        f"{prefix}-{what}": value
        for prefix in ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
        for what in ("requests", "tokens", "project-tokens", "req-minute", "tokens-minute", "requests-day")
    }
    headers |= {f"x-ratelimit-{part}": value for part in ("limit", "remaining", "reset")}
    headers |= {f"anthropic-ratelimit-{w}-{p}": value for w in ("requests", "tokens") for p in ("limit", "remaining")}
    assert {name: told for name, dialect in DIALECTS.items() if (told := dialect.readings(headers))} == {}


@pytest.mark.parametrize(
    ("limit", "used"), [(3, 1), (3, 2), (60, 59), (500, 7), (5000, 1), (10_000, 1), (10_000, 4000), (30_000, 100)]
)
@pytest.mark.parametrize(("dimension", "period"), [("rpm", 60.0), ("rpd", 86_400.0)])
def test_minute_and_day_are_told_apart_despite_rounding(limit, used, dimension, period):
    """A bucket's reset decides, even when `remaining` was rounded by one and the reset cut to a millisecond."""
    for really in (used - 0.7, used, used + 0.7):
        milliseconds = int(really / limit * period * 1000)
        headers = family((str(limit), str(limit - used), f"{milliseconds}ms"))
        if milliseconds:
            assert DIALECTS["openai"].readings(headers)[0].dimension == dimension


@pytest.mark.parametrize("dialect", DIALECTS.values() if isinstance(DIALECTS, dict) else DIALECTS, ids=repr)
def test_a_dialect_reads_the_same_out_of_the_telling_headers(dialect):
    """Those of an HTTP client, in whatever case, and those that were taken out of them beforehand."""
    sent = {
        "Date": "Mon, 24 Feb 2025 22:25:40 GMT", "X-Request-ID": "req_1", "Set-Cookie": "__cf_bm=1",
        "X-RateLimit-Limit-Requests": "5000", "X-RATELIMIT-REMAINING-REQUESTS": "4999",
        "x-ratelimit-reset-requests": "12ms", "X-RateLimit-Limit-Tokens": "160000",
        "X-RateLimit-Remaining-Tokens": "159976", "X-RateLimit-Limit-Req-Minute": "60",
        "RateLimit-Policy": '"api";q=500;w=60', "RateLimit": '"api";r=495;t=14',
        "anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2025-02-24T22:25:47Z",
    }  # fmt: skip
    headers = httpx.Headers(sent)
    told = telling(headers)
    assert dialect.readings(told) == dialect.readings(headers) == dialect.readings(telling(sent))
    assert not {"set-cookie", "x-request-id"} & set(told)


def test_a_header_that_is_sent_twice_is_read_as_an_http_client_reads_it():
    """Its values joined, so that neither of two limits is believed."""
    headers = httpx.Headers([("x-ratelimit-limit-requests", "60"), ("X-RateLimit-Limit-Requests", "70")])
    assert telling(headers) == {"x-ratelimit-limit-requests": headers["x-ratelimit-limit-requests"]}
