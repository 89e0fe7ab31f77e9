"""What a provider's dialect has to say, and what most of them say alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Literal

from ..core.feedback import ANSWERED, Kind, Outcome, Reading
from ..core.request import Cost, Usage
from . import parsing
from .bodies import ErrorFacts, read_error
from .parsing import count, field, finite
from .refusals import LimitText, limit_text

__all__ = ["DEFAULT_OUTPUT", "Dialect"]

DEFAULT_OUTPUT = 256
"""Tokens that an answer is taken to have when neither the call nor experience says: ours, a few paragraphs."""

_NO_OUTPUT = frozenset({"embeddings", "moderations", "images", "audio", "rerank", "count_tokens"})

_CAPS = ("max_completion_tokens", "max_tokens", "max_output_tokens")

# The quota family, which no waiting helps. Sources: OpenAI's error-codes guide and help article 5955604;
# billing_hard_limit_reached is what its image endpoint says; the last is Anthropic's error.details.error_code.
_EXHAUSTED = frozenset({
    "insufficient_quota", "credit_balance_exhausted", "organization_usage_limit_exceeded", "billing_hard_limit_reached",
    "billing_not_active", "enforced_spend_limit_reached", "insufficient_credits", "insufficient_balance",
})  # fmt: skip
# The provider's trouble, even when it comes as a 429: OpenAI, Anthropic, Groq's flex tier, Cerebras' queue, Mistral.
_OVERLOADED = frozenset({
    "slow_down", "server_is_overloaded", "service_unavailable_error", "overloaded_error", "engine_overloaded_error",
    "resource_unavailable", "capacity_exceeded", "queue_exceeded", "service_tier_capacity_exceeded",
})  # fmt: skip
_LIMITED = frozenset({
    "rate_limit_exceeded", "rate_limit_error", "rate_limit_reached", "ratelimitreached", "rate_limited",
    "resource_exhausted", "too_many_requests", "too_many_requests_error", "too_many_tokens_error",
    "token_quota_exceeded", "request_quota_exceeded", "tokens", "requests",
})  # fmt: skip
_TROUBLE = frozenset({
    "server_error", "api_error", "internal_server_error", "internal_error", "internal", "timeout_error", "timeout",
    "unavailable", "service_unavailable", "vector_store_timeout",
})  # fmt: skip


class Dialect:
    """How one provider counts, and how it talks about its limits. Stateless: one instance serves every client.

    Nothing in a dialect looks at a clock, does I/O or raises on what a server sent. A subclass changes the attributes
    and the methods in which its provider differs; this class is the careful OpenAI-compatible one.

    Attributes:
        name: a short name for logs and metrics.
        charge: how tokens are charged against tpm. "reserve": held at admission and never given back; "settle":
            held, then corrected to what was used; "actual": counted as they are used. None when not known: run the
            three side by side and follow the one that the `remaining` headers agree with.
        window: "bucket" refills continuously; "fixed" starts anew at some moment each minute.
        request_smoothing: seconds over which the requests limit is judged, where the provider documents less than a
            minute; None where it does not.
        counts_cached: whether input tokens read from the provider's cache count towards its limits.
    """

    name: ClassVar[str] = "generic"
    charge: ClassVar[Literal["reserve", "settle", "actual"] | None] = None
    window: ClassVar[Literal["bucket", "fixed"]] = "bucket"
    request_smoothing: ClassVar[float | None] = None
    counts_cached: ClassVar[bool] = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    # --- before the call ---------------------------------------------------------------------------------------

    def cost(self, path: str, body: Mapping[str, Any], prompt_tokens: int, expected_output: int | None) -> Cost:
        """What a call will be charged, by the provider's admission rule.

        Args:
            path: of the URL, with or without base path and query ("/chat/completions").
            body: the request as it will be sent; values that make no sense count as unset.
            prompt_tokens: the estimate of its input.
            expected_output: tokens that its answer probably has, from experience; None for none.

        Returns:
            All tokens from 0 to `parsing.MOST_TOKENS`. Answers asked for at once (`n`, `best_of`, several prompts in
            one completions call) are counted each.
        """
        prompt = count(prompt_tokens) or 0
        if _has_no_output(path):
            return Cost(prompt, prompt, prompt, 0)
        cap = _output_cap(body)
        answers = _answers(path, body)
        likely = count(expected_output)
        if likely is None:
            likely = DEFAULT_OUTPUT
        if cap is not None:
            likely = min(likely, cap)
        output = min(likely * answers, parsing.MOST_TOKENS)
        most = None if cap is None else min(cap * answers, parsing.MOST_TOKENS)
        reserved = min(self._reserved(prompt, most, output), parsing.MOST_TOKENS)
        return Cost(reserved, min(prompt + output, parsing.MOST_TOKENS), prompt, output)

    def _reserved(self, prompt: int, most: int | None, output: int) -> int:
        """Tokens held at admission: prompt + max_tokens, the careful rule (Groq, Azure; never too little elsewhere).

        Args:
            prompt: input tokens.
            most: output tokens that the call allows, all answers together; None when it sets no maximum.
            output: output tokens that it probably has.
        """
        return prompt + (output if most is None else most)

    def family(self, model: str) -> str:
        """The name of the limit pool that a model belongs to: here, itself, since a wrong merge is worse than none."""
        return model if isinstance(model, str) else ""

    # --- after the answer: headers and errors ------------------------------------------------------------------

    def readings(self, headers: Mapping[str, str]) -> tuple[Reading, ...]:
        """The limits that an answer's headers told; empty when they told none.

        Args:
            headers: looked up in lower case: any case-insensitive mapping, or a dict with lower-case names.

        Returns:
            At most one reading per dimension; every number finite and >= 0.
        """
        return ()

    def classify(self, status: int, headers: Mapping[str, str], body: object) -> Outcome:
        """How an attempt ended, by status, error code and type; words decide nothing that a code can.

        Args:
            status: the HTTP status.
            headers: as for `readings`.
            body: raw bytes or text, decoded JSON, or an SDK object; not looked at below 400.

        Returns:
            For a refusal by a limit, the longest wait that any part of the answer asked for (never 0: that is None,
            as the SDKs read it), and the numbers and the dimension where they were told.
        """
        if status < 400:
            return ANSWERED if status == 200 else Outcome(Kind.OK, status=status)
        return self._judge(status, headers, read_error(body))

    def classify_event(self, error: object) -> Outcome:
        """How a stream that began with 200 ended, from the error event inside it.

        Args:
            error: the event (`response.failed`, `error`) or the error object in it, decoded or not. One that names
                neither code nor type is taken for the provider's trouble.

        Returns:
            As `classify`; its status is 200.
        """
        facts = read_error(error)
        return dataclasses.replace(self._judge(self._likely_status(facts), {}, facts), status=200)

    def _judge(self, status: int, headers: Mapping[str, str], error: ErrorFacts) -> Outcome:
        said = self._refusal(headers, error)
        kind = self._kind(status, headers, error, said)
        code = error.detail or error.code or error.type or None
        if kind not in (Kind.LIMITED, Kind.OVERLOADED, Kind.TOO_LARGE):
            return Outcome(kind, status=status, code=code)
        wait = max(said.wait or 0.0, parsing.retry_after(headers) or 0.0) or None
        if kind is Kind.OVERLOADED:
            return Outcome(kind, wait, status=status, code=code)
        if kind is Kind.TOO_LARGE:
            wait = None
        elif said.dimension != "concurrency" and (renewal := self._renewal(headers)):
            wait = max(wait or 0.0, renewal)
        dimension = said.dimension or self._short(headers, error)
        return Outcome(kind, wait, dimension, said.limit, said.used, said.requested, status, code)

    def _kind(self, status: int, headers: Mapping[str, str], error: ErrorFacts, said: LimitText) -> Kind:
        names = error.names()
        if status == 402 or any(name in _EXHAUSTED or name.endswith("spend_limit_exceeded") for name in names):
            return Kind.EXHAUSTED
        if status == 413 or (status == 429 and _too_large(error, said)):
            return Kind.TOO_LARGE
        if status == 429 and (not _OVERLOADED.isdisjoint(names) or "sufficient resources" in error.message):
            return Kind.OVERLOADED  # the latter is OpenAI's flex tier, whose code is not documented
        # What the provider says about retrying beats the status, as in all three SDKs. But a refusal that names its
        # wait is worth that wait, and Cerebras says "false" about a queue that clears in seconds (above).
        again = parsing.header(headers, "x-should-retry")
        if status == 429:
            final = again == "false" and said.wait is None and parsing.retry_after(headers) is None
            return Kind.REJECTED if final else Kind.LIMITED
        if status in (408, 409) or status >= 500:
            return Kind.REJECTED if again == "false" else Kind.OVERLOADED
        return Kind.OVERLOADED if again == "true" else Kind.REJECTED

    def _refusal(self, headers: Mapping[str, str], error: ErrorFacts) -> LimitText:
        """What the refusal says about itself; dialects whose bodies say it elsewhere than in prose add to it."""
        return limit_text(error.message)

    def _renewal(self, headers: Mapping[str, str]) -> float | None:
        """Seconds of the period of whichever limit has nothing left, where a header tells it; None where none does.

        Source: Azure was captured refusing with `retry-after: 1` and remaining-tokens 0; four obedient retries failed.
        """
        longest = 0.0
        for what in ("requests", "tokens"):
            if finite(headers.get(f"x-ratelimit-remaining-{what}")) == 0:
                longest = max(longest, finite(headers.get(f"x-ratelimit-renewalperiod-{what}")) or 0.0)
        return min(longest, parsing.LONGEST) or None

    def _short(self, headers: Mapping[str, str], error: ErrorFacts) -> str | None:
        """Which limit refused, from the one reading with nothing left, else from the error's type; None if unclear."""
        empty = [told.dimension for told in self.readings(headers) if told.remaining == 0]
        if len(empty) == 1:
            return empty[0]
        return {"tokens": "tpm", "requests": "rpm"}.get(error.type)

    def _likely_status(self, error: ErrorFacts) -> int:
        """The status that an error inside a 200 would have had."""
        if error.code.isdigit() and 400 <= int(error.code) < 600:
            return int(error.code)
        names = error.names()
        if not _LIMITED.isdisjoint(names):
            return 429
        if not any(names) or not _OVERLOADED.isdisjoint(names) or not _TROUBLE.isdisjoint(names):
            return 500
        return 413 if "request_too_large" in names else 400

    # --- after the answer: usage -------------------------------------------------------------------------------

    def usage(self, answer: object) -> Usage | None:
        """The tokens that an answer says it used; None when it does not say.

        Args:
            answer: decoded JSON or an SDK object: chat, completions, responses, embeddings, messages.

        Returns:
            The whole prompt in `input_tokens`, and of it in `cached_tokens` what does not count towards the limits:
            what counts is `total_tokens - cached_tokens`.
        """
        return self._tokens(field(answer, "usage"))

    def stream_usage(self, event: object, so_far: Usage | None) -> Usage | None:
        """The tokens known after one more event of a stream; None until an event says something.

        Args:
            event: one chunk or event, decoded or an SDK object.
            so_far: what this method answered to the event before; None at the first.
        """
        used = self._tokens(field(event, "usage"))  # chat: in the last chunk, and null in all others
        if used is not None:
            return used
        if field(event, "choices") is None:  # responses: in response.completed, .incomplete and .failed
            used = self._tokens(field(field(event, "response"), "usage"))
        return so_far if used is None else used

    def _tokens(self, used: object) -> Usage | None:
        """Read a usage object under either family of names; None when it has neither."""
        if used is None:
            return None
        details = "prompt_tokens_details"
        prompt, output = count(field(used, "prompt_tokens")), None
        if prompt is not None:
            output = count(field(used, "completion_tokens"))
        else:
            details = "input_tokens_details"
            prompt, output = count(field(used, "input_tokens")), count(field(used, "output_tokens"))
            if prompt is None and output is None:
                prompt = count(field(used, "total_tokens"))
                if prompt is None:
                    return None
        prompt = prompt or 0
        if self.counts_cached:
            return Usage(prompt, output or 0)
        cached = min(count(field(field(used, details), "cached_tokens")) or 0, prompt)
        return Usage(prompt, output or 0, cached)


