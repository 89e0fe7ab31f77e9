"""How each provider speaks: the headers of its answers, and the words, codes and waits of its refusals.

Texts and header forms follow published captures of real answers; what is not established about a provider is an
argument of the simulator, not a fact in here. Pure: a profile is given verdicts and readings, and returns headers
and error bodies. It does not decide anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .enforcement import Admission, Verdict, Window
from .profile import UNITS, Headers, Problem, Profile, Readings, numbers
from .wire import go_duration, rfc3339, started, thousands, whole

__all__ = ["PROFILES", "profile_for"]

CLAUDE_UNITS = (("requests", "rpm"), ("input-tokens", "itpm"), ("output-tokens", "otpm"), ("tokens", "tpm"))


@dataclass(frozen=True)
class OpenAIProfile(Profile):
    """max(max_tokens, prompt) is held and never given back; resets are Go durations until full."""

    name: str = "openai"
    told = (("requests", ("rpm", "rpd")), ("tokens", ("tpm", "tpd")))

    def reserve(self, input_tokens: int, max_output: int | None) -> int:
        return max(input_tokens, max_output or 0)

    def _refusal(self, verdict: Verdict, model: str, wait: Headers) -> Problem:
        unit, words = UNITS[verdict.dimension or "rpm"]
        where = " in organization org-simulated"
        learn = " Visit https://platform.openai.com/account/rate-limits to learn more."
        text = "Request too large" if verdict.too_large else "Rate limit reached"
        if self.tell_in_body and verdict.too_large:
            text += f" for {model}{where} on {words}: Limit {whole(verdict.limit)}, "
            text += f"Requested {whole(verdict.requested)}. The input or output tokens must be reduced in order to run "
            text += f"successfully.{learn}"
        elif self.tell_in_body:
            text = numbers(verdict, text, model, where) + learn
        headers = [("x-should-retry", "false")] if verdict.too_large else wait
        error = {"message": text, "type": unit, "param": None, "code": "rate_limit_exceeded"}
        return Problem(429, headers, {"error": error})


@dataclass(frozen=True)
class AzureProfile(Profile):
    """prompt + max_tokens is counted, cleared each minute; requests are checked per 10 s; waits in ms too."""

    name: str = "azure"
    path: str = ""
    window: Window = "fixed"
    smooth: float | None = 1 / 6
    told = (("requests", ("rpm",)), ("tokens", ("tpm",)))

    def reset(self, seconds: float) -> str:
        return str(math.ceil(seconds))

    def wait(self, seconds: float) -> Headers:
        return [("retry-after-ms", str(max(1, math.ceil(seconds * 1000)))), *super().wait(seconds)]

    def _refusal(self, verdict: Verdict, model: str, wait: Headers) -> Problem:
        tokens = UNITS[verdict.dimension or "rpm"][0] == "tokens"
        # It does not say "too large": such a call is told to come back, and refused again. That is its trap.
        seconds = max(1, math.ceil(verdict.retry_after if verdict.retry_after is not None else 60))
        text = "Requests to the ChatCompletions_Create Operation under Azure OpenAI API have exceeded "
        text += f"{'token' if tokens else 'call'} rate limit of your current OpenAI S0 pricing tier."
        if self.tell_in_body:
            text += f" Please retry after {seconds} seconds."
        headers = [("x-ratelimit-type", "Tokens" if tokens else "Requests"), *wait]
        return Problem(429, headers, {"error": {"code": "429", "message": text}})

    def error(self, status: int, message: str, *, code: str | None = None, type: str | None = None) -> Problem:
        return Problem(status, [], {"error": {"code": code or str(status), "message": message}})


@dataclass(frozen=True)
class GroqProfile(Profile):
    """prompt + max_tokens is held, then corrected; request headers mean the day, and RPM is in no header."""

    name: str = "groq"
    path: str = ""
    admission: Admission = "settle"
    told = (("requests", ("rpd",)), ("tokens", ("tpm",)))

    def _refusal(self, verdict: Verdict, model: str, wait: Headers) -> Problem:
        unit, words = UNITS[verdict.dimension or "rpm"]
        words = words.replace("per min ", "per minute ")
        where = f" for model `{model}` in organization `org_simulated` service tier `on_demand` on {words}"
        # Every text of theirs, even for a wait of two seconds, ends with a link to the billing page.
        upgrade = " Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing"
        text = "Request too large" if verdict.too_large else "Rate limit reached"
        if self.tell_in_body:
            used = "" if verdict.too_large else f"Used {started(verdict.used)}, "
            text += f"{where}: Limit {whole(verdict.limit)}, {used}Requested {whole(verdict.requested)}"
            text += ", please reduce your message size." if verdict.too_large else "."
            if verdict.retry_after is not None and not verdict.too_large:
                text += f" Please try again in {go_duration(verdict.retry_after, step=1e-9, up=True)}."
        error = {"message": text + upgrade, "type": unit, "code": "rate_limit_exceeded"}
        headers = [("x-should-retry", "false")] if verdict.too_large else wait
        return Problem(413 if verdict.too_large else 429, headers, {"error": error})


@dataclass(frozen=True)
class AnthropicProfile(Profile):
    """Input and output are metered apart, output as it is produced; resets are moments, remainders rounded."""

    name: str = "anthropic"
    path: str = ""
    admission: Admission = "actual"

    def limits(self, readings: Readings, *, wall: float, stream: bool, used: int) -> Headers:
        both = dict(readings)
        if "tpm" not in both and "itpm" in both and "otpm" in both:
            first, second = both["itpm"], both["otpm"]
            both["tpm"] = (first[0] + second[0], first[1] + second[1], max(first[2], second[2]))
        headers: Headers = []
        for unit, dimension in CLAUDE_UNITS:
            if dimension in both:
                step = 1 if dimension == "rpm" else 1000
                limit, remaining, reset = both[dimension]
                # A limit below a few thousand would be rounded away altogether.
                rounded = remaining if limit < 2 * step else round(remaining / step) * step
                name = f"anthropic-ratelimit-{unit}"
                headers += [
                    (f"{name}-limit", whole(limit)),
                    (f"{name}-remaining", whole(rounded)),
                    (f"{name}-reset", rfc3339(wall + reset)),
                ]
        return headers

    def _refusal(self, verdict: Verdict, model: str, wait: Headers) -> Problem:
        words = {"rpm": "requests per minute", "itpm": "input tokens per minute", "otpm": "output tokens per minute"}
        name = words.get(verdict.dimension or "", UNITS[verdict.dimension or "rpm"][1])
        text = "This request would exceed your organization's rate limit"
        if self.tell_in_body:
            text += f" of {thousands(verdict.limit)} {name} (org: simulated, model: {model})"
        error = {"type": "rate_limit_error", "message": f"{text}. Please reduce the prompt length or try later."}
        return Problem(429, [*wait, ("x-should-retry", "true")], {"type": "error", "error": error})

    def error(self, status: int, message: str, *, code: str | None = None, type: str | None = None) -> Problem:
        kinds = {
            401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large",
            429: "rate_limit_error", 504: "timeout_error", 529: "overloaded_error",
        }  # fmt: skip
        kind = type or kinds.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return Problem(status, [], {"type": "error", "error": {"type": kind, "message": message}})

    def exhausted(self) -> Problem:
        problem = self.error(429, "Your organization has reached its spend limit.")
        problem.body["error"]["details"] = {"error_code": "enforced_spend_limit_reached"}
        return problem

    def stream_error(self, code: str, message: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": code, "message": message}}


@dataclass(frozen=True)
class MistralProfile(Profile):
    """Wall-clock minutes, actual usage afterwards; no reset, no Retry-After, nothing on streams."""

    name: str = "mistral"
    admission: Admission = "actual"
    window: Window = "fixed"
    tell_wait: bool = False
    tell_in_body: bool = False

    def limits(self, readings: Readings, *, wall: float, stream: bool, used: int) -> Headers:
        headers: Headers = []
        if stream:
            return headers
        for unit, dimension in (("req", "rpm"), ("tokens", "tpm")):
            if dimension in readings:
                limit, remaining, _ = readings[dimension]
                headers.append((f"x-ratelimit-limit-{unit}-minute", whole(limit)))
                headers.append((f"x-ratelimit-remaining-{unit}-minute", whole(remaining)))
        if used:
            headers.append(("x-ratelimit-tokens-query-cost", str(used)))
        return headers

    def _refusal(self, verdict: Verdict, model: str, wait: Headers) -> Problem:
        text = "Rate limit exceeded"
        if self.tell_in_body:
            text = numbers(verdict, text, model, "")
        return Problem(429, wait, {"object": "error", "message": text, "type": "rate_limited", "code": "1300"})

    def error(self, status: int, message: str, *, code: str | None = None, type: str | None = None) -> Problem:
        return Problem(status, [], {"object": "error", "message": message, "type": type, "code": code})


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(tell_limits=False, tell_wait=False, tell_in_body=False),
        OpenAIProfile(), AzureProfile(), GroqProfile(), AnthropicProfile(), MistralProfile(),
    )
}  # fmt: skip


def profile_for(provider: str) -> Profile:
    """The profile of a provider's name.

    Raises:
        ValueError: for an unknown name, with the known ones.
    """
    try:
        return PROFILES[provider]
    except (KeyError, TypeError):
        raise ValueError(f"unknown provider {provider!r}: use {', '.join(sorted(PROFILES))}") from None
