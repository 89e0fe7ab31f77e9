"""What a server sends in every header that a dialect reads, and in the body of an error: nothing raises, nothing hangs,
every number that is believed is finite and bounded, and the next call is answered.

The names come from the dialects themselves: a mapping that is asked for them writes them down.
"""

from __future__ import annotations

import gzip
import json
import math

import anthropic
import groq
import openai
import pytest
from talking import Stub, ask, chat_body, text_of

from ratelimited_llm import Anthropic, Groq, OpenAI
from ratelimited_llm.core.feedback import Kind
from ratelimited_llm.core.limits import PERIODS
from ratelimited_llm.providers import DIALECTS
from ratelimited_llm.providers.parsing import LARGEST, LONGEST, telling

NASTY = [
    "nan", "inf", "-inf", "-1", "0", "1e308", "1e999", "9" * 40, "9" * 10_000, "1" * 18, "\u0663", "\xb2", "", " ",
    "\t", "\x00", "1\x000", "60, 70", "60,60", "60;60", "+60", "0x3c", "1_0", "1,5", "--1", "1e3", "60.", ".5", "1.5.5",
    "true", "null", "None", "[60]", '"60"', "60 requests", "1740435960", "1740435960000", "-1740435960", "1s",
    "-1s", "1m2.5s",
    "1h1h1h", "6m0s", "12ms", "99999999999999h", "1d" * 5_000, "2025-02-24T22:25:47Z", "2025-02-31T00:00:00Z",
    "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "Mon, 24 Feb 2025 22:25:40 GMT", "Mon, 99 Foo 2025",
    "Fri, 31 Dec 9999 23:59:59 -2359", '"burst";q=10;w=10', '"a";q=5;w=0', '"a";q=1e9;w=-1', '"a";r=8;t=1', '"' * 9_000,
    '"a";' * 3_000, "a" * 100_000, ";=," * 9_000,
]  # fmt: skip


class Asked(dict):
    """Headers that answer one value to whoever asks, and remember what was asked for."""

    def __init__(self, value):
        super().__init__()
        self.value, self.names = value, set()

    def get(self, name, otherwise=None):
        self.names.add(name)
        return self.value

    def __getitem__(self, name):
        return self.get(name)

    def __contains__(self, name):
        self.names.add(name)
        return True


def names_read():
    """Every header that any dialect looks for, whatever else is in the answer."""
    names = set()
    for value in ("60", '"burst";q=10;w=10', "Tokens", ""):
        for dialect in DIALECTS.values():
            asked = Asked(value)
            for status in (200, 400, 413, 429, 503, 529):
                for body in (b"", b'{"error": {"message": "x", "code": "rate_limit_exceeded"}}'):
                    dialect.classify(status, asked, body)
            dialect.readings(asked)
            names |= asked.names
    return sorted(names)


NAMES = names_read()
# A refusal or an answer that is otherwise as it should be, in which one header is nonsense.
OPENAIS = ("requests", "tokens", "req-minute", "tokens-minute", "requests-day")
ANTHROPICS = ("requests", "input-tokens", "output-tokens")
USUAL = {
    **{f"x-ratelimit-limit-{what}": "60" for what in OPENAIS},
    **{f"x-ratelimit-remaining-{what}": "59" for what in OPENAIS}, "date": "Mon, 24 Feb 2025 22:25:40 GMT",
    **{f"x-ratelimit-reset-{what}": "1s" for what in OPENAIS},
    **{f"anthropic-ratelimit-{what}-limit": "60" for what in ANTHROPICS},
    **{f"anthropic-ratelimit-{what}-remaining": "59" for what in ANTHROPICS},
    **{f"anthropic-ratelimit-{what}-reset": "2025-02-24T22:25:47Z" for what in ANTHROPICS},
}  # fmt: skip


