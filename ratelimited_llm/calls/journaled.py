"""One call's place in a journal: found there, worked for by one call at a time, and recorded before anybody sees it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple
from urllib.parse import urlsplit

from ..engine.jobs import NotNeeded
from ..stores.journal import Claimed, Journal, Recorded, call_key
from ..stores.journal_work import Work
from .replay import recorded_answer
from .snapshot import given_only, to_json

__all__ = ["Entry", "Tape", "entry_for"]

_log = logging.getLogger("ratelimited_llm.journal")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# How the streams of the providers say that they are over; after a blank line nothing of value follows.
_OVER = re.compile(rb"^(?:data: ?\[DONE\]|event: ?(?:message_stop|response\.completed|response\.incomplete))", re.M)
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
MARK_ROOM = 64  # bytes of a chunk's end that are looked at again with the next


def entry_for(journal: Journal, provider: str, base_url: str, options: Any) -> Entry | None:
    """The place of a call; None for one that cannot be told from others by its body (files, binary content)."""
    if options.files or getattr(options, "content", None) is not None:
        return None
    body = options.json_data
    if options.extra_json:
        body = {**body, **options.extra_json} if isinstance(body, dict) else options.extra_json
    body = given_only(body)
    path = options.url
    if options.params:
        path += "?" + "&".join(f"{name}={value}" for name, value in sorted(dict(options.params).items()))
    host = urlsplit(base_url).hostname or ""
    # A rehearsal's answers must never be taken for a provider's; its port changes from run to run.
    place = f"{provider}@{'loopback' if host in LOOPBACK else host}"
    try:
        key = call_key(place, path, body)
    except TypeError:
        _log.debug("not_journalled: the request body is no JSON", extra={"event": "not_journalled"})
        return None
    return Entry(journal, key, body)


class Entry:
    """One call's place in a journal.

    Args:
        journal: the file.
        key: which request it is.
        body: the request, to be kept too if the journal keeps requests.
    """

    __slots__ = ("body", "enlisted", "handed_out", "journal", "key", "number")

    elsewhere: ClassVar[Literal[False]] = False  # this process may send it

    def __init__(self, journal: Journal, key: bytes, body: Any) -> None:
        self.journal = journal
        self.key = key
        self.body = body
        self.number = journal.number(key)
        self.enlisted = False  # it works for the answer, for all calls of this process that want it
        self.handed_out: Work | None = None  # or for nobody but the reader of its stream

    def find(self) -> Recorded | None:
        """The answer, if it is there."""
        return self.journal.find(self.key, self.number)

    def enlist(self) -> bool:
        """Whether this call is the one of this process that works for it; otherwise `follow` the one that does."""
        if not self.enlisted:
            self.enlisted = self.journal.enlist(self.key, self.number)
        return self.enlisted

    def follow(self, callback: Callable[[Recorded | None], None]) -> None:
        """Have it called with the answer that another call gets; or with None, and then it is this call's turn."""

        def told(found: Recorded | None) -> None:
            if found is not None:
                self.enlisted = False  # it was, if the other call is of another process
            callback(found)

        self.journal.follow(self.key, self.number, told)

    def claim(self) -> bool:
        """Say that it is about to be sent; True when an earlier run crashed while it was, so it is perhaps paid twice.

        Raises:
            NotNeeded: somebody else has its answer, or is at it.
        """
        found = self.journal.claim(self.key, self.number, self._request)
        if isinstance(found, Claimed):
            return found.perhaps_paid
        if isinstance(found, Recorded):
            self.enlisted = False
            raise NotNeeded(found)
        raise NotNeeded

    def _request(self) -> bytes:
        return to_json(self.body)

    def record(self, answer: Recorded) -> None:
        """Keep the answer; returns when it is safe."""
        if self.enlisted:
            self.enlisted = False
            self.journal.record(self.key, self.number, answer, self.handed_out)

    def afresh(self) -> None:
        """What is there cannot be read: the call goes without a journal."""

    def tape(self, response: Any, sent_at: float) -> Tape:
        """What records an answer that streams, and goes to its reader now."""
        self.handed_out = self.journal.hand_out(self.key, self.number)
        return Tape(self, response, sent_at)

    def release(self, error: BaseException | None = None) -> None:
        """It has ended without an answer. May be called from a finalizer, and after `record`."""
        if self.enlisted:
            self.enlisted = False
            status = getattr(error, "status_code", None)
            name = None if error is None else type(error).__name__ + (f" {status}" if isinstance(status, int) else "")
            self.journal.release(self.key, self.number, name, self.handed_out)


class Head(NamedTuple):
    """What an answer begins with."""

    status_code: int
    headers: Any


class Tape:
    """Records a stream as its bytes pass, and keeps it if it is whole; a cut stream is never kept.

    A reader may have seen all but the last piece when it is cut. The last piece is handed on only after the whole is
    safe.

    Args:
        entry: where to.
        response: the httpx response that streams.
        sent_at: monotonic seconds when it was sent.
    """

    __slots__ = ("_chunks", "_encoded", "_entry", "_events", "_head", "_kind", "_sent_at", "_tail")

    def __init__(self, entry: Entry, response: Any, sent_at: float) -> None:
        self._entry = entry
        # Not the response itself: whoever is told of its end holds this tape, and could never be told that it is
        # forgotten.
        self._head = Head(response.status_code, response.headers)
        self._kind = type(response)
        self._sent_at = sent_at
        self._chunks: list[bytes] = []
        self._tail = b""
        self._events = "text/event-stream" in response.headers.get("content-type", "")
        self._encoded = "content-encoding" in response.headers

    def passes(self, chunk: bytes) -> None:
        """A piece that is about to be handed to the reader."""
        self._chunks.append(chunk)
        if self._events and not self._encoded:
            self._tail += chunk
            if _is_over(self._tail):
                self._keep()
            else:
                self._tail = self._tail[-max(MARK_ROOM, _unfinished(self._tail)) :]

    def is_exhausted(self) -> None:
        """The connection has delivered everything that it had."""
        if not self._events:
            self._keep()
        elif self._encoded:
            whole = self._kind(200, headers=self._head.headers, content=b"".join(self._chunks)).content
            if _is_over(whole + b"\n\n"):
                self._keep()
        elif _is_over(self._tail + b"\n\n"):
            self._keep()

    def ended(self) -> None:
        """It was read to the end, closed, forgotten or cut; may run in a finalizer."""
        self._entry.release()

    def _keep(self) -> None:
        self._entry.record(recorded_answer(self._head, b"".join(self._chunks), self._sent_at, as_sent=True))
        self._events = False
        self._encoded = True  # nothing more is looked for


def _is_over(text: bytes) -> bool:
    mark = _OVER.search(text)
    return mark is not None and _BLANK_LINE.search(text, mark.end()) is not None


def _unfinished(text: bytes) -> int:
    """How many bytes of the end belong to an event that has begun to say that the stream is over."""
    mark = _OVER.search(text)
    return 0 if mark is None else len(text) - mark.start()
