"""`ratelimited-llm top`: who shares a budget, and how they fare, while it happens.

ratelimited-llm top --budget redis://queue-1:6379/0       every second, in place; Ctrl-C ends it
ratelimited-llm top --once                                one look
ratelimited-llm top --json                                one JSON object per line, for pipes
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ..display.fleet import frame
from ..display.modes import AUTO, BAR, fitting
from ..display.screen import columns, put
from .arguments import seconds
from .budgets import add_budget_option, with_store

if TYPE_CHECKING:
    from ..books.fleet import Fleet
    from ..stores.shared_store import SharedStore

__all__ = ["add_parser"]

PIPE_WIDTH = 200  # columns where there is no terminal: nothing is cut there
ERASE_BELOW = "\x1b[J"
CLEAR = "\x1b[H\x1b[2J"


def add_parser(subparsers: Any) -> None:
    """Add `top` to the subparsers of a command line; parsed arguments carry `run`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "top",
        help="who shares a budget, live: rates against limits, queues, 429s, cost",
        description="Show the pools of limits (* marks the limit that calls wait for) and the processes that share "
        "a budget. On a terminal it is drawn every second in place, elsewhere printed as plain text. "
        "Costs and counts of a process are since it began; rates are of the last 60 seconds.",
    )
    add_budget_option(parser)
    parser.add_argument("--once", action="store_true", help="one look, and done")
    parser.add_argument("--json", action="store_true", help="one JSON object per look and line")
    parser.add_argument(
        "--every", type=seconds(0.1), default=1.0, metavar="SECONDS", help="from look to look; default: 1, at least 0.1"
    )
    parser.set_defaults(run=lambda args: with_store(args, _watch))


def _watch(store: SharedStore, args: argparse.Namespace) -> int:
    """Look until somebody ends it. The first look must succeed; later ones may find nobody for a while."""
    from ..books.fleet import fleet_of
    from ..exceptions import SharedStoreLost

    shows = _Shows(args)
    latest = fleet_of(store)
    lost = ""
    try:
        while shows.show(latest, lost) and not args.once:
            time.sleep(args.every)
            try:
                latest, lost = fleet_of(store), ""
            except SharedStoreLost as error:
                lost = str(error)
    except KeyboardInterrupt:  # the ordinary way to end it
        pass
    return 0


class _Shows:
    """Writes each look to standard output, in the form that fits there."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.json, self.once = args.json, args.once
        self.live = not args.json and not args.once and fitting(AUTO, sys.stdout) == BAR
        self._drawn = 0  # lines on the screen
        self._wide = 0
        self._shown = False

    def show(self, fleet: Fleet, lost: str) -> bool:
        """Write it; False when nobody reads any more."""
        if self.json:
            text = self._object(fleet, lost)
        elif self.live:
            text = self._in_place(fleet, lost)
        else:
            text = self._plain(fleet, lost)
        self._shown = True
        if put(sys.stdout, _encodable(text)):
            return True
        _forget_output()
        return False

    def _object(self, fleet: Fleet, lost: str) -> str:
        told = {"at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), **fleet.as_json()}
        if lost:
            told = {"at": told["at"], "lost": lost}  # numbers that are not those of this moment are not repeated
        return json.dumps(told, separators=(",", ":")) + "\n"

    def _plain(self, fleet: Fleet, lost: str) -> str:
        width = columns(sys.stdout) if sys.stdout.isatty() else PIPE_WIDTH
        before = "\n" if self._shown else ""
        return before + "\n".join([lost] if lost else frame(fleet, width=width)) + "\n"

    def _in_place(self, fleet: Fleet, lost: str) -> str:
        """Over what was drawn last, which stays on the screen when it ends."""
        wide, high = columns(sys.stdout), shutil.get_terminal_size().lines
        lines = frame(fleet, width=max(20, wide - 1), height=max(3, high - 2 - bool(lost)))
        if lost:
            lines.append(f"{lost}; trying again"[: wide - 1])
        # After a change of width the terminal has broken the lines anew, and nobody knows how many there are.
        back = CLEAR if self._shown and wide != self._wide else f"\x1b[{self._drawn}A\r" if self._drawn else "\r"
        self._drawn, self._wide = len(lines), wide
        return back + ERASE_BELOW + "\n".join(lines) + "\n"


def _encodable(text: str) -> str:
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return text.encode(encoding, "replace").decode(encoding)


def _forget_output() -> None:
    """The reader is gone: what is still buffered goes nowhere, so that the interpreter does not complain at its end."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass
