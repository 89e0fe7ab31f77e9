"""A call as it travels, and what both sides check: a hostile queue can make a worker spend, but nothing else.

A job names an endpoint out of the list below and brings a JSON body. It names no host, no key and no header that could
carry either: those are the worker's. So whoever can write into the queue can have calls made, and no more.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LARGEST", "InvalidJob", "Job", "check", "sender_of"]

VERSION = 1
LARGEST = 20_000_000  # bytes of a job
DEEPEST = 100  # levels of a body
LONGEST = 7 * 86_400.0  # seconds that a call may be given
_OPENAI = frozenset(
    {"/chat/completions", "/completions", "/responses", "/embeddings", "/moderations", "/images/generations",
     "/audio/speech"}
)  # fmt: skip
_GROQ = frozenset({"/openai/v1/chat/completions", "/openai/v1/embeddings", "/openai/v1/audio/speech"})
_ANTHROPIC = frozenset({"/v1/messages", "/v1/complete"})
PATHS = {"openai": _OPENAI, "azure": _OPENAI, "groq": _GROQ, "anthropic": _ANTHROPIC}
HEADERS = frozenset({"accept", "anthropic-beta", "openai-beta", "anthropic-version", "groq-model-version"})
QUERIES = {"beta": frozenset({"true", "false"})}  # anthropic's beta resources
_ID = re.compile(r"[0-9a-f]{32,64}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{1,1000}")
_KEYS = frozenset(
    {"v", "id", "submitter", "method", "provider", "path", "query", "headers", "body", "priority", "tenant", "tag",
     "submitted", "deadline", "max_wait", "timeout", "max_retries", "idempotency_key"}
)  # fmt: skip


class InvalidJob(ValueError):
    """It is no job that a worker would send; says why, and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Job:
    """A call that travels.

    Attributes:
        id: unique; the answer is kept under it.
        submitter: the process that waits for it.
        provider, path, query, headers, body: the request; the path is relative to the worker's base URL.
        priority, tenant, tag: see `CallOptions`.
        submitted: when, in seconds of the server's clock.
        deadline, max_wait: seconds from then; None for no bound.
        timeout: seconds that one attempt may take; None for the worker's own.
        max_retries: None for the worker's own.
        idempotency_key: for providers that know it.
    """

    id: str
    submitter: str
    provider: str
    path: str
    body: dict[str, Any] = field(repr=False)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    priority: int = 5
    tenant: str = ""
    tag: str = ""
    submitted: float = 0.0
    deadline: float | None = None
    max_wait: float | None = None
    timeout: float | None = None
    max_retries: int | None = None
    idempotency_key: str | None = None

    @property
    def stream(self) -> bool:
        """Whether it is answered with a stream."""
        return self.body.get("stream") is True

    def left(self, now: float) -> float | None:
        """Seconds that are left of its deadline; never more than it was given, however the clocks stand."""
        return _left(self.deadline, self.submitted, now)

    def wait_left(self, now: float) -> float | None:
        """The same for what it may wait before it is sent."""
        return _left(self.max_wait, self.submitted, now)

    def payload(self) -> dict[str, Any]:
        """It as JSON; what says nothing is left out.

        Raises:
            InvalidJob: no worker would take it.
        """
        full = {"v": VERSION, "method": "POST", **{name: getattr(self, name) for name in Job.__slots__}}
        made = {name: value for name, value in full.items() if value not in (None, {}, "") or name == "body"}
        check(made)
        return made


def _left(seconds: float | None, since: float, now: float) -> float | None:
    return None if seconds is None else min(seconds, max(0.0, since + seconds - now))