def _too_large(error: ErrorFacts, said: LimitText) -> bool:
    """Whether a 429 asks for more than a whole limit: OpenAI sends it as "Request too large ... Limit, Requested"."""
    if said.limit is not None and said.requested is not None:
        return said.requested > said.limit
    return error.message[:200].lower().startswith("request too large") or "request_too_large" in error.names()


@lru_cache(maxsize=256)
def _has_no_output(path: str) -> bool:
    """Whether a path is of an endpoint that generates no tokens."""
    return not _NO_OUTPUT.isdisjoint(path.partition("?")[0].rsplit("/", 2)[-2:])


def _output_cap(body: Mapping[str, Any]) -> int | None:
    """The largest of the parameters that cap the output of one answer; None when no usable one is set."""
    most: int | None = None
    for name in _CAPS:
        value = body.get(name)
        if value is not None and (cap := count(value)) is not None and (most is None or cap > most):
            most = cap
    return most


def _answers(path: str, body: Mapping[str, Any]) -> int:
    """How many answers one call asks for: `n`, `best_of`, and every prompt in the list of an old completions call."""
    n, best_of, prompts = body.get("n"), body.get("best_of"), body.get("prompt")
    if n is None and best_of is None and prompts is None:
        return 1
    n, best_of = count(n) or 1, count(best_of) or 1
    several = isinstance(prompts, list) and len(prompts) > 1 and not isinstance(prompts[0], int)
    return min(max(n, best_of), 1000) * (len(prompts) if several and isinstance(prompts, list) else 1)
