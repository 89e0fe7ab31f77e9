"""A copy of a request body as it is now, so that what the caller changes later changes nothing."""

from __future__ import annotations

import copy
import json
import math
import sys
from datetime import datetime
from typing import Any

__all__ = ["given_only", "snapshot", "to_json"]

# Where the SDKs make JSON of more than json does; older ones have no such module, and refuse that at the call.
ENCODERS = ("openai._utils._json", "groq._utils._json", "anthropic._utils._json")
NOT_GIVEN = frozenset({"Omit", "NotGiven"})  # how the SDKs write that an argument was not given

DEEPEST = 200  # levels; json itself gives up at about a thousand, with a RecursionError


def snapshot(value: Any, depth: int = 0) -> Any:
    """Copy what JSON is made of, level by level; other values the SDK may know how to send are deep-copied.

    Raises:
        TypeError: for a value that cannot be JSON.
        ValueError: for one nested too deeply, or containing itself, or text that is no valid Unicode.
    """
    kind = type(value)
    if kind is str:
        if not value.isascii():
            value.encode()  # a lone surrogate cannot be sent; better to hear of it here
        return value
    if kind is int or kind is bool or value is None:
        return value
    if depth > DEEPEST:
        raise ValueError(f"the request body is nested more than {DEEPEST} levels deep, or contains itself")
    if kind is dict:
        try:
            plain = "".join(value).isascii()  # the quickest way to see that there is nothing to see
        except TypeError:
            plain = False
        if not plain:
            _check_keys(value)
        return {key: snapshot(item, depth + 1) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [snapshot(item, depth + 1) for item in value]
    return _other(value, depth)


def _check_keys(value: dict[Any, Any]) -> None:
    for key in value:
        if isinstance(key, str):
            key.encode()
        elif isinstance(key, float) and not math.isfinite(key):
            raise ValueError(f"{key!r} cannot be sent: JSON has no such number")
        elif not (key is None or isinstance(key, (int, float))):  # which JSON writes as text
            raise TypeError(f"keys of a request body must be strings, not {type(key).__name__}")


def _other(value: Any, depth: int) -> Any:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value!r} cannot be sent: JSON has no such number")
        return value
    if isinstance(value, str):
        str.encode(value)
        return value
    if isinstance(value, int):
        return value
    if isinstance(value, dict):
        _check_keys(value)
        return {key: snapshot(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [snapshot(item, depth + 1) for item in value]
    if not _known_to_the_sdk(value, depth):
        json.dumps(value)  # raises the TypeError that everybody knows, and that the SDK would raise in a while
    try:
        return copy.deepcopy(value)
    except Exception:  # what cannot be copied is sent as it is then, as the SDK would
        return value


def _known_to_the_sdk(value: Any, depth: int) -> bool:
    """Whether the SDKs make JSON of it: of models, and moments; an argument that stands for nothing they leave out."""
    kind = type(value)
    if kind.__name__ in NOT_GIVEN and depth <= 1:
        return True
    known = isinstance(value, datetime) or hasattr(kind, "model_dump")
    return known and any(name in sys.modules for name in ENCODERS)


def given_only(body: Any) -> Any:
    """A request body without the arguments that were not given, which are not sent."""
    if not isinstance(body, dict):
        return body
    return {name: value for name, value in body.items() if type(value).__name__ not in NOT_GIVEN}


def to_json(value: Any) -> bytes:
    """A request body as it is kept in files; what is no JSON is kept as its repr."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=repr).encode("utf-8", "surrogatepass")
