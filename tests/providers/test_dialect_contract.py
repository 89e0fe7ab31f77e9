"""What every dialect promises about hostile input: nothing raises, all is finite and bounded, and it takes no time."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ratelimited_llm.providers
from ratelimited_llm.core.feedback import Kind, Outcome, Reading
from ratelimited_llm.core.limits import PERIODS
from ratelimited_llm.core.request import Cost, Usage
from ratelimited_llm.providers import DIALECTS
from ratelimited_llm.providers.parsing import LARGEST, LONGEST, MOST_TOKENS

every_dialect = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))

HEADERS = [
    "date", "retry-after", "retry-after-ms", "x-should-retry", "ratelimit", "ratelimit-policy", "x-ratelimit-type",
    "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "x-tokenlimit-limit",
    "x-rate-limit-reset-tokens",
    *(f"x-ratelimit-{part}-{what}" for part in ("limit", "remaining", "reset", "renewalperiod")
      for what in ("requests", "tokens", "project-tokens", "requests-day", "tokens-minute", "req-minute")),
    *(f"anthropic-ratelimit-{what}-{part}" for part in ("limit", "remaining", "reset")
      for what in ("requests", "tokens", "input-tokens", "output-tokens")),
]  # fmt: skip
NASTY = [
    "nan", "inf", "-inf", "1e9", "1e999", "-5", "-1", "0", "", " ", "٣", "²", "1_0", "0x1f", "9" * 10_000, "1" * 18,
    "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2025-02-24T22:25:60Z", "2025-13-01T00:00:00Z",
    "Fri, 31 Dec 9999 23:59:59 -2359", "Mon, 01 Jan 0001 00:00:00 +2359", "Mon, 99 Foo 2025", "1 1 1 1 1 1",
    "1m" * 5000, "1" * 5000 + "m", "1m2.5s", "7.66s", "12ms", "300", "33011.382867097855", "1740435960000",
    '"a";q=5;w=0', '"' * 10_000, '"a";' * 3000, '"a";q=9;w=60, "a";q=1;w=1', '"a";r=8;t=1', "try again in " * 1000,
]  # fmt: skip
WORDS = [
    "Limit 3, Used 3, Requested 1. ", "try again in ", "9" * 400, "1m2.5s", "limit of ", "(TPM)", "(RPM)",
    "tokens per min",    "retry ", "wait 46 seconds", "Limit 0, ", ",,,,", "1 h " * 50,
    "٣s", "UserByModelByDay", "User" * 100, "nan s",
]  # fmt: skip
NAMES = [
    "error", "message", "code", "type", "status", "details", "error_code", "response", "retryDelay", "violations",
    "quotaId", "quotaValue", "metadata", "headers", "usage", "prompt_tokens", "completion_tokens", "input_tokens",
    "output_tokens", "cached_tokens", "prompt_tokens_details", "x_groq", "choices", "X-RateLimit-Reset", "max_tokens",
    "max_completion_tokens", "n", "best_of", "prompt", "cache_read_input_tokens", "total_tokens",
]  # fmt: skip
CODES = ["rate_limit_exceeded", "insufficient_quota", "slow_down", "tokens", "429", "message_start", "message_delta"]

values = st.one_of(st.sampled_from(NASTY), st.text(max_size=40), st.integers().map(str), st.floats().map(str))
headers = st.dictionaries(st.sampled_from(HEADERS), values, max_size=12)
prose = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=10)), max_size=12).map("".join)
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), prose, st.sampled_from(CODES), st.sampled_from(NASTY)
)
things = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(NAMES), inner, max_size=6)),
    max_leaves=15,
)
bodies = st.one_of(
    things,
    things.map(lambda thing: {"error": thing}),
    things.map(lambda thing: [{"error": {"message": thing, "details": [thing]}}]),
    things.map(lambda thing: json.dumps(thing).encode()[:-1]),
    things.map(json.dumps),
    prose,
    st.binary(max_size=200),
)
statuses = st.one_of(st.sampled_from([200, 400, 402, 408, 413, 429, 498, 500, 503, 529]), st.integers(-5, 1000))


# What is made up costs far more time than what is done with it: each example is shown to every dialect.
plenty = settings(max_examples=40, deadline=None)  # for each of the dialects


def assert_sane(outcome: Outcome) -> None:
    """Every number of an outcome is None or finite and in bounds."""
    assert isinstance(outcome.kind, Kind)
    assert outcome.retry_after is None or 0 < outcome.retry_after <= LONGEST
    assert outcome.dimension is None or outcome.dimension in {*PERIODS, "concurrency"}
    for number in (outcome.limit, outcome.used, outcome.requested):
        assert number is None or 0 <= number <= LARGEST
    assert outcome.code is None or (isinstance(outcome.code, str) and len(outcome.code) <= 100)


def assert_tokens(*numbers: int) -> None:
    """Every number of tokens is an int in bounds."""
    assert all(type(number) is int and 0 <= number <= 3 * MOST_TOKENS for number in numbers)


@plenty
@given(headers=headers)
def test_readings_are_finite_whatever_the_headers_say(headers):
    """A header may say anything; a reading is finite, in bounds, and at most one per dimension."""
    for name, dialect in DIALECTS.items():
        readings = dialect.readings(headers)
        assert len({told.dimension for told in readings}) == len(readings), name
        for told in readings:
            assert isinstance(told, Reading), name
            assert told.dimension in PERIODS, name
            assert told.limit is None or 0 < told.limit <= 60 * LARGEST, name
            assert told.remaining is None or 0 <= told.remaining <= (told.limit or LARGEST), name
            assert told.reset is None or 0 <= told.reset <= LONGEST, name
            assert math.isfinite(told.resolution), name


@plenty
@given(status=statuses, headers=headers, body=bodies)
def test_classify_answers_whatever_came(status, headers, body):
    """Garbage, truncated JSON and lists for objects end in an outcome with sane numbers."""
    for name, dialect in DIALECTS.items():
        outcome = dialect.classify(status, headers, body)
        assert_sane(outcome)
        assert outcome.status == status, name
        assert (outcome.kind is Kind.OK) == (status < 400), name
        assert_sane(dialect.classify_event(body))


@plenty
@given(answers=st.lists(bodies, max_size=4))
def test_usage_is_none_or_counts(answers):
    """A usage is whole numbers in bounds, and the cached ones are part of the input."""
    for name, dialect in DIALECTS.items():
        so_far = None
        for answer in answers:
            so_far = dialect.stream_usage(answer, so_far)
            for usage in (so_far, dialect.usage(answer)):
                assert usage is None or isinstance(usage, Usage), name
                if usage is not None:
                    assert_tokens(usage.input_tokens, usage.output_tokens, usage.cached_tokens)
                    assert usage.cached_tokens <= usage.input_tokens, name


@plenty
@given(
    path=st.text(max_size=50),
    body=st.dictionaries(st.sampled_from(NAMES), things),
    prompt=st.integers(),
    output=st.none() | st.integers(),
)
def test_a_cost_is_in_bounds_whatever_the_body_says(path, body, prompt, output):
    """Nonsense in a request's own parameters is the provider's to refuse, not ours to trip over."""
    for name, dialect in DIALECTS.items():
        cost = dialect.cost(path, body, prompt, output)
        assert isinstance(cost, Cost), name
        assert_tokens(cost.reserved, cost.expected, cost.input_tokens, cost.output_tokens)
        assert cost.expected <= cost.input_tokens + cost.output_tokens, name


@plenty
@given(model=st.text() | st.sampled_from(["ft:" * 5000, "claude-" * 2000, "x" * 10_000, "-2025-01-01" * 2000]))
def test_a_family_is_a_name_and_its_own_family(model):
    """Merging is idempotent for every name that is no fine-tune, and never fails."""
    for name, dialect in DIALECTS.items():
        family = dialect.family(model)
        assert isinstance(family, str), name
        if not model.startswith("ft:"):
            assert len(family) <= len(model), name
            assert model.startswith(family), name


@every_dialect
def test_headers_that_are_no_text_are_ignored(dialect):
    """A test double's headers may hold anything."""
    for value in [3, None, 1.5, b"5", ["5"], {"a": 1}]:
        headers = dict.fromkeys(HEADERS, value)
        assert dialect.readings(headers) == (), value
        assert dialect.classify(429, headers, b"").retry_after is None, value


