"""An answer as it is kept: what the provider said, or what kept the worker from asking; written there, checked here."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..core.request import Usage
from ..exceptions import (
    BudgetExceeded,
    CostLimitReached,
    QueueFull,
    RateLimitedLLMError,
    RequestExpired,
    WorkerStopped,
)
from ..stores.journal_values import Recorded, harmless

if TYPE_CHECKING:
    from ..calls.queued_call import QueuedCall

__all__ = ["Delivered", "Unsendable", "failure_of", "read_answer", "write_answer", "write_failure"]

VERSION = 1
# Our own errors travel as their numbers, and are made anew from them.
_OURS: dict[str, tuple[type[RateLimitedLLMError], tuple[str, ...]]] = {
    "BudgetExceeded": (BudgetExceeded, ("dimension", "limit", "requested")),
    "RequestExpired": (RequestExpired, ("waited", "allowed")),
    "CostLimitReached": (CostLimitReached, ("max_cost", "spent", "needed")),
    "QueueFull": (QueueFull, ("limit",)),
}
_TEXTS = {"dimension"}


class Unsendable(RateLimitedLLMError, RuntimeError):
    """A worker of the shared queue could not send the call, for a reason that is neither the provider's nor a limit's.

    Attributes:
        reason: a short word for it, as the worker told it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"a worker of the shared queue could not send this call ({reason}); see the worker's log")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a worker answered.

    Attributes:
        answer: the provider's answer, whatever its status; None when there is none.
        error: why there is none: one of ours by name, "connection", "timeout", or a word of the worker's.
        values: the numbers of an error of ours.
        usage: what it used, as far as it is known.
        tries: how often it was sent.
    """

    answer: Recorded | None
    error: str = ""
    values: tuple[Any, ...] = ()
    usage: Usage | None = None
    tries: int = 1

    elsewhere: ClassVar[Literal[True]] = True

    @property
    def good(self) -> bool:
        """Whether it is an answer that may be kept and given again."""
        return self.answer is not None and self.answer.status < 400

    def accepted(self, call: QueuedCall) -> Recorded:
        """The provider's answer, for the SDK to make its object of; the call's books are kept.

        Raises:
            Exception: the SDK's own error for the provider's, or ours.
        """
        answer = self.answer
        if answer is None:
            raise self._error(call)
        if answer.status >= 400:
            raise _status_error(call, answer)
        ledger = call.runtime.ledger
        ledger.sent(call, call.estimated, max(call.submitted_at, ledger.clock() - answer.seconds))
        call.tries = self.tries
        ledger.answered(call, self.usage)
        if self.usage is not None:
            call.learn(self.usage)
        if call.entry is not None and call.entry.elsewhere:
            call.entry.keep(self)
        return answer

    def _error(self, call: QueuedCall) -> Exception:
        if self.error in _OURS:
            return _OURS[self.error][0](*self.values)
        sdk = type(call.client)._sdk
        if self.error in ("connection", "timeout"):
            request = call.client._build_request(_copy(call.options))
            kind = sdk.APITimeoutError if self.error == "timeout" else sdk.APIConnectionError
            return kind(request=request)  # type: ignore[no-any-return]
        return Unsendable(self.error)


def _status_error(call: QueuedCall, answer: Recorded) -> Exception:
    import sys

    client = call.client
    request = client._build_request(_copy(call.options))
    httpx = sys.modules[type(request).__module__.partition(".")[0]]
    response = httpx.Response(answer.status, headers=list(answer.headers), content=answer.body, request=request)
    # The SDK's own: ours would have the call wait for the limit, which the worker has done.
    error: Exception = type(client)._base._make_status_error_from_response(client, response)
    return error


def _copy(options: Any) -> Any:
    return options.model_copy() if hasattr(options, "model_copy") else options.copy()


# -- written by workers -----------------------------------------------------------------------------------------------


def write_answer(recorded: Recorded, usage: Usage | None, tries: int) -> bytes:
    """An answer of the provider's, as it is kept: headers that tell whose account it is are left out."""
    said: dict[str, Any] = {
        "v": VERSION, "status": recorded.status, "headers": harmless(recorded.headers),
        "seconds": round(recorded.seconds, 6), "tries": tries,
    }  # fmt: skip
    if usage is not None:
        said["usage"] = [usage.input_tokens, usage.output_tokens, usage.cached_tokens]
    try:
        said["text"] = recorded.body.decode("utf-8")
    except UnicodeDecodeError:
        said["base64"] = base64.b64encode(recorded.body).decode("ascii")
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def write_failure(name: str, values: tuple[Any, ...] = ()) -> bytes:
    """What kept a worker from having an answer."""
    return json.dumps({"v": VERSION, "error": name, "values": values}, separators=(",", ":")).encode("utf-8")


def failure_of(error: BaseException) -> tuple[str, tuple[Any, ...]] | None:
    """How an error of a call travels, when it is no answer of the provider's; None: it is not the call's end."""
    name = type(error).__name__
    if isinstance(error, WorkerStopped):
        return None
    if name in _OURS and isinstance(error, RateLimitedLLMError):
        return name, tuple(getattr(error, each) for each in _OURS[name][1])
    mro = {base.__name__ for base in type(error).__mro__}
    if "APITimeoutError" in mro or "TimeoutException" in mro:
        return "timeout", ()
    if "APIConnectionError" in mro or "TransportError" in mro or "StreamError" in mro:
        return "connection", ()
    return name, ()


# -- read by submitters -----------------------------------------------------------------------------------------------


def read_answer(text: bytes) -> Delivered:
    """What a worker has written; what makes no sense is an error of the call, and never of the one who waits."""
    try:
        said = json.loads(text)
        if not isinstance(said, dict) or said.get("v") != VERSION:
            return Delivered(None, "an answer of another release")
        if "error" in said:
            return _read_failure(said)
        body = base64.b64decode(said["base64"], validate=True) if "base64" in said else said["text"].encode("utf-8")
        status, seconds = said["status"], _number(said["seconds"])
        if isinstance(status, bool) or not isinstance(status, int) or not 100 <= status <= 599:
            return _unreadable()
        headers = harmless((str(name), str(value)) for name, value in said["headers"])
        if any(not (name + value).isprintable() or not (name + value).isascii() for name, value in headers):
            return _unreadable()
        return Delivered(
            Recorded(status, headers, body, seconds), usage=_usage(said.get("usage")), tries=_count(said["tries"])
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _unreadable()


def _unreadable() -> Delivered:
    return Delivered(None, "an answer that cannot be read")


def _read_failure(said: dict[str, Any]) -> Delivered:
    name, values = said["error"], said.get("values", [])
    if not isinstance(name, str) or not name.isprintable() or len(name) > 80:
        return _unreadable()
    if name in _OURS:
        fields = _OURS[name][1]
        if not isinstance(values, list) or len(values) != len(fields):
            return _unreadable()
        numbers = [
            str(value)[:20] if field in _TEXTS else _number(value) for field, value in zip(fields, values, strict=True)
        ]
        return Delivered(None, name, tuple(numbers))
    return Delivered(None, name)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError("no number")
    return max(0.0, float(value))


def _count(value: object) -> int:
    return max(1, min(1_000, int(_number(value))))


def _usage(value: object) -> Usage | None:
    if not isinstance(value, list) or len(value) != 3:
        return None
    return Usage(*(int(min(_number(each), 1e12)) for each in value))
