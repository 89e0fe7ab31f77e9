"""`ratelimited-llm journal`: what is in a journal, and deleting what is old.

ratelimited-llm journal run.db                   how many calls are answered, failed and unfinished
ratelimited-llm journal run.db --prune 30d       delete answers that are older, and give the space back
"""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING, Any

from .arguments import duration, shown
from .saying import USAGE, say

if TYPE_CHECKING:
    from ..stores.journal import JournalStats

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add `journal` to the subparsers of a command line; parsed arguments carry `run`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "journal",
        help="what is in a journal, and deleting what is old",
        description="Print what is in a journal (the file given as journal=). It may be in use meanwhile.",
    )
    parser.add_argument("file", metavar="RUN.db", help="the journal")
    parser.add_argument(
        "--prune",
        type=duration,
        metavar="AGE",
        help="delete answers and failures older than this: 90m, 12h, 30d, seconds",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the statistics, after pruning if that is asked for; the exit code is 0, or 2 when it is no journal."""
    from ..exceptions import JournalError
    from ..stores.journal import Journal

    path = os.path.expanduser(args.file)
    if not os.path.exists(path):  # opening it would make one
        return say("journal", f"there is no file {shown(args.file)}", USAGE)
    try:
        with Journal(path) as journal:
            if args.prune is not None:
                print(f"{journal.prune(args.prune):,} rows deleted")
            print(table(str(journal.path), journal.stats()))
    except (JournalError, ValueError) as error:
        return say("journal", error, USAGE)
    return 0


def table(path: str, stats: JournalStats) -> str:
    """The statistics in aligned lines."""
    rows = [
        ("journal", path),
        ("answered", f"{stats.answered:,}"),
        ("failed", f"{stats.failed:,}" + ("  (tried again by the next run)" if stats.failed else "")),
        ("unfinished", f"{stats.unfinished:,}" + ("  (in flight, or perhaps paid)" if stats.unfinished else "")),
        ("size", size(stats.bytes)),
    ]
    if stats.oldest is not None and stats.newest is not None:
        rows += [("oldest", moment(stats.oldest)), ("newest", moment(stats.newest))]
    if stats.trouble is not None:
        rows.append(("trouble", stats.trouble))
    return "\n".join(f"{name:<12}{value}" for name, value in rows)


def size(count: int) -> str:
    """A number of bytes in kB, or in MB from a million on."""
    if count < 1_000_000:
        return f"{count / 1_000:,.1f} kB"
    return f"{count / 1_000_000:,.1f} MB"


def moment(at: float) -> str:
    """A wall-clock moment in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
