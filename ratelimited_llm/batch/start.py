"""`client.batch(...)`: checks what was asked for, opens the files, and runs."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from itertools import chain
from typing import Any

from ..core.checks import path_of, seconds
from .files import Files
from .lines import BadLine, Line, check_source, read_lines
from .output import OutputError, errors_path, past_of
from .result import BatchResult
from .run import Run, look
from .sending import Calls
from .source import Lines, count_lines, may_block

__all__ = ["check_batch", "run_batch"]


def run_batch(
    client: Any,
    source: Any,
    target: Any,
    *,
    prompt: str | None = None,
    model: str | None = None,
    endpoint: str | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    max_time: float | None = None,
    errors: Any = None,
    dry_run: bool = False,
) -> BatchResult:
    """Send every line of a file through the client's queue, and append the answers to another; blocks until done.

    Input and output are those of OpenAI's Batch API; see `read_lines` for other inputs. Answers are written as they
    come, in no order; calls that fail, and lines that cannot be sent, go to the errors file. Called again with the same
    files it does what is missing. Memory does not grow with the number of lines. To be called from one thread; several
    batches may share a client.

    Args:
        client: a door of this package; its limits, priority, `max_cost` and journal are the batch's.
        source: a path, "-" for stdin, or a file object.
        target: a path, "-" for stdout, or a file object; a file is continued, and only if it is a batch's output.
        prompt, model, endpoint, limit: see `read_lines`.
        retry_failed: try again the calls that failed in earlier runs; what is answered now leaves the errors file.
        max_time: seconds after which nothing more is sent; what is in flight then has 30 s more. None for no bound.
        errors: the path of the errors file; None for TARGET.errors.jsonl, or, when the target is no path, among the
            answers.
        dry_run: see `check_batch`.

    Raises:
        InputError, OutputError: the input cannot be read so, or the target is something else or in use; ValueErrors.
        OSError: a file cannot be read or written; what was written before is whole.
        BatchInterrupted: Ctrl-C, after the answers in flight came in or 5 s were over; a KeyboardInterrupt.
        Exception: the provider's own error, when it refuses every call for a reason that all calls share: a wrong
            key, no credit.
    """
    if max_time is not None:
        seconds("max_time", max_time)
    calls = Calls(client)
    if endpoint is None and type(client)._provider_name == "anthropic":
        endpoint = "/v1/messages"
    how: dict[str, Any] = {"prompt": prompt, "model": model, "endpoint": endpoint, "limit": limit}
    if dry_run:
        return check_batch(source, target, errors=errors, retry_failed=retry_failed, **how)
    path, errors = _paths(source, target, errors)
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    lines, threaded = _begun(source, how)
    with Files(target, path, errors) as files, client._runtime.progress:
        client._runtime.progress.lasts()
        _expect(client, source, limit, len(files.past.answered))
        try:
            return Run(calls, events, files, retry_failed).go(Lines(lines, events, threaded), max_time)
        finally:
            client._runtime.progress.hush()  # the result says how it ended


def check_batch(
    source: Any,
    target: Any,
    *,
    prompt: str | None = None,
    model: str | None = None,
    endpoint: str | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    errors: Any = None,
) -> BatchResult:
    """Read and check everything that `run_batch` would, and send and write nothing; no client is needed.

    What would be sent is counted as `unfinished`. Arguments and errors are those of `run_batch`.
    """
    path, errors = _paths(source, target, errors)
    lines, _ = _begun(source, {"prompt": prompt, "model": model, "endpoint": endpoint, "limit": limit})
    return look(lines, past_of(path, errors), retry_failed, path, errors)


def _begun(source: Any, how: dict[str, Any]) -> tuple[Iterator[Line | BadLine], bool]:
    """The lines, and whether reading them may wait; if not, the first was read, so that its errors come first."""
    lines = read_lines(source, **how)
    if may_block(source):
        return lines, True
    first = next(lines, None)
    return (iter(()) if first is None else chain([first], lines)), False


def _paths(source: Any, target: Any, errors: Any) -> tuple[str | None, str | None]:
    """The files for the answers and for the failures."""
    check_source(source)
    path = None
    if target != "-" and not hasattr(target, "write"):
        path = path_of("target", target)
    errors = path_of("errors", errors) if errors is not None else errors_path(path) if path is not None else None
    _refuse_same_file(source, path, errors)
    return path, errors


def _refuse_same_file(source: Any, path: str | None, errors: str | None) -> None:
    if path is not None and path == errors:
        raise OutputError(f"{path} cannot take the answers and the errors; choose another file for one")
    if not isinstance(source, (str, os.PathLike)) or source == "-":
        return
    os.stat(source)  # its own error, before there is an output
    for name in (path, errors):
        if name is not None and os.path.exists(name) and os.path.samefile(source, name):
            raise OutputError(f"{name} is the input itself; choose another output")


def _expect(client: Any, source: Any, limit: int | None, answered: int) -> None:
    """Tell the client how many calls are to come, where that is cheap to know."""
    count = count_lines(source)
    if count is not None:
        ledger = client._runtime.ledger
        ledger.expect(ledger.submitted_calls + max(0, min(count, limit or count) - answered))
