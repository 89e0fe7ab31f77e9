"""The values of a journal: what it keeps of an answer, and what it says when a call wants to be sent."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

__all__ = ["Claimed", "Elsewhere", "JournalStats", "Place", "Recorded", "harmless"]

Place = tuple[bytes, int]  # a call in a journal: the key of its request, and which of the equal ones it is

# What explains an answer later on. Everything else is left out: cookies, organizations and whatever a gateway adds.
_NAMES = frozenset({
    "apim-request-id", "azureml-model-session", "cf-ray", "content-encoding", "content-language", "content-type",
    "date", "request-id", "retry-after", "retry-after-ms", "x-envoy-upstream-service-time", "x-ms-region",
    "x-ms-request-id", "x-request-id",
})  # fmt: skip
_PREFIXES = ("anthropic-", "openai-", "x-groq-", "x-ratelimit-")
_ACCOUNTS = ("organization", "project", "workspace", "account", "key", "token-id", "cookie", "auth")


@dataclass(frozen=True, slots=True)
class Recorded:
    """An answer as it is kept.

    Attributes:
        status: of HTTP.
        headers: of the response; only harmless ones are kept (see `harmless`).
        body: as it came.
        seconds: from dispatch to answer.
        at: wall clock when it was recorded, in seconds since 1970; with 0.0 the journal fills it in.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    seconds: float
    at: float = 0.0

    elsewhere: ClassVar[Literal[False]] = False  # see `queues.answers.Delivered`


@dataclass(frozen=True, slots=True)
class Claimed:
    """It is yours to send.

    Attributes:
        perhaps_paid: an earlier run ended while it was in flight, so the provider may have answered it already.
    """

    perhaps_paid: bool = False


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another live process, or another journal object on the same file, is sending it: `follow` it."""


@dataclass(frozen=True, slots=True)
class JournalStats:
    """What is in a journal, and what this process did with it.

    Attributes:
        answered, failed: calls with an answer; calls whose last attempt failed, and that nobody has tried since.
        unfinished: calls that were claimed and have no answer: in flight now, or when a run ended.
        bytes: of the file and its write-ahead log.
        oldest, newest: wall clock of the first and the last answer; None when there is none.
        reused, recorded, perhaps_paid: of this process: answers found, answers recorded, and calls that it claimed
            although an earlier run may have paid for them.
        unwritten: answers that this process could not write yet; it tries again.
        trouble: what is wrong with the file at present, or None.
    """

    answered: int
    failed: int
    unfinished: int
    bytes: int
    oldest: float | None
    newest: float | None
    reused: int = 0
    recorded: int = 0
    perhaps_paid: int = 0
    unwritten: int = 0
    trouble: str | None = None


def harmless(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The headers that may be kept: of content, model, request and limits; none that tells whose account it is."""
    return tuple([(name, value) for name, value in headers if _is_harmless(name.lower())])


@functools.lru_cache(512)
def _is_harmless(name: str) -> bool:
    if name in _NAMES:
        return True
    if not name.startswith(_PREFIXES):
        return False
    return name.startswith(("x-ratelimit-", "anthropic-ratelimit-")) or not any(word in name for word in _ACCOUNTS)
