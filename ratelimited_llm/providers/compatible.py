"""Everybody else who speaks OpenAI's API: one careful dialect, and the few words in which some differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from ..core.feedback import Kind, Reading
from .base import Dialect
from .bodies import ErrorFacts
from .openai import with_period
from .parsing import LARGEST, all_of, count, date_of, duration, field, finite, header_reading, reading, until
from .refusals import LimitText

__all__ = [
    "CerebrasDialect", "CompatibleDialect", "DeepSeekDialect", "GeminiDialect", "MistralDialect", "OpenRouterDialect",
    "TogetherDialect",
]  # fmt: skip

_DAY = 86_400.0
_PERIOD_NAMES = (
    ("requests-minute", "rpm"), ("req-minute", "rpm"), ("requests-day", "rpd"), ("tokens-minute", "tpm"),
    ("tokens-day", "tpd"),
)  # fmt: skip
_IETF_ITEM = re.compile(r'"([^"]{0,80})"((?: ?; ?[a-z]{1,8}=[^,;"]{1,40}){1,8})', re.ASCII)
_IETF_PARAMETER = re.compile(r"([a-z]{1,8})=([0-9]{1,15})", re.ASCII)


class CompatibleDialect(Dialect):
    """A host that nobody told us about: prompt + max_tokens reserved, charging found out, every known header tried."""

    name = "compatible"

    def readings(self, headers: Mapping[str, str]) -> tuple[Reading, ...]:
        """OpenAI's names, those with a period in them, the bare `x-ratelimit-*`, and the IETF draft; the first wins.

        `-requests` is told to be of the minute or the day by `openai.with_period`; tokens without a period in
        the name are taken as the minute's.
        """
        found = [*_with_period(headers), *_openai_names(headers)]
        if "x-ratelimit-limit" in headers:
            found.append(_bare_names(headers))
        if "ratelimit" in headers:
            found += _ietf(headers)
        return all_of(*found)


class MistralDialect(CompatibleDialect):
    """api.mistral.ai: requests and tokens per minute, in a window; what was really used is charged afterwards.

    No reset header, no Retry-After in 163 of 163 refusals, nothing on streams. Whether the window is the wall clock's
    minute or a sliding one, two measurements disagree.
    """

    name = "mistral"
    charge = "actual"
    window = "fixed"

    def readings(self, headers: Mapping[str, str]) -> tuple[Reading, ...]:
        """`x-ratelimit-{limit,remaining}-{req,tokens}-minute`."""
        return all_of(*_with_period(headers))


class CerebrasDialect(CompatibleDialect):
    """api.cerebras.ai: token buckets per minute and per day, with the period in the header's name."""

    name = "cerebras"

    def _reserved(self, prompt: int, most: int | None, output: int) -> int:
        """Input + max_completion_tokens; without one, a whole maximum sequence (documented), which is very dear.

        The length of that sequence depends on model and plan and is told nowhere: 8,192, the shortest, is assumed,
        so calls that set no maximum may still be refused. Set max_completion_tokens.
        """
        return max(prompt + output, 8192) if most is None else prompt + most


class TogetherDialect(CompatibleDialect):
    """api.together.xyz: limits that follow your own successful use (documented), told per second.

    That `x-ratelimit-limit` and `x-tokenlimit-limit` are per second is how two clients read them; a remainder of one
    second says nothing about the minute, so only the limits are reported.
    """

    name = "together"
    request_smoothing = 1.0

    def readings(self, headers: Mapping[str, str]) -> tuple[Reading, ...]:
        """The limits of a second, times 60."""
        found = []
        for dimension, name in (("rpm", "x-ratelimit-limit"), ("tpm", "x-tokenlimit-limit")):
            limit = finite(headers.get(name))
            if limit:
                found.append(Reading(dimension, limit * 60))
        return tuple(found)


class OpenRouterDialect(CompatibleDialect):
    """openrouter.ai: 20 requests a wall-clock minute and 50 or 1000 a day for free models; headers only on refusals."""

    name = "openrouter"
    window = "fixed"

    def readings(self, headers: Mapping[str, str]) -> tuple[Reading, ...]:
        """`x-ratelimit-{limit,remaining}`, and `-reset` as milliseconds since 1970."""
        return all_of(_window(headers, headers))

    def _refusal(self, headers: Mapping[str, str], error: ErrorFacts) -> LimitText:
        """The refusal's headers, which are repeated in `error.metadata.headers`; in a window the reset is the wait."""
        said = super()._refusal(headers, error)
        told = _window(headers, headers)
        repeated = field(field(error.raw, "metadata"), "headers")
        if told is None and isinstance(repeated, dict):
            lower = {name.lower(): value for name, value in list(repeated.items())[:50] if isinstance(name, str)}
            told = _window(lower, headers)
        if told is None:
            return said
        wait = max(said.wait or 0.0, told.reset or 0.0) if told.remaining == 0 else said.wait
        return replace(said, dimension=said.dimension or told.dimension, wait=wait or None)


class DeepSeekDialect(CompatibleDialect):
    """api.deepseek.com: only concurrency is limited, per account and model, and no header tells it."""

    name = "deepseek"

    def _refusal(self, headers: Mapping[str, str], error: ErrorFacts) -> LimitText:
        said = super()._refusal(headers, error)
        return said if said.dimension else replace(said, dimension="concurrency")


