"""How a journal knows a call again: by what is asked, and by how often that was asked before in this run."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from typing import Any

__all__ = ["Occurrences", "call_key"]

COUNTED_BYTES = 7  # of a key: two of a million keys share so many with a chance of 1 in 100,000, and without harm


def _refuse(value: object) -> None:
    raise TypeError(f"a value of type {type(value).__name__} is no JSON")


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_refuse)


def call_key(provider: str, path: str, body: Any) -> bytes:
    """The SHA-256 of a request in one canonical spelling: two calls with the same key ask for the same.

    Args:
        provider: who is asked, without anything secret.
        path: what is asked for, such as "/chat/completions".
        body: the request as JSON values. The order of keys does not matter; 1 and 1.0 differ.

    Raises:
        TypeError: something in the body is no JSON; says what, and where.
        ValueError: a number in it is not finite, or it contains itself.
    """
    try:
        text = _ENCODER.encode([provider, path, body])
    except TypeError as error:
        where = _first_stranger(body, "body")
        raise TypeError(f"this request cannot be journalled: {where or error}") from None
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _first_stranger(value: Any, where: str) -> str | None:
    """Where the first value stands that is no JSON, and its type; never the value, which may be a secret."""
    if value is None or isinstance(value, (str, int, float)):
        return None
    if isinstance(value, dict):
        for name in value:
            if not (name is None or isinstance(name, (str, int, float))):
                return f"a key of {where} is of type {type(name).__name__}, which is no JSON"
        inside = ((item, f"{where}[{name!r:.40}]") for name, item in value.items())
    elif isinstance(value, (list, tuple)):
        inside = ((item, f"{where}[{index}]") for index, item in enumerate(value))
    else:
        return f"{where} is of type {type(value).__name__}, which is no JSON"
    return next((found for item, place in inside if (found := _first_stranger(item, place))), None)


class Occurrences:
    """Counts equal requests, so that five identical samples stay five answers. Thread-safe.

    A script counts from its start. In IPython every execution of a cell counts anew: running a cell again finds the
    answers that its last run got, although the kernel has lived on.
    """

    __slots__ = ("_cell", "_counts", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cell: int | None = None
        self._counts: dict[int, int] = {}

    def next(self, key: bytes) -> int:
        """How many calls with this key came before in this run: 0, 1, 2..."""
        short = int.from_bytes(key[:COUNTED_BYTES], "big")
        cell = _cell()
        with self._lock:
            if cell != self._cell:
                self._cell, self._counts = cell, {}
            number = self._counts.get(short, 0)
            self._counts[short] = number + 1
        return number

    def after_fork(self) -> None:
        """In the child of a fork: count on, with a lock that nobody holds."""
        self._lock = threading.Lock()


def _cell() -> int | None:
    """The number of the cell execution that is going on; None outside of IPython, which is never imported for this."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    count = getattr(shell, "execution_count", None)
    return count if isinstance(count, int) else None
