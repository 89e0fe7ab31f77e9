"""What the prose of a refusal tells: which limit, its numbers, and how long to wait. Untrusted as all of `parsing`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..core.limits import PERIODS
from .parsing import LARGEST, LONGEST, UNITS

__all__ = ["LimitText", "limit_text"]

TEXT = 4096  # characters of a message that are looked at; the longest real one seen has 600
_UNIT = r"(?:milliseconds?|msecs?|ms|minutes?|mins?|m|seconds?|secs?|s|hours?|hrs?|h|days?|d)(?![a-z])"
_AMOUNT = r"[0-9]{1,12}(?:\.[0-9]{1,12})?"
_SPOKEN = re.compile(
    r"\b(?:try again|retry|wait)(?: again)?(?: (?:in|after|for|at least|another))? "
    rf"((?:{_AMOUNT} ?{_UNIT}[ ,]?){{1,6}})",
    re.ASCII | re.IGNORECASE,
)
_SPOKEN_PART = re.compile(rf"({_AMOUNT}) ?({_UNIT})", re.ASCII | re.IGNORECASE)
_SAID = re.compile(r"\b(limit|used|requested):? ([0-9][0-9,]{0,20})", re.ASCII | re.IGNORECASE)
_LIMIT_OF = re.compile(r"\blimit of ([0-9][0-9,]{0,20})", re.ASCII | re.IGNORECASE)
_ACRONYM = re.compile(r"\((RPM|RPD|TPM|TPD|ITPM|OTPM|IPM|ASH|ASD)\)", re.ASCII)
_PHRASE = re.compile(r"\b(?:(input|output) )?(request|call|token)s? per (min|day)(?:ute)?\b", re.ASCII | re.IGNORECASE)
_AT_ONCE = re.compile(r"\bconcurren(?:t requests|cy limit)\b", re.ASCII | re.IGNORECASE)
_UNCOUNTED = {"ipm": 60.0, "ash": 3600.0, "asd": 86_400.0}  # images and audio seconds: no limiter of ours


@dataclass(frozen=True, slots=True)
class LimitText:
    """What the prose of a refusal told.

    Attributes:
        dimension: "rpm", "tpm", "rpd", "tpd", "itpm", "otpm", "concurrency", or None.
        limit, used, requested: its numbers, each None when not said.
        wait: the longest wait it asks for or implies, in seconds; None when none. Always > 0.
    """

    dimension: str | None = None
    limit: float | None = None
    used: float | None = None
    requested: float | None = None
    wait: float | None = None


def _spoken_wait(text: str) -> float | None:
    """The longest of the waits that a message asks for, in seconds; None when it asks for none.

    Reads "try again in 7.66s", "in 9m6.048s", "in 200ms", "retry after 33 seconds", "Please wait 46 seconds" and
    "Please retry in 42.921954507s.".
    """
    longest = 0.0
    for match in _SPOKEN.finditer(text[:TEXT]):
        total = 0.0
        for amount, unit in _SPOKEN_PART.findall(match[1]):
            total += float(amount) * _scale(unit.lower())
        longest = max(longest, total)
    return min(longest, LONGEST) if longest > 0 else None


def _scale(unit: str) -> float:
    if unit.startswith(("ms", "mil")):
        return 1e-3
    return UNITS[unit[0]]


def limit_text(text: str) -> LimitText:
    """Read dimension, numbers and wait out of a refusal's message.

    Where limit, used, requested and the period are all said, the wait of a continuous bucket follows exactly as
    (used + requested - limit) / limit * period: captured messages of OpenAI and Groq, of the minute and of the day,
    agree with it to the millisecond ("Limit 100000, Used 99922, Requested 710" per day: 9m6.048s).
    """
    text = text[:TEXT]
    if not text:
        return LimitText()
    numbers: dict[str, float] = {}
    for name, digits in _SAID.findall(text):
        numbers.setdefault(name.lower(), _grouped(digits))
    if "limit" not in numbers and (match := _LIMIT_OF.search(text)):
        numbers["limit"] = _grouped(match[1])
    dimension, period = _dimension(text)
    limit, used, requested = numbers.get("limit") or None, numbers.get("used"), numbers.get("requested")
    wait = _spoken_wait(text)
    if limit and period and used is not None and requested is not None:
        implied = min((used + requested - limit) / limit * period, LONGEST)
        wait = max(wait or 0.0, implied) if implied > 0 else wait
    return LimitText(dimension, limit, used, requested, wait)


def _grouped(digits: str) -> float:
    """The number behind "30,000"; the trailing comma of "Limit 3, Used" is dropped too."""
    return min(float(digits.replace(",", "")), LARGEST)


def _dimension(text: str) -> tuple[str | None, float | None]:
    """The dimension that a message names, and its period in seconds; (None, None) when it names none."""
    if match := _ACRONYM.search(text):
        name = match[1].lower()
        return (None, _UNCOUNTED[name]) if name in _UNCOUNTED else (name, PERIODS[name])
    if match := _PHRASE.search(text):
        name = "t" if match[2].lower() == "token" else "r"
        if match[1] and name == "t":
            name = match[1][0].lower() + name
        name += "pd" if match[3].lower() == "day" else "pm"
        return (name, PERIODS[name]) if name in PERIODS else (None, None)
    return ("concurrency" if _AT_ONCE.search(text) else None), None