def check(payload: object) -> Job:
    """The job of a payload, if it is one.

    Raises:
        InvalidJob: it is not, or asks for what no worker does.
    """
    if not isinstance(payload, dict):
        raise InvalidJob("a job is a JSON object")
    if payload.get("v") != VERSION or isinstance(payload["v"], bool):
        raise InvalidJob(f"its version is not {VERSION}: are submitters and workers of the same release?")
    if not payload.keys() <= _KEYS:
        raise InvalidJob("it says more than a job does")
    if payload.get("method") != "POST":
        raise InvalidJob("its method is not POST")
    provider = payload.get("provider")
    if not isinstance(provider, str) or provider not in PATHS:
        raise InvalidJob(f"its provider is none of {', '.join(sorted(PATHS))}")
    path = payload.get("path")
    if not isinstance(path, str) or path not in PATHS[provider]:
        raise InvalidJob(f"its path is none that a queue carries for {provider}: {', '.join(sorted(PATHS[provider]))}")
    return Job(
        id=_id(payload, "id"),
        submitter=_id(payload, "submitter"),
        provider=provider,
        path=path,
        body=_body(payload.get("body")),
        query=_query(payload.get("query", {})),
        headers=_headers(payload.get("headers", {})),
        priority=_whole(payload, "priority", 0, 10, 5),
        tenant=_text(payload, "tenant", 200) or "",
        tag=_text(payload, "tag", 200) or "",
        submitted=_seconds(payload, "submitted", math.inf) or 0.0,
        deadline=_seconds(payload, "deadline", LONGEST),
        max_wait=_seconds(payload, "max_wait", LONGEST),
        timeout=_seconds(payload, "timeout", LONGEST),
        max_retries=_whole(payload, "max_retries", 0, 20, None),
        idempotency_key=_text(payload, "idempotency_key", 200),
    )


def sender_of(payload: object) -> tuple[str, str] | None:
    """The id and the submitter of what is perhaps no job, so that somebody hears of it; None when nobody can."""
    if not isinstance(payload, dict):
        return None
    try:
        return _id(payload, "id"), _id(payload, "submitter")
    except InvalidJob:
        return None


def _id(payload: dict[str, Any], name: str) -> str:
    value = payload.get(name)
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise InvalidJob(f"its {name} is not 32 to 64 hexadecimal digits")
    return value


def _body(body: object) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise InvalidJob("its body is not a JSON object")
    try:
        text = json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidJob(f"its body is no JSON ({type(error).__name__})") from None
    if len(text) > LARGEST:
        raise InvalidJob(f"its body has {len(text):,} bytes, and a queue carries {LARGEST:,} at most")
    if _depth(body) > DEEPEST:
        raise InvalidJob(f"its body is nested more than {DEEPEST} levels deep")
    return body


def _depth(value: object) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        inner: list[object] = []
        for each in level:
            if isinstance(each, dict):
                inner.extend(each.values())
            elif isinstance(each, list):
                inner.extend(each)
        level = [each for each in inner if isinstance(each, (dict, list))]
    return deepest


def _query(query: object) -> dict[str, str]:
    if not isinstance(query, dict):
        raise InvalidJob("its query is not a JSON object")
    for name, value in query.items():
        if not isinstance(value, str) or value not in QUERIES.get(name, ()):
            raise InvalidJob("its query has a parameter that a queue does not carry")
    return query


def _headers(headers: object) -> dict[str, str]:
    if not isinstance(headers, dict):
        raise InvalidJob("its headers are not a JSON object")
    for name, value in headers.items():
        if name.lower() not in HEADERS:
            raise InvalidJob(f"it has a header that a queue does not carry; it carries {', '.join(sorted(HEADERS))}")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise InvalidJob("a header of it is not one line of plain text")
    return headers


def _text(payload: dict[str, Any], name: str, longest: int) -> str | None:
    value = payload.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > longest or not value.isprintable():
        raise InvalidJob(f"its {name} is not one line of text of at most {longest} characters")
    return value


def _whole(payload: dict[str, Any], name: str, least: int, most: int, otherwise: Any) -> Any:
    value = payload.get(name, otherwise)
    if value is otherwise:
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidJob(f"its {name} is not a whole number from {least} to {most}")
    return value


def _seconds(payload: dict[str, Any], name: str, most: float) -> float | None:
    value = payload.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InvalidJob(f"its {name} is no number of seconds from 0 up")
    return min(float(value), most)
