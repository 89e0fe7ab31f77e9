"""What a failure is called in metrics and traces: a short word out of few, never an error's text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.feedback import Kind

if TYPE_CHECKING:
    from ..engine.jobs import AttemptFailed

__all__ = ["error_type", "reason_of"]


def error_type(error: BaseException) -> str:
    """The status of an error that has one ("503"); otherwise its class ("APITimeoutError")."""
    for holder in (error, getattr(error, "response", None)):
        status: Any = getattr(holder, "status_code", None)
        if isinstance(status, int) and 100 <= status <= 599:
            return str(int(status))
    return type(error).__name__


def reason_of(failure: AttemptFailed) -> str:
    """Why an attempt is to be repeated: the limit that refused it ("rpm", ...; "unknown"), or as `error_type`."""
    outcome = failure.feedback.outcome
    if outcome.kind is Kind.LIMITED:
        return outcome.dimension or "unknown"
    return error_type(failure.error)
