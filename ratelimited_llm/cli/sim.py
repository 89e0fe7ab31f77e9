"""`ratelimited-llm sim`: a provider on loopback to try things against, or to rehearse a script with.

ratelimited-llm sim --provider groq --rpm 30 --tpm 6000          serves until Ctrl-C
ratelimited-llm sim --rpm 300 -- python your_script.py           runs it against the simulator, then reports
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from .arguments import add_limit_options, amount, integer, limits_of, number, port, seconds, shown, whole
from .saying import FAILED, say

if TYPE_CHECKING:
    from ..simulator import Simulator

__all__ = ["add_parser", "run"]

PROVIDERS = ("openai", "azure", "groq", "anthropic", "mistral", "generic")
# What a shell answers when a command cannot be found, and when it may not be run.
NOT_FOUND, NOT_RUNNABLE = 127, 126


def add_parser(subparsers: Any) -> None:
    """Add `sim` to the subparsers of a command line; parsed arguments carry `run`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "sim",
        help="a local provider with real limits, or a rehearsal of your script against it",
        description="Serve a simulated provider on loopback until Ctrl-C; with '-- COMMAND', run the command against "
        "it and report what it would have met. No key and no internet are needed.",
    )
    parser.add_argument("--provider", choices=PROVIDERS, default="openai", help="whose headers, errors and rules")
    add_limit_options(parser, "default: no such limit", amount)
    parser.add_argument("--concurrency", type=whole, metavar="N", help="calls in flight at once")
    parser.add_argument(
        "--period", type=seconds(0.001), default=60.0, metavar="S",
        help="seconds of a 'minute' (60); clients take a minute for 60, and use less of a shorter one",
    )  # fmt: skip
    parser.add_argument("--smooth", type=seconds(0.001), metavar="S", help="enforce minute limits over so many seconds")
    parser.add_argument("--window", choices=("bucket", "fixed", "sliding"), help="default: the provider's")
    parser.add_argument("--latency", type=span, default=0.2, metavar="S|LOW-HIGH", help="seconds per answer (0.2)")
    parser.add_argument("--output-tokens", type=tokens, metavar="N|LOW-HIGH", help="tokens of an answer (20-100)")
    parser.add_argument("--echo", action="store_true", help="answer with the last user message")
    parser.add_argument("--errors", type=share, default=0.0, metavar="P", help="share of calls that end in a 500 (0)")
    parser.add_argument("--seed", type=integer, default=0, help="of everything that is drawn (0)")
    parser.add_argument("--port", type=port, default=None, help="8089 when serving, a free one with a command")
    parser.add_argument("--no-headers", action="store_true", help="tell the limits only by refusing")
    parser.add_argument("command", nargs="*", metavar="-- COMMAND", help="what to run against it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve, or rehearse; the answer is the exit code (a command's own, 128 + N when signal N ended it)."""
    simulator = _simulator(args)
    try:
        simulator.start()
    except OSError as error:
        return say("sim", f"port {args.port} cannot be used ({error.strerror}); try another --port", FAILED)
    try:
        return _rehearse(simulator, list(args.command)) if args.command else _serve(simulator)
    finally:
        simulator.stop()


def _simulator(args: argparse.Namespace) -> Simulator:
    from ..simulator import Fault, Simulator

    told = False if args.no_headers else None
    free = 0 if args.command else 8089
    return Simulator(
        args.provider, **limits_of(args), max_concurrency=args.concurrency, period=args.period, smooth=args.smooth,
        window=args.window, latency=args.latency, output_tokens=args.output_tokens,
        answer="echo" if args.echo else "text", headers=told, retry_after=told, body_hint=told, seed=args.seed,
        port=free if args.port is None else args.port,
        faults=[Fault(probability=args.errors)] if args.errors else None,
    )  # fmt: skip


def _serve(simulator: Simulator) -> int:
    began = time.monotonic()
    print(f"simulating {simulator.provider} at {simulator.base_url}, until Ctrl-C")
    print("\n".join(f"export {name}={value}" for name, value in simulator.env().items()), flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print(report(simulator, time.monotonic() - began), file=sys.stderr)
    return 0


def _rehearse(simulator: Simulator, command: list[str]) -> int:
    began = time.monotonic()
    try:
        child = subprocess.Popen(command, env={**os.environ, **simulator.env(), "PATH": _path()})
    except OSError as error:
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUNNABLE
        return say("sim", f"cannot run {command[0]!r}: {error.strerror}", code)
    with child:
        code = _wait_for(child)
    print(report(simulator, time.monotonic() - began), file=sys.stderr)
    return code if code >= 0 else 128 - code


def _path() -> str:
    """Where programs are looked for; last beside our own Python, as some systems have a `python3` but no `python`."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), os.path.dirname(sys.executable)))


def _wait_for(child: subprocess.Popen[bytes]) -> int:
    """Wait for the child, and pass on the signals that are meant for it."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        # A terminal's Ctrl-C goes to the whole foreground group, the child included. Sent again, it would be the
        # second one, which means "give up what is in flight" to our own library.
        if number != signal.SIGINT or not _in_foreground():
            child.send_signal(number)

    with _handling(pass_on):
        return child.wait()


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle SIGINT and SIGTERM in a `with` block; outside the main thread there are no handlers to set."""
    ours = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM) if ours}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _in_foreground() -> bool:
    """Whether a terminal's Ctrl-C reaches this process and its children by itself."""
    if os.name == "nt":
        return True
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def report(simulator: Simulator, seconds: float) -> str:
    """What happened, in three lines: calls, tokens, time and the share of the limit that was used."""
    seen = simulator.counters
    lines = [
        f"simulated {simulator.provider}: {seen.requests} request{'' if seen.requests == 1 else 's'}, "
        f"{seen.answered} answered, {seen.refused} refused "
        f"(429), {seen.failed} failed, {seen.abandoned} abandoned",
        f"tokens: {seen.input_tokens:,} in, {seen.output_tokens:,} out; at most {seen.max_in_flight} in flight",
    ]
    share = simulator.share_used()
    used = f", {share:.0%} of the limit used" if share else ""
    return "\n".join([*lines, f"time: {seconds:.1f} s{used}"])


def span(text: str) -> float | tuple[float, float]:
    """Seconds, or two of them with a dash between; 0 is allowed."""
    low, _, high = text.partition("-")
    try:
        values = [float(part) for part in (low, high or low)]
    except ValueError:
        values = [math.nan]
    if not all(math.isfinite(value) and value >= 0 for value in values) or values != sorted(values):
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is no latency: give seconds (0.2), or lowest and highest (0.1-2)"
        )
    return values[0] if not high else (values[0], values[1])


def tokens(text: str) -> int | tuple[int, int]:
    """A whole number of tokens, or two of them with a dash between."""
    low, _, high = text.partition("-")
    sizes = [part for part in (low, high or low) if part.isascii() and part.isdigit() and len(part) < 10]
    if len(sizes) < 2 or int(sizes[0]) > int(sizes[1]):
        raise argparse.ArgumentTypeError(f"{shown(text)} is no size: give tokens (60), or lowest and highest (20-100)")
    return int(low) if not high else (int(low), int(high))


def share(text: str) -> float:
    """A share from 0 to 1."""
    return number(text, lambda value: 0 <= value <= 1, "is no share: give a number from 0 to 1")
