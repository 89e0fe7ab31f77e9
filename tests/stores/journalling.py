"""Helpers for the tests of the journal: calls, answers, and scripts in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ratelimited_llm.stores.journal import Claimed, Journal, Recorded, call_key

PATIENCE = 10.0


def key(number: int | str) -> bytes:
    return call_key(
        "openai", "/chat/completions", {"model": "m", "messages": [{"role": "user", "content": str(number)}]}
    )


def answer(text: str = "hello", at: float | None = None, **changes: Any) -> Recorded:
    values: dict[str, Any] = {
        "status": 200, "headers": (("content-type", "application/json"),), "body": text.encode(), "seconds": 0.5,
        "at": time.time() if at is None else at,
    }  # fmt: skip
    return Recorded(**{**values, **changes})


def do(journal: Journal, number: int | str, text: str = "hello", at: float | None = None) -> Recorded:
    """One call from claim to answer."""
    place = (key(number), 0)
    assert journal.enlist(*place)
    assert isinstance(journal.claim(*place, lambda: b"request"), Claimed)
    recorded = answer(text, at)
    journal.record(*place, recorded)
    return recorded


class Told:
    """A callback that can be waited for."""

    def __init__(self) -> None:
        self.answers: list[Recorded | None] = []
        self._called = threading.Event()

    def __call__(self, recorded: Recorded | None) -> None:
        self.answers.append(recorded)
        self._called.set()

    def wait(self) -> Recorded | None:
        assert self._called.wait(PATIENCE), "nobody called back"
        assert len(self.answers) == 1
        return self.answers[0]


PREAMBLE = """
import os, sys, time, threading, random
sys.path.insert(0, {here!r})
from journalling import *
journal = Journal({path!r})
"""


def python(path: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    """A script in a process of its own, with the journal open; close its pipes with `finish` or `kill`."""
    text = PREAMBLE.format(here=str(Path(__file__).parent), path=str(path)) + code
    return subprocess.Popen(
        [sys.executable, "-c", text, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for it; what it printed."""
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    return output


def kill(process: subprocess.Popen[str]) -> str:
    """kill -9; what it had printed."""
    process.kill()
    output, _ = process.communicate(timeout=PATIENCE)
    return output