def test_the_headers_that_are_read_are_known():
    """Those that were captured are among them, and `telling` leaves none out that tells of limits."""
    must = {"retry-after", "retry-after-ms", "date", "x-should-retry", "ratelimit",
    "ratelimit-policy",
            "x-ratelimit-type", "x-ratelimit-limit", "x-ratelimit-reset", "x-tokenlimit-limit",
            "x-ratelimit-limit-requests",
            "x-ratelimit-remaining-tokens", "x-ratelimit-limit-project-tokens", "x-ratelimit-renewalperiod-tokens",
            "x-rate-limit-reset-tokens", "x-ratelimit-limit-req-minute", "x-ratelimit-limit-requests-day",
            "anthropic-ratelimit-output-tokens-reset"}  # fmt: skip
    assert must - set(NAMES) == set()
    told = telling(dict.fromkeys(NAMES, "60"))
    limits = {name for name in NAMES if "limit" in name}
    assert limits <= set(told)


def sane(dialect, status, headers, body=b""):
    """Read it all; what comes out is finite and bounded."""
    for told in dialect.readings(headers):
        assert told.dimension in PERIODS
        assert told.limit is None or 0 < told.limit <= 60 * LARGEST
        assert told.remaining is None or 0 <= told.remaining <= (told.limit or LARGEST)
        assert told.reset is None or 0 <= told.reset <= LONGEST
    outcome = dialect.classify(status, headers, body)
    assert outcome.retry_after is None or 0 < outcome.retry_after <= LONGEST
    assert all(number is None or math.isfinite(number) for number in (outcome.limit, outcome.used, outcome.requested))
    return outcome


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
def test_every_header_may_be_nonsense_beside_good_ones(dialect):
    """Each name with each value, alone and among headers that are as they should be."""
    for name in NAMES:
        for value in NASTY:
            sane(dialect, 429, {name: value})
            sane(dialect, 200, {**USUAL, name: value})


def headers_of(value):
    """All names with one value, as the bytes of an HTTP answer."""
    return [(name.encode(), value.encode("utf-8", "surrogateescape")) for name in NAMES]


LIMIT = b"x-ratelimit-limit-requests"
FLOODS = {
    "5,000 headers": [(LIMIT, b"60")] * 2_500 + [(b"x-filler-%d" % number, b"1") for number in range(2_500)],
    "10 MB": [(LIMIT, b"9" * 10_000_000), (b"retry-after", b"1" * 10_000_000)],
    "sent twice": [(LIMIT, b"60"), (LIMIT, b"0")] * 2,
    "names in all cases": [(b"X-RATELIMIT-Limit-Requests", b"-1"), (b"RETRY-AFTER", b"nan"), (b"Date", b"never")],
}


@pytest.mark.parametrize(("sdk", "kind"), [(openai, OpenAI), (groq, Groq)], ids=["openai", "groq"])
def test_no_header_of_an_answer_holds_up_the_next_call(sdk, kind):
    """Every nasty value in every header at once, then floods: each call is answered, and the next."""
    told = [headers_of(value) for value in NASTY if value != "60."] + list(FLOODS.values())  # which is a limit
    stub = Stub(lambda number, body: (200, chat_body(), told[number % len(told)]), sdk=sdk)
    client = kind(api_key="sk", http_client=stub.client, max_retries=0)
    for _ in told:
        assert text_of(ask(client)) == "answer"
    client.close()


BODIES = {
    "nothing": b"", "null": b"null", "a list": b"[]", "a list of errors": b'[{"error": {"code": 500, "message": "x"}}]',
    "a text": b'"no"', "a number": b"1", "no JSON": b"<html>busy</html>", "half of it": b'{"error": {"mess',
    "no UTF-8": b"\xff\xfe\x00", "null inside": b'{"error": null}', "a list inside": b'{"error": []}',
    "a text inside": b'{"error": "no"}', "NaN": b'{"error": NaN}', "deep": b'{"error":' * 30_000,
    "a number for a message": b'{"error": {"message": 5, "type": [], "code": {}}}',
    "a code of 100,000": b'{"error": {"code": "' + b"x" * 100_000 + b'"}}',
    "a wait without end": b'{"error": {"message": "try again in ' + b"9" * 300 + b'h"}}',
    "waits": b'{"error": {"message": "' + b"try again in 1h " * 20_000 + b'"}}',
}  # fmt: skip


