"""`ratelimited-llm estimate IN.jsonl`: how long a batch will take, what it costs, which limit binds; nothing is sent.

ratelimited-llm estimate rows.jsonl --model gpt-4o-mini --rpm 10000 --tpm 10M
"""

from __future__ import annotations

import argparse
import json
import math
import os
from typing import Any

from .arguments import amount, seconds, shown, whole
from .clients import add_client_options
from .saying import USAGE, say

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add `estimate` to the subparsers of a command line; parsed arguments carry `run`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "estimate",
        help="how long a batch will take and what it costs, before anything is sent",
        description="Read a batch as `batch` would, and foresee it with the same scheduler and limiter in virtual "
        "time: requests, tokens, the limit that binds, the end, the cost, and lines that can never fit. "
        "No key is needed and nothing is sent. Exit codes: 0, 1 when lines can never fit or cannot be read, 2 usage.",
    )
    parser.add_argument("input", metavar="IN", help='JSON lines or a table as for batch; "-" for stdin')
    add_client_options(parser)
    parser.add_argument("--rpd", type=amount, metavar="N", help="requests per day; default: no such limit")
    parser.add_argument("--tpd", type=amount, metavar="N", help="tokens per day; default: no such limit")
    parser.add_argument("--prompt", metavar="TEXT", help='a template over the columns: "Classify: {text}"')
    parser.add_argument("--endpoint", metavar="PATH", help="for lines that name none: /v1/chat/completions, ...")
    parser.add_argument("--limit", type=whole, metavar="N", help="only the first N lines")
    parser.add_argument("--latency", type=seconds(0.001), metavar="S", help="seconds an answer takes (2)")
    parser.add_argument("--output-tokens", type=whole, metavar="N", help="tokens of an answer (256, or its maximum)")
    parser.add_argument("--price", type=_price, metavar="IN,OUT", help="US dollars per million tokens; default: listed")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Estimate and print; the answer is the exit code."""
    from ..batch.estimate import estimate
    from ..core.limits import RateLimits

    try:
        found = estimate(
            None, args.input, model=args.model, prompt=args.prompt, endpoint=args.endpoint, limit=args.limit,
            limits=RateLimits(rpm=args.rpm, tpm=args.tpm, rpd=args.rpd, tpd=args.tpd),
            latency=args.latency, output_tokens=args.output_tokens, concurrency=args.concurrency,
            prices=None if args.price is None else {"*": args.price},
            base_url=args.base_url or os.environ.get("OPENAI_BASE_URL") or "",
        )  # fmt: skip
    except OSError as error:
        return say("estimate", f"cannot read {args.input}: {error.strerror or error}", USAGE)
    except ValueError as error:
        return say("estimate", error, USAGE)
    print(json.dumps(found.as_dict()) if args.json else found)
    return 1 if found.never_fit or found.bad else 0


def _price(text: str) -> tuple[float, float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 2 or not all(math.isfinite(value) and value >= 0 for value in values):
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is no price: give dollars per million tokens of input and output, 0.15,0.6"
        )
    return values[0], values[1]
