"""`ratelimited-llm pause | resume | limit | cancel | limits`: orders to everybody who shares a budget.

ratelimited-llm pause --budget redis://queue-1:6379/0     nobody sends anything
ratelimited-llm resume                                    everybody goes on
ratelimited-llm limit --rpm 8000 --tpm 5M                 lower the limits of every pool; --none lifts that
ratelimited-llm cancel --tag nightly                      cancel what waits with this tag
ratelimited-llm limits                                    what is known of the limits

An order takes effect within seconds in every process that shares the budget, and holds until it is changed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .arguments import add_limit_options, amount, limits_of
from .budgets import add_budget_option, with_store

if TYPE_CHECKING:
    from ..stores.shared_store import SharedStore

__all__ = ["add_parser"]

LONGEST_TAG = 256  # characters, as the stores take them


def add_parser(subparsers: Any) -> None:
    """Add `pause`, `resume`, `limit`, `cancel` and `limits` to the subparsers of a command line."""
    _command(subparsers, "pause", _pause, "stop everybody who shares a budget from sending", PAUSE)
    _command(subparsers, "resume", _resume, "let everybody who shares a budget send again", RESUME)
    lowering = _command(subparsers, "limit", _limit, "lower the limits of everybody who shares a budget", LIMIT)
    add_limit_options(lowering, '"none" lifts it', _amount_or_none)
    lowering.add_argument("--none", action="store_true", help="lift everything that was lowered")
    dropping = _command(subparsers, "cancel", _cancel, "cancel the waiting calls that carry a tag", CANCEL)
    dropping.add_argument("--tag", required=True, type=_tag, help="the tag of with_options(tag=...)")
    shown = _command(subparsers, "limits", _limits, "what is known of the limits", LIMITS)
    shown.add_argument("--json", action="store_true", help="as JSON")


PAUSE = """Nobody who shares the budget sends anything from now on; what is in flight ends, and what waits goes on
waiting. It holds until `ratelimited-llm resume`, for processes that start later, too."""
RESUME = "Everybody who shares the budget goes on sending, after `ratelimited-llm pause`."
LIMIT = """Lower the limits of every pool of the budget, whatever was configured or learned; a limit that is lower
already stays. It holds until it is lifted by --none, or one by one by "none" in place of the number."""
CANCEL = """Cancel the calls that wait now and carry this tag, wherever they wait. What is in flight ends as it would,
and calls submitted after this order are not meant."""
LIMITS = "Print every limit that anybody who shares the budget has stated or learned, and what is left at this moment."


def _command(
    subparsers: Any, name: str, order: Callable[[SharedStore, argparse.Namespace], int], words: str, description: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(name, help=words, description=" ".join(description.split()))
    add_budget_option(parser)
    parser.set_defaults(run=lambda args: _checked(parser, args) or with_store(args, order))
    return parser


def _checked(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Refuse a combination that argparse lets through: exits with 2."""
    if args.command_name == "limit":
        given = _lowered(args)
        if args.none and given:
            parser.error("--none lifts everything, so give it alone")
        if not args.none and not given:
            parser.error("say what to lower, as --rpm 8000, or --none to lift everything")
    return 0


# -- the orders -------------------------------------------------------------------------------------------------------


def _pause(store: SharedStore, args: argparse.Namespace) -> int:
    store.control(paused=True)
    print(f"paused for {_everybody(store)}, until: ratelimited-llm resume")
    return 0


def _resume(store: SharedStore, args: argparse.Namespace) -> int:
    store.control(paused=False)
    print(f"resumed for {_everybody(store)}")
    return 0


def _limit(store: SharedStore, args: argparse.Namespace) -> int:
    from ..display.fleet import lowered

    given: dict[str, float | None] = dict.fromkeys(store.control().limits) if args.none else _lowered(args)
    limits = store.control(limits=given).limits
    stands = f"at most {lowered(limits)}" if limits else "nothing is lowered any more"
    print(f"{stands}, for {_everybody(store)}")
    return 0


def _cancel(store: SharedStore, args: argparse.Namespace) -> int:
    from ..display.fleet import clean

    store.control(cancel=args.tag)
    print(f"cancelled what waits with the tag {clean(args.tag)!r}, for {_everybody(store)}")
    return 0


def _limits(store: SharedStore, args: argparse.Namespace) -> int:
    from ..books.fleet import fleet_of
    from ..display.fleet import limits_table

    fleet = fleet_of(store)
    if args.json:
        told = fleet.as_json()
        print(json.dumps({name: told[name] for name in ("pools", "lowered", "paused")}, indent=2))
    else:
        print("\n".join(limits_table(fleet)))
    return 0


def _everybody(store: SharedStore) -> str:
    """How many processes will obey, in words."""
    count = len(store.members())
    if not count:
        return "whoever comes (nobody shares this budget now)"
    return "1 process" if count == 1 else f"{count:,} processes together"


# -- what is typed ----------------------------------------------------------------------------------------------------


def _lowered(args: argparse.Namespace) -> dict[str, float | None]:
    """The limits that were named: a number, or None to lift it."""
    return {name: None if value == "none" else value for name, value in limits_of(args).items()}


def _amount_or_none(text: str) -> float | str:
    return "none" if text.strip().lower() == "none" else amount(text)


def _tag(text: str) -> str:
    if not text.strip() or len(text) > LONGEST_TAG or any("\ud800" <= sign <= "\udfff" for sign in text):
        raise argparse.ArgumentTypeError(f"a tag has 1 to {LONGEST_TAG} characters, all of them text")
    return text
