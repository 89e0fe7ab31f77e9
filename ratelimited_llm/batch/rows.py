"""Rows of the output, as OpenAI's Batch API writes them."""

from __future__ import annotations

import json
import math
import uuid
from typing import Any

from .lines import BadLine, Line

__all__ = ["answer_row", "bad_row", "failure_row"]


def answer_row(line: Line, status: int, request_id: str | None, body: Any) -> bytes:
    """The row of an answered call, as one line of JSON."""
    # Its beginning and end are what `output` knows answers by.
    return _dumped(_row(line.custom_id, {"status_code": status, "request_id": request_id, "body": body}, None))


def bad_row(bad: BadLine) -> bytes:
    """The row of a line that could not be sent; it tells its number."""
    error = {"code": "invalid_line", "message": f"line {bad.number}: {bad.message}"}
    return _dumped({**_row(bad.custom_id, None, error), "line": bad.number})


def failure_row(line: Line, error: BaseException, secret: str | None = None) -> bytes:
    """The row of a call that failed, with the provider's answer if there was one.

    Args:
        line: the call.
        error: what it failed with.
        secret: a text to leave out: providers are known to repeat keys in their errors.
    """
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", None)
    told = None
    if response is not None and isinstance(status, int):
        request_id = response.headers.get("x-request-id") or response.headers.get("request-id")
        told = {"status_code": status, "request_id": request_id, "body": _body(response)}
    row = _dumped(_row(line.custom_id, told, {"code": _code(error, status), "message": _message(error)}))
    if secret and len(secret) >= 8:
        row = row.replace(json.dumps(secret)[1:-1].encode(), b"***")
    return row


def _row(custom_id: str | None, response: Any, error: Any) -> dict[str, Any]:
    return {"id": f"batch_req_{uuid.uuid4().hex}", "custom_id": custom_id, "response": response, "error": error}


def _body(response: Any) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return response.text


def _code(error: BaseException, status: object) -> str:
    """The provider's code, or a word of the same kind for errors that have none."""
    code = getattr(error, "code", None)
    if isinstance(code, str) and code:
        return code
    if isinstance(status, int):
        kind = getattr(error, "type", None)
        return kind if isinstance(kind, str) and kind else f"http_{status}"
    words = "".join("_" + letter.lower() if letter.isupper() else letter for letter in type(error).__name__)
    return words.lstrip("_").replace("a_p_i_", "").removesuffix("_error")


def _message(error: BaseException) -> str:
    return str(getattr(error, "message", None) or error) or type(error).__name__


def _dumped(row: dict[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a character in an escape: valid JSON, and no valid UTF-8
        return json.dumps(row, allow_nan=False).encode() + b"\n"
    except ValueError:  # the provider sent NaN, which is no JSON
        return _dumped(_finite(row))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
