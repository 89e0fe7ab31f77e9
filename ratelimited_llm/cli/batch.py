"""`ratelimited-llm batch`: a file of calls in, a file of answers out; the same command again does what is missing.

ratelimited-llm batch rows.jsonl -o answers.jsonl
ratelimited-llm batch reviews.csv -o answers.jsonl --prompt "Classify: {text}" --model gpt-4.1-mini --limit 20
cat rows.jsonl | ratelimited-llm batch - -o - > answers.jsonl
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from typing import Any
from urllib.parse import urlsplit

from ..batch import BatchInterrupted, BatchResult, InputError, OutputError, check_batch, run_batch
from ..core.checks import path_of
from ..stores.budget_spec import hidden
from .arguments import dollars, duration, shown, whole
from .clients import add_client_options, client_for
from .saying import CAPPED, DONE, FAILED, INTERRUPTED, USAGE, say

__all__ = ["add_parser", "run"]

# From here on it is worth a word that OpenAI does files at half the price within a day: below, it takes minutes.
WORTH_A_DAY = 10_000


def add_parser(subparsers: Any) -> None:
    """Add `batch` to the subparsers of a command line; parsed arguments carry `run`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "batch",
        help="send a file of calls, as fast as the limits allow, and append the answers to another",
        description="Send every line of IN through the queue and append the answers to OUT, both as OpenAI's Batch API "
        'writes them. IN may also be short batch lines, bare bodies, {"prompt": ...} rows, or a table (.csv, .tsv) '
        "with --prompt. Failures go to OUT.errors.jsonl. The same command again does only what is missing.",
        epilog="exit codes: 0 every line is answered, 1 some failed, 2 usage, 3 stopped by --max-cost or --max-time, "
        "130 interrupted",
    )  # fmt: skip
    parser.add_argument("input", metavar="IN", help='the calls; "-" for stdin, and .gz is unpacked')
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help='the answers; "-" for stdout')
    parser.add_argument("--prompt", metavar="TEXT", help='a template for tables: "Classify: {column}"')
    parser.add_argument("--endpoint", metavar="URL", help="for lines that name none, as /v1/embeddings")
    parser.add_argument("--limit", type=whole, metavar="N", help="only the first N lines, to taste")
    parser.add_argument("--retry-failed", action="store_true", help="try again what failed in earlier runs")
    parser.add_argument("--dry-run", action="store_true", help="read and check everything, and send nothing")
    parser.add_argument("--max-cost", type=dollars, metavar="USD", help="stop before more is spent in this run")
    parser.add_argument("--max-time", type=_time, metavar="TIME", help="send nothing more after 90s, 15m, 2h, ...")
    parser.add_argument(
        "--journal", metavar="FILE", help="also keep answers there, for every script that asks the same"
    )
    parser.add_argument("--report", metavar="HTML", help="a page with pictures of the run")
    add_client_options(parser)
    parser.set_defaults(run=run)


PATIENCE = 2.0  # seconds for what is in flight when the run cannot go on
REFUSED = (InputError, OutputError, FileNotFoundError, IsADirectoryError, PermissionError)


def run(args: argparse.Namespace) -> int:
    """Do it; the answer is the exit code."""
    how = {name: getattr(args, name) for name in ("prompt", "model", "endpoint", "limit", "retry_failed")}
    try:
        if args.report is not None:
            path_of("--report", args.report)  # which is written when all is paid for
        if args.dry_run:
            return _foresee(check_batch(args.input, args.output, **how))
        client = client_for(args)
    except (ValueError, OSError) as error:
        return _refused(error)
    try:
        result = run_batch(client, args.input, args.output, max_time=args.max_time, **how)
    except BatchInterrupted as interrupted:
        return _interrupted(args, client, interrupted.result)
    except Exception as error:
        client.cancel()
        if client.wait(PATIENCE):  # else the process takes with it what is still in flight
            client.close()
        return _failed(args, error)
    return _finish(args, client, result)


