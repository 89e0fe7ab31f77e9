"""Failures that nobody looks at: each kind and place is said once, of the first few at most, when it is collected."""

from __future__ import annotations

import itertools
import logging
from contextlib import suppress
from types import TracebackType

__all__ = ["Failure"]

_log = logging.getLogger("ratelimited_llm")

# A script that reads none of two thousand failures is told of each kind and place once, of the first few at most.
MOST_UNREAD_SHOWN = 5
_unread: set[tuple[str, str]] = set()
_more_unread = itertools.count()


class Failure:
    """Kept beside the exception of a failed future: the traceback it came with, and whether anybody looked."""

    __slots__ = ("kind", "read", "traceback", "where")

    def __init__(self, exception: BaseException, where: str | None) -> None:
        self.kind = type(exception).__name__
        self.traceback: TracebackType | None = getattr(exception, "__traceback__", None)
        self.where = where
        self.read = False

    def __del__(self) -> None:
        # It may run anywhere, so it takes no lock but logging's own, which is reentrant; and the interpreter may be
        # half gone. The error's text stays out: it may quote the prompt.
        if not self.read:
            with suppress(Exception):
                told = (self.kind, self.where or "an unknown place")
                news = told not in _unread and len(_unread) < MOST_UNREAD_SHOWN
                level = logging.WARNING if news else logging.DEBUG
                _log.log(level, "unread_failure: nobody read the %s of a call that was submitted at %s", *told)
                if news:
                    _unread.add(told)
                elif next(_more_unread) == 0:
                    _log.warning("unread_failure: and of more calls; RATELIMITED_LLM_LOG=debug shows each")
