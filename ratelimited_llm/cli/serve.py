"""`ratelimited-llm serve`: a gateway, so that any client in any language is queued by its base URL alone."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import Any

from ..options import PREFIX
from .arguments import add_limit_options, amount, dollars, limits_of, port, seconds, whole
from .budgets import VARIABLE, add_budget_option
from .saying import FAILED, USAGE, say

__all__ = ["add_parser", "run"]

PROVIDERS = ("openai", "groq", "anthropic", "azure")
LEVELS = ("debug", "info", "warning", "error", "critical")


def add_parser(subparsers: Any) -> None:
    """Add `serve` to the subparsers of a command line; parsed arguments carry `run`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "serve",
        help="a gateway: any client of OpenAI, Groq or Anthropic, queued by its base URL",
        description="Serve an endpoint that is compatible with OpenAI, Groq and Anthropic, and queues, paces, retries "
        "and streams. Keys are those of the SDKs' own variables (OPENAI_API_KEY, GROQ_API_KEY, ANTHROPIC_API_KEY); "
        "clients may send any.",
        epilog="Clients may say x-ratelimited-priority (high, normal, low, 0 to 10), x-ratelimited-client (whose turn) "
        "and x-ratelimited-deadline (seconds). Ends with SIGTERM or Ctrl-C, when what is open is answered.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1); beyond loopback with --token")
    parser.add_argument("--port", type=port, default=8089, help="(8089); 0 for a free one, which is printed")
    parser.add_argument("--token", metavar="T", help=f"what clients must send as their api key; or {PREFIX}TOKEN, "
                        "which no list of processes shows")  # fmt: skip
    parser.add_argument("--pass-through-keys", action="store_true", help="send each client's own key to the provider")
    for name in PROVIDERS:
        parser.add_argument(f"--{name}-base-url", metavar="URL", help=argparse.SUPPRESS if name == "azure" else
                            f"where {name} is; default: as its SDK has it")  # fmt: skip
    add_limit_options(parser, "default: learned from the answers", amount)
    parser.add_argument("-j", "--concurrency", type=whole, metavar="N", help="requests in flight at once, at most")
    add_budget_option(parser, f"{VARIABLE}, or nobody")
    parser.add_argument(
        "--on-budget-lost",
        metavar="HOW",
        help="without it: go on with this process's part (local), at most one of 8 (local/8), or refuse calls (raise)",
    )
    parser.add_argument("--journal", metavar="FILE", help="keep the answers: after a restart the same "
                        "requests are answered from it")  # fmt: skip
    parser.add_argument("--max-queue", type=whole, default=10_000, metavar="N", help="requests that may wait (10k); "
                        "more get a 429 with Retry-After")  # fmt: skip
    parser.add_argument("--max-body", type=_size, default=64 << 20, metavar="BYTES", help="of a request (64M)")
    parser.add_argument("--max-cost", type=dollars, metavar="$", help="US dollars that all requests may cost")
    parser.add_argument("--drain", type=seconds(0), default=30.0, metavar="S", help="seconds for open requests to end "
                        "after SIGTERM (30); then they are dropped")  # fmt: skip
    parser.add_argument("--log-level", choices=LEVELS, default="warning", help="of what goes to stderr (warning)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve; the answer is the exit code."""
    logging.basicConfig(level=args.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        from ..gateway.serving import serve
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        return say("serve", 'serve needs its extra: pip install "ratelimited-llm[server]"', USAGE)
    gateways: list[Any] = []

    def ready(url: str, app: Any) -> None:
        gateways.append(app.state.gateway)
        _say_where(url, app.state.gateway)

    try:
        code = serve(host=args.host, port=args.port, drain=args.drain, ready=ready, **_options(args))
    except OSError as error:
        where = f"{args.host}:{args.port} cannot be used ({error.strerror or error})"
        return say("serve", f"{where}; try another --port", FAILED)
    except (ValueError, TypeError) as error:
        return say("serve", error, USAGE)
    if code or any(gateway.leftover for gateway in gateways):
        # What is in flight was waited for, or is not to be: to drain it again at exit might take minutes.
        sys.stderr.flush()
        os._exit(code)
    return code


def _options(args: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(args, name) for name in ("budget", "on_budget_lost", "journal", "max_cost")}
    given["max_concurrency"] = args.concurrency
    urls = {name: getattr(args, f"{name}_base_url") for name in PROVIDERS}
    return {
        **limits_of(args),
        **{name: value for name, value in given.items() if value is not None},
        "token": args.token or os.environ.get(PREFIX + "TOKEN") or None,
        "base_urls": {name: url for name, url in urls.items() if url},
        "pass_through_keys": args.pass_through_keys,
        "max_queue": args.max_queue,
        "max_body": args.max_body,
    }


def _say_where(url: str, gateway: Any) -> None:
    ready = [name for name, upstream in gateway.upstreams.items() if upstream.configured]
    say(
        "serve",
        f"OPENAI_BASE_URL={url}/v1 GROQ_BASE_URL={url} ANTHROPIC_BASE_URL={url}  ({', '.join(ready) or 'no key yet'})",
    )
    say("serve", f"to look at it: {url}/dashboard")


def _size(text: str) -> int:
    return whole(text.upper().removesuffix("B"))
