"""Answers that are read while they come: their end is noticed whoever reads, closes or forgets them, and their usage.

Bytes pass as they are; of a stream of events, only the lines that speak of usage or of an error are looked into.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

import requests as _requests

from ..calls.streams import StreamWatch
from ..core.request import Usage
from ..providers import Dialect

__all__ = ["BodyWatch", "answer_in", "is_open", "usage_of"]

WHOLE = 65_536  # bytes of an answer that is parsed whole to find its usage; of a larger one only what follows the name
LONGEST_LINE = 1 << 20  # bytes of an event; a longer one is no event that anybody sends


class _Told(Exception):
    """An error event inside an answer that began with 200."""

    def __init__(self, body: Any) -> None:
        super().__init__("an error event")
        self.body = body


class BodyWatch(StreamWatch):
    """Sees the bytes of one answer as they pass.

    Args:
        dialect: where the usage stands.
        ended: see `StreamWatch`.
        form: of the answer; see `_form`.
    """

    __slots__ = ("_form", "_rest")

    def __init__(
        self, dialect: Dialect, ended: Callable[[Usage | None, BaseException | None], None], form: str
    ) -> None:
        super().__init__(dialect, ended)
        self._form = form
        self._rest = bytearray()  # the line that goes on; of JSON, its end

    @classmethod
    def over(
        cls,
        response: _requests.Response,
        dialect: Dialect,
        ended: Callable[[Usage | None, BaseException | None], None],
    ) -> None:
        """Have the end of an answer reported; and its bytes looked at, where they come from urllib3."""
        watch = cls(dialect, ended, _form(response))
        raw: Any = response.raw
        kind: Any = type(raw)
        try:
            raw.__class__ = _watched(kind)
        except (TypeError, AttributeError):  # an adapter of the user's own made it: it ends when it is forgotten
            weakref.finalize(response, watch.end).atexit = False
            return
        raw.body_watch, raw.body_passes, raw.body_released = watch, False, False
        weakref.finalize(raw, watch.end).atexit = False

    def saw(self, chunk: bytes) -> None:
        """Some more bytes."""
        if not self._form:
            return
        rest = self._rest
        rest += chunk
        if self._form == "json":
            if len(rest) > 2 * WHOLE:
                del rest[:-WHOLE]
        elif b"\n" in chunk:
            *lines, last = bytes(rest).split(b"\n")
            rest[:] = last
            for line in lines:
                self._line(line)
        elif len(rest) > LONGEST_LINE:
            rest.clear()

    def _line(self, line: bytes) -> None:
        if not line.startswith(b"data:") or (b'"usage"' not in line and b'"error"' not in line):
            return
        with suppress(ValueError, RecursionError):
            event = json.loads(line[5:])
            self._usage = self._dialect.stream_usage(event, self._usage)
            if isinstance(event, dict) and (event.get("error") or event.get("type") in ("error", "response.failed")):
                self._error = _Told(event)

    def usage(self) -> Usage | None:
        """What it used, as far as it said by now."""
        rest = bytes(self._rest)
        self._rest.clear()
        if self._form == "json" and rest:
            self._usage = self._dialect.usage(answer_in(rest))
        else:
            self._line(rest)
        return self._usage

    def end(self) -> None:
        """It is over; only the first time counts."""
        if self._ended is not None:
            self.usage()
            super().end()


def usage_of(response: _requests.Response, dialect: Dialect) -> Usage | None:
    """The tokens that an answer which was read says it used; None when it does not say."""
    content = getattr(response, "_content", None)
    if not isinstance(content, bytes):
        return None
    if _form(response) != "events":
        return dialect.usage(answer_in(content))
    watch = BodyWatch(dialect, lambda usage, error: None, "events")
    watch.saw(content)
    return watch.usage()


def answer_in(content: bytes) -> Any:
    """The JSON of an answer, as far as it is needed to find its usage; None when there is none."""
    with suppress(ValueError, RecursionError):
        if len(content) <= WHOLE and content[:1] == b"{":
            return json.loads(content)
        # Embeddings are megabytes of numbers. Inside a string, the quotes of the name would be escaped.
        at = content.rfind(b'"usage"')
        _, colon, rest = content[at : at + WHOLE].partition(b":") if at >= 0 else (b"", b"", b"")
        if colon:
            usage, _ = json.JSONDecoder().raw_decode(rest.decode("utf-8", "replace").lstrip())
            return {"usage": usage}
    return None


def is_open(response: _requests.Response) -> bool:
    """Whether there is more to come of it."""
    return not getattr(response, "_content_consumed", True) and not getattr(response.raw, "closed", True)


def _form(response: _requests.Response) -> str:
    """How an answer tells its usage: "events", "json", or "" for not at all (audio, say)."""
    kind = str(response.headers.get("content-type", "")).lower()
    return "events" if kind.startswith("text/event-stream") else "json" if "json" in kind else ""


@lru_cache(maxsize=16)
def _watched(kind: Any) -> Any:
    """The class of a urllib3 response that lets its watch see what passes, and hear that it has ended."""

    def stream(self: Any, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        over = True
        self.body_passes = True
        try:
            for chunk in kind.stream(self, *args, **kwargs):
                self.body_watch.saw(chunk)
                yield chunk
        except GeneratorExit:
            over = self.body_released  # else it can be read on
            raise
        finally:
            self.body_passes = False
            if over:
                self.body_watch.end()

    def close(self: Any) -> None:
        try:
            kind.close(self)
        finally:
            self.body_watch.end()

    def release_conn(self: Any) -> None:
        try:
            kind.release_conn(self)
        finally:
            self.body_released = True
            if not self.body_passes:  # the last bytes are still to be seen
                self.body_watch.end()

    names = {"stream": stream, "close": close, "release_conn": release_conn, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), names)
