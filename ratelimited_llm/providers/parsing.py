"""Numbers, durations and dates out of text that a server, or whoever stands between, may have filled with anything.

Three rules that everything in here obeys:

1. What comes out is finite and within bounds; what cannot be read is None, and nothing raises.
2. Digits are ASCII digits: "nan", "inf", "1e9", "-1" and "٣" are no numbers.
3. Text is cut to a length before a pattern sees it, and every pattern is bounded, so that the time is too.

No clock: a date is only ever compared with the answer's own `Date` header.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

from ..core.feedback import Reading

__all__ = [
    "LARGEST", "LONGEST", "MOST_TOKENS", "UNITS", "all_of", "count", "date_of", "duration", "field", "finite", "header",
    "header_reading", "moment", "reading", "retry_after", "telling", "until",
]  # fmt: skip

LARGEST = 1e13
"""The largest number that is believed: any limit, and milliseconds since 1970 until the year 2286."""

LONGEST = 366 * 86_400.0
"""The longest duration that is believed, in seconds: a year."""

MOST_TOKENS = 10**9
"""The most tokens that one call is believed to use or to ask for."""

_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{0,18})?", re.ASCII)
_GO_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{0,12})?)(ns|us|µs|ms|s|m|h|d)", re.ASCII)
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def finite(value: object) -> float | None:
    """Read an amount: plain ASCII digits with or without a fraction, at most `LARGEST`; None for anything else."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    if len(value) <= 12 and value.isascii() and value.isdigit():
        return float(value)
    text = value.strip()
    return min(float(text), LARGEST) if _NUMBER.fullmatch(text) else None


def count(value: object) -> int | None:
    """Read a number of tokens out of decoded JSON: 0 to `MOST_TOKENS`; None for negative numbers and other types."""
    if type(value) is int and 0 <= value <= MOST_TOKENS:  # as nearly always
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        return None
    return int(min(value, MOST_TOKENS))


def duration(value: object) -> float | None:
    """Read seconds as Go prints a duration ("1m2.5s", "6m0s", "12ms"), or as a plain number ("30", "33011.38").

    Source: the x-ratelimit-reset-* headers of OpenAI and Groq (Go), Azure (integers) and Cerebras (floats), and
    the `retryDelay` of Google ("33.5s").
    """
    if not isinstance(value, str) or len(value) > 64:
        return None
    return _duration(value)


@lru_cache(maxsize=1024)  # resets repeat themselves, and every answer has two
def _duration(value: str) -> float | None:
    text, total, position = value.strip(), 0.0, 0
    while part := _GO_PART.match(text, position):
        total += float(part[1]) * UNITS[part[2]]
        position = part.end()
    if position == len(text) and position:
        return min(round(total, 9), LONGEST)
    plain = None if position else finite(text)
    return None if plain is None else min(plain, LONGEST)


def moment(value: object) -> float | None:
    """Read an RFC 3339 moment ("2025-02-24T22:25:47Z") as seconds since 1970; None for anything else."""
    if not isinstance(value, str) or len(value) > 40 or not (match := _RFC3339.fullmatch(value.strip())):
        return None
    try:
        local = datetime(*map(int, match.group(1, 2, 3, 4, 5, 6)), tzinfo=timezone.utc)  # type: ignore[arg-type, misc]
    except ValueError:  # the 31st of February, a leap second
        return None
    seconds = (local - _EPOCH).total_seconds() + float(f"0.{match[7] or 0}")
    if match[8]:
        offset = int(match[9]) * 3600 + int(match[10]) * 60
        seconds += -offset if match[8] == "+" else offset
    return seconds


@lru_cache(maxsize=64)  # a busy client sees the same second many times
def _http_date(text: str) -> float | None:
    try:
        parsed = parsedate_to_datetime(text)
        if parsed.tzinfo is None:  # "-0000", which RFC 5322 gives to a moment whose zone is not told
            parsed = parsed.replace(tzinfo=timezone.utc)
        return (parsed - _EPOCH) / timedelta(seconds=1)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def date_of(headers: Mapping[str, str], name: str = "date") -> float | None:
    """Read an HTTP date header as seconds since 1970; None when it is absent or unreadable."""
    value = headers.get(name)
    return _http_date(value) if isinstance(value, str) and len(value) <= 64 and value.isascii() else None


