"""`ratelimited-llm worker`: send the calls of a shared queue, with the keys of this machine, inside their limits.

ratelimited-llm worker --queue dramatiq+redis://host/0 --budget redis://host/1 --concurrency 64

SIGTERM or Ctrl-C: nothing more is taken, what is in flight is finished within `--drain` seconds, and the rest is given
back to the queue. A second one: at once. A worker that is killed loses nothing: others are given its jobs when it has
been silent for `--heartbeat` seconds.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from ..options import PREFIX
from .arguments import add_limit_options, amount, dollars, limits_of, seconds, whole
from .budgets import VARIABLE, add_budget_option
from .clients import ClientError
from .saying import USAGE, say

if TYPE_CHECKING:
    from ..queues import Stop

__all__ = ["add_parser", "run"]

PROVIDERS = {
    "openai": ("openai", "OpenAI", "OPENAI_API_KEY"),
    "azure": ("openai", "AzureOpenAI", "AZURE_OPENAI_API_KEY"),
    "groq": ("groq", "Groq", "GROQ_API_KEY"),
    "anthropic": ("anthropic", "Anthropic", "ANTHROPIC_API_KEY"),
}


def add_parser(subparsers: Any) -> None:
    """Add `worker` to the subparsers of a command line; parsed arguments carry `run`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "worker",
        help="send the calls that others submit with queue=",
        description="Send the calls of a shared queue. Keys and base URLs come from this process's environment, as "
        "the SDKs read them, and never from the queue.",
    )
    queue = os.environ.get(PREFIX + "QUEUE")
    parser.add_argument(
        "--queue", metavar="URL", default=queue, required=not queue,
        help="dramatiq+redis://host/0 or celery+redis://host/0; default: RATELIMITED_LLM_QUEUE",
    )  # fmt: skip
    add_budget_option(parser, f"{VARIABLE}, or nobody")
    parser.add_argument(
        "--provider", action="append", choices=sorted(PROVIDERS), metavar="NAME",
        help="openai, azure, groq or anthropic, repeatable; default: those whose key is in the environment",
    )  # fmt: skip
    parser.add_argument("-j", "--concurrency", type=whole, default=64, metavar="N", help="calls in flight (64)")
    add_limit_options(parser, "default: learned from the answers", amount)
    parser.add_argument("--max-cost", type=dollars, metavar="USD", help="what this worker's calls may cost at most")
    parser.add_argument("--drain", type=seconds(0.5), default=30.0, metavar="S", help="seconds to finish in (30)")
    parser.add_argument(
        "--heartbeat", type=seconds(0.5), default=15.0, metavar="S", help="seconds until a silent worker is dead (15)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say more on stderr")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Work until told to stop; 0 after SIGTERM, 130 after Ctrl-C, 2 when the command line makes no sense."""
    from ..books.facts import set_role
    from ..exceptions import RateLimitedLLMError
    from ..queues import QueueAddress, Stop

    logging.basicConfig(
        stream=sys.stderr, format="[%(asctime)s - %(name)s - %(levelname)s] %(message)s",
        level=logging.DEBUG if args.verbose else logging.WARNING,
    )  # fmt: skip
    for noisy in ("httpx", "httpx2", "httpcore", "openai", "groq", "anthropic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    clients: dict[str, Any] = {}
    try:
        address = QueueAddress.parse(args.queue)
        set_role("worker")
        clients = clients_for(args)
        stop = Stop(args.drain)
        received = _listen(stop)
        bound = f"at most {args.concurrency} in flight (pid {os.getpid()})"
        say("worker", f"{', '.join(clients)} for {address.shown}, {bound}")
        told, left = work(args, address, clients, stop)
        say("worker", told)
        code = 130 if signal.SIGINT in received else 0
        if left:  # their threads would be waited for, and their jobs are given back
            os._exit(code)
        return code
    except (ClientError, ImportError, ValueError, TypeError, RateLimitedLLMError) as error:
        return say("worker", error, USAGE)
    finally:
        for client in clients.values():
            client.cancel()
            client.close()


def work(args: argparse.Namespace, address: Any, clients: dict[str, Any], stop: Stop) -> tuple[str, int]:
    """Consume until told to stop; answers what was done, in words, and how many calls are in flight still."""
    from ..queues import engine_for
    from ..queues.answer_store import AnswerStore
    from ..queues.redis_server import ServerClock, connect
    from ..queues.service import JobService

    engine = engine_for(address)
    client = connect(address)
    try:
        service = JobService(clients, AnswerStore(client, address), ServerClock(client), heartbeat=args.heartbeat)
        engine.consume(service, concurrency=args.concurrency, heartbeat=args.heartbeat, stop=stop)
        return (
            f"{service.answered} answered, {service.failed} failed, {service.known} known already, "
            f"{service.put_back} put back, {service.refused} refused"
        ), service.in_flight
    finally:
        engine.close()
        client.close()


def clients_for(args: argparse.Namespace) -> dict[str, Any]:
    """The clients that send, by provider.

    Raises:
        ClientError: there is none, or one cannot be made.
    """
    names = args.provider or [name for name, (_, _, key) in PROVIDERS.items() if os.environ.get(key)]
    if not names:
        keys = ", ".join(key for _, _, key in PROVIDERS.values())
        raise ClientError(f"no provider: set one of {keys}, or name one with --provider")
    given = {"max_concurrency": args.concurrency, "budget": args.budget, "max_cost": args.max_cost}
    options = {**limits_of(args), **{name: value for name, value in given.items() if value is not None}}
    return {name: _client(name, options) for name in names}


def _client(provider: str, options: dict[str, Any]) -> Any:
    import importlib

    module, name, key = PROVIDERS[provider]
    door = importlib.import_module(f"ratelimited_llm.{module}")
    try:
        # Not the environment's queue, which would have the worker submit; nor its journal, which knows single scripts.
        return getattr(door, name)(queue=False, journal=False, progress=False, **options)
    except Exception as error:  # the SDKs have errors of their own for a key that is missing
        raise ClientError(f"no client for {provider}: {type(error).__name__}; is {key} set?") from error


def _listen(stop: Stop) -> set[int]:
    """Have SIGTERM and Ctrl-C end the work; answers the signals that came, as they come."""
    received: set[int] = set()

    def told(number: int, frame: object) -> None:
        received.add(number)
        stop.ask()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    return received
