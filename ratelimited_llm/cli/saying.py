"""What a command says on standard error, in one line that begins with its name; and what exit codes mean."""

from __future__ import annotations

import contextlib
import sys

__all__ = ["CAPPED", "DONE", "FAILED", "INTERRUPTED", "USAGE", "say"]

DONE, FAILED, USAGE, CAPPED, INTERRUPTED = 0, 1, 2, 3, 130


def say(command: str, text: object, code: int = DONE) -> int:
    """Say it, and answer `code`; that nobody listens is no error."""
    with contextlib.suppress(OSError, ValueError):
        print(f"ratelimited-llm {command}: {text}", file=sys.stderr, flush=True)
    return code
