"""Writing to a stream that may be a terminal, a pipe, closed, or nothing at all; it never raises, but for Ctrl-C."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

__all__ = ["ERASE", "columns", "in_place", "is_taken", "put"]

ERASE = "\r\x1b[K"  # to the first column, and clear to the end of the line: VT100, and every terminal since
USUAL = 80


def in_place(text: str) -> str:
    """Write over the present line, without leaving it."""
    return f"\r{text}\x1b[K"


def put(stream: Any, text: str) -> bool:
    """Write and flush; False when that failed (None, closed, a pipe without a reader, a full disk)."""
    try:
        stream.write(text)
        stream.flush()
    except Exception:
        return False
    return True


def columns(stream: Any, environ: Mapping[str, str] | None = None) -> int:
    """Return how many columns the terminal of this stream has; the narrower one when `COLUMNS` says something else.

    `shutil.get_terminal_size` asks standard output, which may be a file while this stream is a narrow terminal.
    """
    known = []
    with suppress(Exception):
        known.append(int((os.environ if environ is None else environ)["COLUMNS"]))
    with suppress(Exception):  # no file, or no terminal
        known.append(os.get_terminal_size(stream.fileno()).columns)
    return min((number for number in known if number > 0), default=USUAL)


def is_taken() -> bool:
    """Whether the user has a tqdm bar open, whose line ours would wipe out; imports nothing."""
    tqdm: Any = sys.modules.get("tqdm.std")
    try:
        return tqdm is not None and len(tqdm.tqdm._instances) > 0
    except Exception:  # half imported, or another tqdm than we know
        return False
