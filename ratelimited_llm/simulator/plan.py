"""What is to be sent for one request, and how a fault bends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .chat import json_bytes
from .enforcement import Enforcement, Ticket
from .faults import Fault
from .profile import Headers, Profile
from .records import Record
from .replies import Answer, Endpoint, Events

__all__ = ["Events", "Plan", "override", "spoil"]


@dataclass(slots=True)
class Plan:
    """What to send for one request, and when.

    Attributes:
        status, headers: of the answer; the length of a plain body is added when it is sent.
        body: of a plain answer.
        events: of a stream, each with the tokens it carries; None for a plain answer.
        delay: seconds before anything is sent.
        per_token: seconds that each token of a stream takes.
        fault: what happens to it on the way (reset, stall, truncate), or None.
        record: its line in the log.
        pool: whose limits it spent; None when it was not admitted.
        ticket: of its admission.
        answer: what it was answered with; None for an error.
        lies: headers that a fault sets or removes.
        refused: a limit refused it.
        finished: its books are closed.
    """

    status: int
    headers: Headers
    body: bytes
    record: Record
    events: Events | None = None
    delay: float = 0.0
    per_token: float = 0.0
    fault: Fault | None = None
    pool: Enforcement | None = None
    ticket: Ticket | None = None
    answer: Answer | None = None
    lies: Mapping[str, str | None] | None = None
    refused: bool = False
    finished: bool = False


def override(headers: Headers, lies: Mapping[str, str | None]) -> Headers:
    """The headers with those that a fault lies about; None removes one."""
    lower = {name.lower(): value for name, value in lies.items()}
    kept = [(name, value) for name, value in headers if name not in lower]
    return kept + [(name, value) for name, value in lower.items() if value is not None]


def spoil(events: Events, fault: Fault, endpoint: Endpoint, speaker: Profile, answer: Answer) -> Events:
    """The events of a stream that goes wrong in itself; what goes wrong on the wire is left to the connection."""
    if fault.kind == "malformed":
        return [*events[: fault.after], (b'data: {"id": "\n\n', 0), *events[fault.after :]]
    if fault.kind != "error_event":
        return events
    code = fault.code or "rate_limit_exceeded"
    message = fault.message or "Rate limit reached. Please try again in 11.054s."
    error = speaker.stream_error(code, message)
    if endpoint.kind == "responses":
        failed: dict[str, Any] = {"id": f"resp_{answer.id}", "object": "response", "status": "failed", "output": []}
        failed["error"] = {"code": code, "message": message}
        error = {"type": "response.failed", "sequence_number": fault.after, "response": failed}
    line = b"data: " + json_bytes(error) + b"\n\n"
    name = {"responses": b"event: response.failed\n", "messages": b"event: error\n"}.get(endpoint.kind, b"")
    return [*events[: fault.after], (name + line, 0)]