class GeminiDialect(CompatibleDialect):
    """Google's OpenAI-compatible endpoint: no headers; the body's details tell which quota refused.

    The token limit counts input only, and failed requests count too.
    """

    name = "gemini"
    charge = "reserve"

    def _reserved(self, prompt: int, most: int | None, output: int) -> int:
        """Input only."""
        return prompt

    def _refusal(self, headers: Mapping[str, str], error: ErrorFacts) -> LimitText:
        """`QuotaFailure.violations[].quotaId` and `RetryInfo.retryDelay`.

        An exhausted day still says retryDelay 1 to 14 s, so for it the wait is until midnight Pacific instead, by the
        answer's Date header (08:00 UTC, an hour late in summer).
        """
        said = super()._refusal(headers, error)
        wait = said.wait or 0.0
        details = field(error.raw, "details")
        for detail in details[:16] if isinstance(details, list) else ():
            wait = max(wait, duration(field(detail, "retryDelay")) or 0.0)
            violations = field(detail, "violations")
            for violation in violations[:16] if isinstance(violations, list) else ():
                said = _violated(said, violation)
        if said.dimension == "rpd" and (now := date_of(headers)) is not None:
            wait = max(wait, _DAY - (now - 8 * 3600) % _DAY)
        return replace(said, wait=wait or None)

    def _kind(self, status: int, headers: Mapping[str, str], error: ErrorFacts, said: LimitText) -> Kind:
        """A quota of 0 is a model that this plan does not have: no waiting helps."""
        kind = super()._kind(status, headers, error, said)
        return Kind.EXHAUSTED if kind is Kind.LIMITED and said.limit == 0 else kind


def _violated(said: LimitText, violation: object) -> LimitText:
    """Take the dimension and the limit of one violation; that of a day outweighs that of a minute."""
    quota = field(violation, "quotaId")
    if not isinstance(quota, str) or said.dimension == "rpd":
        return said
    quota = quota[:200]
    if "PerDay" in quota:
        dimension = "tpd" if "Token" in quota else "rpd"
    elif "PerMinute" in quota:
        dimension = "tpm" if "Token" in quota else "rpm"
    else:
        return said
    value = field(violation, "quotaValue")
    limit = finite(value) if isinstance(value, str) else count(value)
    return replace(said, dimension=dimension, limit=said.limit if limit is None else limit)


# --- header families -------------------------------------------------------------------------------------------


def _with_period(headers: Mapping[str, str]) -> list[Reading | None]:
    """Cerebras' `-requests-day`, `-tokens-minute` and Mistral's `-req-minute`: float seconds, or no reset at all."""
    return [header_reading(headers, what, dimension, _reset_by(headers)) for what, dimension in _PERIOD_NAMES]


def _openai_names(headers: Mapping[str, str]) -> list[Reading | None]:
    requests = header_reading(headers, "requests", "rpm", _reset_by(headers))
    tokens = header_reading(headers, "tokens", "tpm", _reset_by(headers))
    return [None if requests is None else with_period(requests), tokens]


def _bare_names(headers: Mapping[str, str]) -> Reading | None:
    """`x-ratelimit-{limit,remaining,reset}`: requests, of a period that only the reset can tell.

    Up to a minute is a minute, over an hour is a day; in between is neither, and nothing is said.
    """
    reset = _reset_by(headers)(headers.get("x-ratelimit-reset"))
    if reset is not None and 60 < reset <= 3600:
        return None
    dimension = "rpd" if reset is not None and reset > 3600 else "rpm"
    return reading(dimension, headers.get("x-ratelimit-limit"), headers.get("x-ratelimit-remaining"), reset)


def _window(told: Mapping[str, str], headers: Mapping[str, str]) -> Reading | None:
    """OpenRouter's three headers; the reset is the end of a minute, or of a day when it is midnight UTC and far."""
    milliseconds = finite(told.get("x-ratelimit-reset"))
    end = None if milliseconds is None else milliseconds / 1000
    left = until(end, headers)
    midnight = end is not None and end % _DAY == 0
    day = midnight if left is None else left > 60
    return reading("rpd" if day else "rpm", told.get("x-ratelimit-limit"), told.get("x-ratelimit-remaining"), left)


def _reset_by(headers: Mapping[str, str]) -> Callable[[str | None], float | None]:
    """Reads seconds until a reset that may be a duration, or a moment in seconds or milliseconds since 1970."""

    def read(value: str | None) -> float | None:
        number = None if isinstance(value, str) and value.endswith(("s", "m", "h")) else finite(value)
        if number is None or number < 1e9:  # in durations, 30 years; as a moment, the year 2001
            return duration(value)
        return until(number / 1000 if number > 1e11 else number, headers)

    return read


def _ietf(headers: Mapping[str, str]) -> list[Reading]:
    """`ratelimit` and `ratelimit-policy` (draft-ietf-httpapi-ratelimit-headers): `"api";r=495;t=140`.

    A window other than a minute or a day is brought to the minute, and its reset is then not said.
    """
    policies = _ietf_items(headers.get("ratelimit-policy"))
    found = []
    for name, now in _ietf_items(headers.get("ratelimit")).items():
        policy = policies.get(name, {})
        quota, window, left = policy.get("q"), policy.get("w"), now.get("r")
        if not quota or not window or left is None:
            continue
        if window in (60.0, _DAY):
            reset = min(now["t"], window) if "t" in now else None
            found.append(Reading("rpd" if window == _DAY else "rpm", quota, min(left, quota), reset))
        else:
            limit = quota * 60 / window
            found.append(Reading("rpm", limit, min(left, limit)))
    return found


def _ietf_items(value: object) -> dict[str, dict[str, float]]:
    if not isinstance(value, str):
        return {}
    items = {}
    for name, parameters in _IETF_ITEM.findall(value[:1000]):
        items[name] = {key: min(float(digits), LARGEST) for key, digits in _IETF_PARAMETER.findall(parameters)}
    return items