def _failed(args: argparse.Namespace, error: Exception) -> int:
    if isinstance(error, BrokenPipeError):
        _leave(FAILED)  # whoever read our output has left, as `head` does: that is nothing to speak of
    # Ours that say what to change of the calls are ValueErrors as well, and come when some were sent.
    if type(error) is ValueError or isinstance(error, REFUSED):
        return _refused(error)
    say("batch", f"stopped: {error}")
    if args.output != "-":
        say("batch", _resume(args, "--retry-failed"))
    return FAILED


def _foresee(result: BatchResult) -> int:
    """Print what a run would do (`--dry-run`)."""
    parts = [f"{result.total:,} lines", f"{result.unfinished:,} would be sent"]
    parts += [f"{result.skipped:,} answered before"] if result.skipped else []
    parts += [f"{result.failed_before:,} failed before (--retry-failed)"] if result.failed_before else []
    parts += [f"{result.bad:,} bad"] if result.bad else []
    say("batch", f"dry run: {', '.join(parts)}; nothing was sent")
    return FAILED if result.bad else DONE


def _finish(args: argparse.Namespace, client: Any, result: BatchResult) -> int:
    say("batch", _summary(result) + _spent(client))
    if result.failed_before:
        say("batch", f"{result.failed_before:,} failed in earlier runs; try them again with --retry-failed")
    if result.stopped is not None:
        why = f": {result.reason}" if result.reason else ""
        say("batch", f"stopped by --max-{result.stopped}{why}. {_resume(args)}")
    elif urlsplit(str(client.base_url)).hostname == "api.openai.com" and result.answered >= WORTH_A_DAY:
        say(
            "batch",
            "no hurry? OpenAI's Batch API takes 50,000 lines or 200 MB a file, at half the price, in up to 24 h",
        )
    _report(args, client)
    if client._runtime.worker.in_flight:
        _leave(CAPPED)
    client.close()
    if result.stopped is not None:
        return CAPPED
    return DONE if result.complete else FAILED


def _interrupted(args: argparse.Namespace, client: Any, result: BatchResult) -> int:
    say("batch", f"interrupted: {_summary(result)}. {_resume(args)}")
    _report(args, client)
    if client._runtime.worker.in_flight:
        _leave(INTERRUPTED)
    client.close()
    return INTERRUPTED


def _leave(code: int) -> None:
    """End the process although calls are in flight: they were waited for, and draining them might take minutes."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _summary(result: BatchResult) -> str:
    """What became of the lines, in half a line."""
    parts = [f"{result.answered:,} answered"]
    if result.failed:
        parts.append(f"{result.failed:,} failed")
    if result.bad:
        parts.append(f"{result.bad:,} bad line{'s' if result.bad > 1 else ''}")
    if (result.failed or result.bad) and result.errors_path is not None:
        parts[-1] += f" (see {result.errors_path})"
    if result.skipped:
        parts.append(f"{result.skipped:,} answered before")
    if result.unfinished:
        parts.append(f"{result.unfinished:,} still to do")
    return f"{', '.join(parts)}, in {result.seconds:,.1f} s"


def _spent(client: Any) -> str:
    spent = client._runtime.status().spent
    return "" if spent is None else f", for ${spent:,.4g}"


def _resume(args: argparse.Namespace, more: str = "") -> str:
    """The command that does the rest."""
    if args.output == "-":
        return "What was not answered is not in the output."
    words = [_shown(word) for word in sys.argv[1:] if word != more]
    return f"Resume: {shlex.join(['ratelimited-llm', *words, *([more] if more else [])])}"


def _shown(word: str) -> str:
    """A word of the command line as it may be repeated: what is said here ends up in logs."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return option + equals + hidden(value) if "@" in value and "://" in value else word


def _report(args: argparse.Namespace, client: Any) -> None:
    if args.report is not None:
        try:
            client.report(args.report)
        except OSError as error:
            say("batch", f"the report cannot be written: {error}")


def _refused(error: Exception) -> int:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return say("batch", f"cannot open {error.filename}: {error.strerror}", USAGE)
    return say("batch", error, USAGE)


def _time(text: str) -> float:
    value = duration(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no time in which anything could be sent")
    return value