HUGE = [
    b"[" * 200_000, b'{"error":' * 30_000, b"9" * 200_000,
    b'{"error":{"message":"' + b"try again in 1" * 10_000 + b'"}}',
    b"wait " * 40_000, b"limit 1," * 30_000, b"\xff\xfe" * 50_000, b"<" * 200_000, b" " * 200_000 + b"<html>",
    b'{"error":{"message":"' + b"wait 1 s " * 20_000 + b'"}}', b'{"code":' + b"9" * 100_000 + b"}", b"x" * 3_000_000,
    b'{"error":{"message":"' + b"retry " + b"1 h " * 40_000 + b'"}}', b'"' * 100_000,
]  # fmt: skip


@every_dialect
def test_a_huge_body_is_soon_done_with(dialect):
    """No pattern backtracks and no decoder digs: the slowest takes milliseconds, a hang meets the suite's timeout."""
    for body in HUGE:
        assert_sane(dialect.classify(429, {}, body))
        assert_sane(dialect.classify(429, {}, body.decode("utf-8", "replace")))
        assert_sane(dialect.classify_event({"message": body.decode("latin-1")}))


@every_dialect
def test_huge_headers_are_soon_done_with(dialect):
    """Ten thousand characters in every header at once are cut before a pattern sees them."""
    for text in ["1" * 10_000, "1m" * 5000, '"' * 10_000, '"a";q=1' * 1500, '"a";a=' * 2000, "a" * 10_000]:
        headers = dict.fromkeys(HEADERS, text)
        dialect.readings(headers)
        dialect.classify(429, headers, b"")


PURE = {
    "__future__", "collections", "dataclasses", "datetime", "email", "functools", "json", "re", "typing", "urllib",
}  # fmt: skip


def test_dialects_import_no_sdk_no_clock_and_no_io():
    """Only parsing modules of the standard library, and values of the core."""
    for path in Path(ratelimited_llm.providers.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {name.name.partition(".")[0] for name in node.names} <= PURE, path.name
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert (node.module or "").partition(".")[0] in PURE, path.name
            elif isinstance(node, ast.ImportFrom) and node.level == 2:
                assert (node.module or "").startswith("core."), path.name
