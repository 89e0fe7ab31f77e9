"""Calls of one process that wait for the same answer: one works for it, the others follow."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from .journal_values import Recorded

__all__ = ["Callback", "Work", "tell"]

_log = logging.getLogger("ratelimited_llm.journal")
Callback = Callable[[Recorded | None], None]


class Work:
    """One call of this process that works for an answer, and those that follow it.

    `ended` is set before the followers are told, and who follows looks at it after joining: whoever takes a follower
    out of the deque tells it, so none is lost and none is told twice, without a lock.
    """

    __slots__ = ("answer", "asked", "claimed", "ended", "followers", "request", "waits")

    def __init__(self) -> None:
        self.answer: Recorded | None = None
        self.asked = False  # a claim was begun, and may be in the file
        self.claimed = False
        self.ended = False
        self.followers: deque[Callback] = deque()
        self.request: Callable[[], bytes] | None = None
        self.waits = False  # for another process

    def tell(self) -> None:
        """Tell those who follow."""
        while True:
            try:
                follower = self.followers.popleft()
            except IndexError:
                return
            tell(follower, self.answer)


def tell(callback: Callback, answer: Recorded | None) -> None:
    """Call somebody back; an error of theirs is theirs."""
    try:
        callback(answer)
    except Exception:
        _log.exception("a callback of the journal failed", extra={"event": "journal_callback_failed"})
