"""The shared budget that a command line is about: `--budget`, and the store behind it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from .saying import FAILED, USAGE, say

if TYPE_CHECKING:
    from ..stores.shared_store import SharedStore

__all__ = ["VARIABLE", "add_budget_option", "with_store"]

VARIABLE = "RATELIMITED_LLM_BUDGET"
DEFAULT = "sqlite"


def add_budget_option(parser: argparse.ArgumentParser, default: str = f"{VARIABLE}, or sqlite") -> None:
    """Add `--budget URL` to a command's options; `default` is what its help says of who gives none."""
    where = "redis://host:6379/0 between machines, sqlite or sqlite:///path on this one"
    parser.add_argument("--budget", metavar="URL", help=f"share the limits: {where}; default: {default}")


def _budget_of(args: argparse.Namespace) -> str:
    """The budget that was asked for: by the option, by the environment, or this machine's own."""
    return args.budget or os.environ.get(VARIABLE, "").strip() or DEFAULT


def with_store(args: argparse.Namespace, order: Callable[[SharedStore, argparse.Namespace], int]) -> int:
    """Open the store, do something with it, and let go of it; answers the exit code.

    That is 1 when the store cannot be reached, and 2 when the budget makes no sense: each with one line that says so,
    in which there is no password.
    """
    from ..exceptions import SharedStoreLost
    from ..stores.opening import open_store

    try:
        with closing(open_store(_budget_of(args))) as store:
            return order(store, args)
    except SharedStoreLost as error:
        return say(args.command_name, f"the shared budget is out of reach: {_line(error)}", FAILED)
    except (ValueError, ImportError) as error:  # redis is imported when it is first asked
        return say(args.command_name, _line(error), USAGE)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
