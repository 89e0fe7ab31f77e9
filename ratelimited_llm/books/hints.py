"""One hint for whoever reads each answer before asking for the next: nothing runs side by side then."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

__all__ = ["SerialHint"]

IN_A_ROW = 5  # answers read one by one before anything is said
BETWEEN = frozenset({"ratelimited_llm", "openai", "groq", "anthropic", "requests", "concurrent", "threading"})
_log = logging.getLogger("ratelimited_llm")


class SerialHint:
    """Counts the waits that follow a single submit, and speaks once."""

    __slots__ = ("_given", "_in_a_row", "_submitted")

    def __init__(self) -> None:
        self._given = False
        self._in_a_row = 0
        self._submitted = 0

    def submitted(self) -> None:
        """Count a submitted call."""
        self._submitted += 1

    def waiting(self) -> None:
        """A wait for an answer begins; after `IN_A_ROW` of them with one submit each, say the hint once."""
        if self._given or self._submitted == 0:
            return
        self._in_a_row = self._in_a_row + 1 if self._submitted == 1 else 0
        self._submitted = 0
        if self._in_a_row >= IN_A_ROW:
            self._given = True
            self._say(_reader())

    @staticmethod
    def _say(reader: str) -> None:
        text = (
            f"hint: {reader} reads each answer before the next request is submitted, so one request runs at a time. "
            'Submit first and read afterwards; or say mode="blocking" if that is what you want.'
        )
        _log.info(text, extra={"event": "serial_hint"})
        with suppress(Exception):
            if sys.stderr is not None and sys.stderr.isatty():
                print(text, file=sys.stderr)  # noqa: T201 - for the person at the terminal, once


def _reader() -> str:
    """Who reads: the user's own code, or a wrapper by its name (a tracer that looks into each answer)."""
    frame = sys._getframe(2)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in BETWEEN:
            return "this script" if module == "__main__" else module
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "this script"
