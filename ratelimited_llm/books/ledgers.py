"""All ledgers of the process: what a fork means to them, and who looks at them."""

from __future__ import annotations

import os
import sys
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .ledger import Ledger

__all__ = ["remember", "wake_panels"]

_all: weakref.WeakSet[Ledger] = weakref.WeakSet()


def remember(ledger: Ledger) -> None:
    """Have it hear of forks, for as long as it lives."""
    _all.add(ledger)


def wake_panels() -> None:
    """Have the panels of a notebook that are shown go on."""
    notebook = sys.modules.get("ratelimited_llm.display.notebook")
    if notebook is not None:
        notebook.wake()


def _after_fork_in_child() -> None:
    for ledger in list(_all):
        ledger.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