@pytest.mark.parametrize("status", [400, 401, 409, 413, 500, 529])
@pytest.mark.parametrize("name", ["openai", "groq", "anthropic"])
def test_the_body_of_an_error_is_the_sdks_affair(name, status):
    """Whatever is in it, ours raises what the plain SDK raises, says the same, and the next call is answered."""
    sdk, plain, ours, good, call = SDKS[name]
    raised = []
    for kind in (plain, ours):
        pairs = [pair for body in BODIES.values() for pair in ((status, body, JSON), (200, good, {}))]
        stub = Stub(lambda number, _, pairs=pairs: pairs[number - 1], sdk=sdk)
        client = kind(api_key="sk", http_client=stub.client, max_retries=0)
        raised.append([])
        for _ in BODIES:
            try:
                raised[-1].append(call(client).id)
            except Exception as error:
                raised[-1].append((type(error), str(error)[:200]))
            assert call(client).id
        client.close()
    assert raised[0] == raised[1]


JSON = {"content-type": "application/json"}
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [],
           "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}}  # fmt: skip
SAY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
SDKS = {
    "openai": (openai, openai.OpenAI, OpenAI, chat_body(), ask), "groq": (groq, groq.Groq, Groq, chat_body(), ask),
    "anthropic": (
        anthropic, anthropic.Anthropic, Anthropic, MESSAGE, lambda client: client.messages.create(**SAY, max_tokens=5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("body", [*BODIES.values(), gzip.compress(b" " * 30_000_000)], ids=[*BODIES, "30 MB in 30 kB"])
def test_a_refusal_with_any_body_is_a_refusal(body):
    """It is waited for, with the deadline as the bound, and the call is answered or told so."""
    packed = {"content-encoding": "gzip"} if body[:2] == b"\x1f\x8b" else {}
    answers = [(429, body, {"retry-after-ms": "1", **packed})]
    stub = Stub(lambda number, _: answers.pop() if answers else (200, chat_body(), {}))
    client = OpenAI(api_key="sk", http_client=stub.client, max_retries=0)
    future = ask(client.with_options(deadline=0.5 if b"again in" in body else 15))
    try:
        assert future.result(timeout=15).id
    except (openai.RateLimitError, TimeoutError):
        assert b"again in" in body  # it asked for more than the deadline
    client.cancel()


EXHAUSTED = ("insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded",
             "project_spend_limit_exceeded", "organization_usage_limit_exceeded")  # fmt: skip
KINDS = {
    **{("openai", 429, code): Kind.EXHAUSTED for code in EXHAUSTED},
    ("openai", 429, "rate_limit_exceeded"): Kind.LIMITED, ("openai", 429, "slow_down"): Kind.OVERLOADED,
    ("openai", 503, "server_is_overloaded"): Kind.OVERLOADED, ("groq", 413, "rate_limit_exceeded"): Kind.TOO_LARGE,
    ("anthropic", 429, "rate_limit_error"): Kind.LIMITED, ("anthropic", 529, "overloaded_error"): Kind.OVERLOADED,
    ("openrouter", 402, "402"): Kind.EXHAUSTED, ("openai", 400, "invalid_request_error"): Kind.REJECTED,
    ("openai", 401, "invalid_api_key"): Kind.REJECTED,
}  # fmt: skip


@pytest.mark.parametrize(("told", "kind"), KINDS.items(), ids=lambda value: str(value))
@pytest.mark.parametrize("shape", ["object", "list", "code for a type"])
def test_a_code_is_read_in_whatever_shape_it_comes(told, kind, shape):
    """As documented; Google's list around it, and a code where the type should be, are read too."""
    name, status, code = told
    error = {"message": "", "type" if shape == "code for a type" else "code": code}
    body = {"error": error} if shape != "list" else [{"error": error}]
    assert DIALECTS[name].classify(status, {}, json.dumps(body).encode()).kind is kind
