"""The client that a command line asks for: the options that describe it, and the door to OpenAI made by them."""

from __future__ import annotations

import argparse
from typing import Any

from .arguments import amount, priority, whole
from .budgets import VARIABLE, add_budget_option

__all__ = ["ClientError", "add_client_options", "client_for"]


class ClientError(ValueError):
    """No client can be made by these options; the message says why, and what to do."""


def add_client_options(parser: argparse.ArgumentParser) -> None:
    """Add `--model --base-url --rpm --tpm -j --priority --tag --budget` to a command's options."""
    parser.add_argument("--model", metavar="NAME", help="for lines that name no model")
    parser.add_argument("--base-url", metavar="URL", help="the provider; default: OPENAI_BASE_URL, or OpenAI itself")
    parser.add_argument("--rpm", type=amount, metavar="N", help="requests per minute (10k is read); default: learned")
    parser.add_argument("--tpm", type=amount, metavar="N", help="tokens per minute; default: learned from the answers")
    parser.add_argument("-j", "--concurrency", type=whole, metavar="N", help="calls in flight at once, at most")
    parser.add_argument("--priority", type=priority, metavar="P", help='"high", "normal", "low", or 0 to 10')
    parser.add_argument("--tag", metavar="NAME", help="a name by which these calls can be cancelled, from anywhere")
    add_budget_option(parser, f"{VARIABLE}, or nobody")


def client_for(args: argparse.Namespace) -> Any:
    """Make our OpenAI client as `args` describe it: `journal` and `max_cost` too, where the command has them.

    Raises:
        ClientError: the SDK refused to make one, as without a key, or an option makes no sense.
    """
    from ..openai import OpenAI, OpenAIError

    given = {
        "base_url": args.base_url, "rpm": args.rpm, "tpm": args.tpm, "max_concurrency": args.concurrency,
        "priority": args.priority, "tag": args.tag, "budget": args.budget,
        "journal": getattr(args, "journal", None), "max_cost": getattr(args, "max_cost", None),
    }  # fmt: skip
    try:
        return OpenAI(**{name: value for name, value in given.items() if value is not None})
    except OpenAIError as error:
        way = "Without a key, against a simulated provider: ratelimited-llm sim -- ratelimited-llm ..."
        raise ClientError(f"{error}\n{way}") from error
    except Exception as error:  # ours, or the SDK's: a base URL that is none is an error of its HTTP library
        raise ClientError(str(error)) from error