def until(then: float | None, headers: Mapping[str, str]) -> float | None:
    """Seconds from the answer's own `Date` to `then` (seconds since 1970): 0 when past, None when either is unknown.

    The Date header has whole seconds, so the answer is right to one second.
    """
    if then is None:
        return None
    now = date_of(headers)
    return None if now is None else min(max(0.0, then - now), LONGEST)


def telling(headers: Any) -> Mapping[str, str]:
    """The headers that tell of limits, and the date, by their names in lower case.

    To look a name up in an HTTP client's own headers takes a microsecond, and a dialect looks for a dozen of them.

    Args:
        headers: of httpx or httpx2, or any mapping; what is neither is answered as it is.
    """
    raw = getattr(headers, "raw", None)
    if type(raw) is not list:
        return {name.lower(): headers[name] for name in headers} if isinstance(headers, Mapping) else headers
    found: dict[str, str] = {}
    for encoded, value in raw:
        encoded = encoded.lower()
        if b"limit" in encoded or encoded == b"date":
            name, text = encoded.decode("latin-1"), value.decode("latin-1")
            found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def header(headers: Mapping[str, str], name: str) -> str:
    """A header's value in lower case and without blanks, cut to 100 characters; "" when it is absent or no text."""
    value = headers.get(name)
    return value[:100].strip().lower() if isinstance(value, str) else ""


def field(value: object, name: str) -> object:
    """`value[name]` of a dict or `value.name` of anything else; None when it has none, and whatever else happens."""
    if isinstance(value, dict):
        return value.get(name)
    try:
        return getattr(value, name, None)
    except Exception:  # a property of somebody else's object; accounting must not break the answer
        return None


def reading(
    dimension: str, limit: object, remaining: object, reset: float | None = None, resolution: float = 1.0
) -> Reading | None:
    """Build a reading from header texts, or None when they tell nothing.

    A limit that is sent but is 0, -1 or unreadable takes its `remaining` with it: Azure was seen to send -1 with 0
    (openai-dotnet issue 838), which must not read as "nothing is left".
    """
    whole, left = finite(limit), finite(remaining)
    if limit is not None and not whole:
        return None
    if whole is None and left is None:
        return None
    if whole is not None and left is not None and left > whole:
        left = whole
    return Reading(dimension, whole, left, reset, resolution)


def header_reading(
    headers: Mapping[str, str], what: str, dimension: str, reset: Callable[[str | None], float | None] = duration
) -> Reading | None:
    """The reading of `x-ratelimit-{limit,remaining,reset}-{what}`; None when they tell nothing.

    Args:
        headers: as for `Dialect.readings`.
        what: the end of the three names.
        dimension: which limit that is.
        reset: reads the header of that name as seconds.
    """
    limits, remains, resets = _names(what)
    limit, remaining = headers.get(limits), headers.get(remains)
    if limit is None and remaining is None:
        return None
    return reading(dimension, limit, remaining, reset(headers.get(resets)))


@lru_cache(maxsize=64)
def _names(what: str) -> tuple[str, str, str]:
    return f"x-ratelimit-limit-{what}", f"x-ratelimit-remaining-{what}", f"x-ratelimit-reset-{what}"


def all_of(*readings: Reading | None) -> tuple[Reading, ...]:
    """Those that there are; of several about one dimension, the first."""
    found: dict[str, Reading] = {}
    for each in readings:
        if each is not None:
            found.setdefault(each.dimension, each)
    return tuple(found.values())


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The larger of `retry-after-ms` and `retry-after` (seconds, or an HTTP date), in seconds; None when neither > 0.

    0 counts as absent, as the SDKs read it. A date is taken relative to the answer's own `Date` header, and ignored
    without one.
    """
    milliseconds, after = finite(headers.get("retry-after-ms")), headers.get("retry-after")
    seconds = duration(after)
    if seconds is None and after is not None:
        seconds = until(date_of(headers, "retry-after"), headers)
    longest = max((milliseconds or 0.0) / 1000, seconds or 0.0)
    return min(longest, LONGEST) if longest > 0 else None
