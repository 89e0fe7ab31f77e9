"""What headers can say that is not so: waits by all the ways to say them, and numbers that cannot be true."""

from __future__ import annotations

__all__ = ["LIES", "WAITS"]

# Waits that a refusal may name, by all the ways to say them. None of them keeps a pool longer than a moment: how long
# a great one is believed is a question for virtual time, see `outages.py`.
WAITS: list[dict[str, str]] = [
    {"retry-after-ms": "15"}, {"retry-after": "0.02"}, {"retry-after": "0", "retry-after-ms": "0"},
    {"retry-after": "now"}, {"retry-after": ""}, {"retry-after": "nan"}, {"retry-after": "inf"},
    {"retry-after": "-7"}, {"retry-after": "1e308"}, {"retry-after": "\xb2"}, {"retry-after-ms": "1e3"},
    {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, {"retry-after": "Mon, 99 Foo 2026"}, {"retry-after": "0x10"},
    {"retry-after": "1_0"}, {"retry-after": "0.01, 0.02"}, {},
]  # fmt: skip

# Headers that cannot be true, or that no reader can make sense of. None is a limit that a provider could have.
LIES: list[list[tuple[str, str]]] = [
    [(f"x-ratelimit-{part}-{what}", value) for part in ("limit", "remaining") for what in ("requests", "tokens")]
    for value in ("nan", "inf", "-inf", "-1", "1e308", "999999999999", "", "\xb2\xbd", "0x7f", "1_000", "٣".encode()
                  .decode("latin-1"), "9" * 400, "0", "null", "true", " ", "1,2", "\x7f", "+-5")
] + [
    [("x-ratelimit-reset-requests", value), ("x-ratelimit-reset-tokens", value)]
    for value in ("1763800000", "1763800000000", "-1s", "99999999h", "1e308s", "nan", "6m0s6m0s", "s", "2026-01-01",
                  "2026-13-45T99:99:99Z", "\xb5s", "")
] + [
    [("x-ratelimit-limit-requests", "600"), ("x-ratelimit-limit-requests", "-1"), ("x-ratelimit-limit-requests", "x")],
    [("retry-after", "1"), ("retry-after", "nan"), ("date", "yesterday"), ("date", "")],
    [("ratelimit", '"a";r=nan;t=-1'), ("ratelimit-policy", '"a";q=1e400;w=0'), ("ratelimit", "\xff;" * 50)],
    [("anthropic-ratelimit-requests-limit", "-1"), ("anthropic-ratelimit-tokens-reset", "0000-00-00T00:00:00Z"),
     ("anthropic-ratelimit-input-tokens-remaining", "inf"), ("anthropic-ratelimit-output-tokens-limit", "1e999")],
    [("x-ratelimit-renewalperiod-requests", "nan"), ("x-ratelimit-tokens-query-cost", "-3")],
    [("x-should-retry", "maybe"), ("x-request-id", "\xff" * 300), ("content-type", "application/json; charset=no")],
]  # fmt: skip
