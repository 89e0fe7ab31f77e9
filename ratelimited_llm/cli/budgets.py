"""The shared budget that a command line is about: `--budget`, and the store behind it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..stores.shared_store import SharedStore

__all__ = ["add_budget_option", "with_store"]

VARIABLE = "RATELIMITED_LLM_BUDGET"
DEFAULT = "sqlite"


def add_budget_option(parser: argparse.ArgumentParser) -> None:
    """Add `--budget URL` to a command's options; `with_store` reads it."""
    parser.add_argument(
        "--budget",
        metavar="URL",
        help=f"who shares the limits: redis://host:6379/0, sqlite:///path, or sqlite; default: {VARIABLE}, or sqlite",
    )


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

    name = f"ratelimited-llm {args.command_name}"
    try:
        store = open_store(_budget_of(args))
    except SharedStoreLost as error:
        return _complain(f"{name}: the shared budget is out of reach", error, 1)
    except (ValueError, TypeError, ImportError) as error:
        return _complain(name, error, 2)
    try:
        return order(store, args)
    except SharedStoreLost as error:
        return _complain(f"{name}: the shared budget is out of reach", error, 1)
    except (ValueError, ImportError) as error:  # redis is imported when it is first asked
        return _complain(name, error, 2)
    finally:
        with suppress(Exception):
            store.close()


def _complain(name: str, error: Exception, code: int) -> int:
    line = " ".join(str(error).split()) or type(error).__name__
    print(f"{name}: {line}", file=sys.stderr)
    return code
