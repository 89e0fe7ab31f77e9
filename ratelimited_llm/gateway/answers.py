"""Answers as the gateway takes them from an SDK: their bytes untouched, and the usage in them for the books.

The doors account for what a call returns: the usage of an answer, and of the chunks of a stream as they pass. So the
SDK is asked for classes of ours, which hand on bytes and show usage.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

__all__ = ["BrokenOff", "Kinds", "kinds_for"]

LONGEST_EVENT = 4 * 1024 * 1024  # bytes of one event that are looked at; longer ones pass unseen
LARGEST_JSON = 8 * 1024 * 1024  # of an answer to a stream request that is no stream


class BrokenOff(Exception):
    """The provider sent an error event, which was handed on; a stream is over with it.

    Attributes:
        body: what it said.
        rest: the bytes that come after it.
    """

    def __init__(self, body: object, rest: AsyncIterator[bytes]) -> None:
        super().__init__("the stream ended with an error")
        self.body = body
        self.rest = rest


class Kinds(NamedTuple):
    """What one SDK is asked for: `cast_to` of an answer, and `stream_cls` of a stream."""

    answer: Any
    stream: Any


@lru_cache(maxsize=8)
def kinds_for(sdk: ModuleType) -> Kinds:
    """The classes that are the SDK's own kinds of answers."""
    response: Any = sys.modules[f"{sdk.__name__}._response"].AsyncAPIResponse
    stream: Any = sdk.AsyncStream
    answer = type("Answer", (_Answer, response), {"__orig_bases__": (response[object],)})
    relayed = type("Relayed", (_Relayed, stream), {"__orig_bases__": (stream[object],)})
    return Kinds(answer, relayed)


class _Answer:
    """An answer that came whole; goes before the SDK's `AsyncAPIResponse`."""

    http_response: Any

    @property
    def usage(self) -> object:
        """The usage that its JSON states; None when it is no JSON or states none."""
        response = self.http_response
        if "json" not in response.headers.get("content-type", "") or b'"usage"' not in response.content:
            return None
        told = json.loads(response.content)
        return told.get("usage") if isinstance(told, dict) else None


class _Relayed:
    """A stream of bytes; goes before the SDK's `AsyncStream`.

    What it yields is the bytes as they come, and before those that end it, each event that states usage, decoded.
    """

    response: Any

    async def __stream__(self) -> AsyncIterator[Any]:
        kind = self.response.headers.get("content-type", "")
        events = _Events() if "event-stream" in kind else _Whole() if "json" in kind else None
        chunks = self.response.aiter_bytes()
        async for chunk in chunks:
            error = None
            if events is not None:
                for event in events.of(chunk):
                    if _is_error(event):
                        error = event
                    yield event
            yield chunk
            if error is not None:
                raise BrokenOff(error.get("error") or error, chunks)


class _Events:
    """Finds the events of a server-sent stream that say what it cost, or that it failed."""

    def __init__(self) -> None:
        self._rest = b""

    def of(self, chunk: bytes) -> list[dict[str, Any]]:
        """The telling events that end in this chunk."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST_EVENT:
            self._rest = b""
        found = []
        for line in lines:
            if line.startswith(b"data:") and (b'"usage"' in line or b'"error"' in line):
                event = _decoded(line[5:])
                if isinstance(event, dict):
                    found.append(event)
        return found


class _Whole:
    """An answer in one piece of JSON, where a stream was asked for."""

    def __init__(self) -> None:
        self._body = b""

    def of(self, chunk: bytes) -> list[dict[str, Any]]:
        """The answer, if it ends in this chunk."""
        if len(self._body) > LARGEST_JSON:
            return []
        self._body += chunk
        if not chunk.rstrip().endswith(b"}") or b'"usage"' not in self._body:
            return []
        told = _decoded(self._body)
        return [told] if isinstance(told, dict) else []


def _decoded(text: bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_error(event: dict[str, Any]) -> bool:
    return event.get("type") == "error" or isinstance(event.get("error"), (dict, str))
