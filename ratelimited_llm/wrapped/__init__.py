"""queued(): a queue around a client that somebody else made, or wrapped.

    client = queued(wrap_openai(OpenAI()), rpm=500)         # a tracer that reads each answer inside of the call
    client = queued(boto3.client("bedrock-runtime"), rpm=100)

The client stays what it is. What is reached through it is the client's own, but for the methods that spend rate limit:
these wait for their turn under the limits and come back as futures, or wait. So whatever a wrapper does, it does when
the call's turn has come, on a thread of the queue (or on the caller's, in blocking mode).

client_queue    what stands behind it: limits, options, a worker, and which methods are queued
proxy           what the user holds
inspection      what can be told of a client by looking at it
call            one call: what it costs, how it is queued, one attempt at it
answers         what its answers and errors tell
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, TypeVar, cast

from ..client import QueuedClient
from ..core.checks import whole
from ..core.limits import RateLimits
from ..core.retry import RetryPolicy
from ..functions.function_job import checked_classes
from ..options import CALL_NAMES, split_limits
from .client_queue import CALLS, Queue, pattern_of
from .inspection import clients_in
from .proxy import QueuedProxy, proxy_of

__all__ = ["CALLS", "QUEUE_NAMES", "queued"]

QUEUE_NAMES = ("max_queue", "max_queue_per_tenant", "on_full", "ageing", "weights", "budget", "on_budget_lost")

T = TypeVar("T")


def queued(
    client: T,
    limits: RateLimits | None = None,
    *,
    calls: str | Iterable[str] | None = None,
    tokens: int | Callable[..., int] | None = None,
    max_retries: int = 2,
    retry_on: type[BaseException] | tuple[type[BaseException], ...] = (),
    **options: Any,
) -> T:
    """Put a queue around a client: what comes back is used as the client, and its calls are inside the limits.

    Args:
        client: any object with blocking methods. Give it no retries of its own (`max_retries=0`), or they go out
            without a turn.
        limits: as a value; or one by one (`rpm=`, `tpm=`, `max_concurrency=`, ...). What is not given is learned from
            the headers of the answers, where they can be reached.
        calls: the methods that are queued, by name ("create"), or by how they are reached ("chat.completions.create");
            "__call__" for the client itself. None for `CALLS`, but not below such parts as `files` and `batches`.
        tokens: model tokens that a call costs: a number, or a function of the call's own arguments; None to estimate
            them from the text in the arguments and to learn from the answers.
        max_retries: how often a call is tried again after an exception in `retry_on`; a refusal with status 429, also
            one that another exception was raised from, waits for the limit and is no attempt.
        retry_on: exception classes that are worth another try.
        **options: `mode`, `priority`, `tenant`, `deadline`, `max_wait` of all calls; others for some of them by
            `.with_options(...)`; and `max_queue`, `max_queue_per_tenant`, `on_full`, `ageing`, `weights`, as for our
            `OpenAI`. `mode` is "future" (each call returns at once) or "blocking" (in the caller's own thread).

    `close()`, and the end of a `with` block, wait for what is queued, and then close the client. A stream has its turn
    when it is opened and keeps no place; one that is sent by its own `with` is not tried again.

    Raises:
        TypeError: the client is ours and queued already, or async, or no client; or an argument makes no sense.
        ValueError: for a number that is no limit.
    """
    check_client(client)
    given = {name: options.pop(name) for name in (*CALL_NAMES, *QUEUE_NAMES) if name in options}
    stated = split_limits(limits, options)
    policy = RetryPolicy(max_retries=whole("max_retries", max_retries, 0))
    queue = Queue(client, stated, pattern_of(calls), tokens, policy, checked_classes(retry_on), given)
    return cast(T, proxy_of(queue, client, ""))


def check_client(client: Any) -> None:
    if isinstance(client, type) or inspect.isroutine(client) or (
        type(client).__module__ == "builtins" and not isinstance(client, ModuleType)
    ):  # fmt: skip
        also = "; for functions there is RateLimitedExecutor" if inspect.isroutine(client) else ""
        raise TypeError(f"queued() takes a client, an object with methods, not {client!r:.60}{also}")
    for each in clients_in(client):
        kind = type(each)
        if issubclass(kind, (QueuedClient, QueuedProxy)):
            what = "it is" if each is client else f"the {kind.__name__} inside of it is"
            raise TypeError(
                f"{what} queued already: its own rpm=, tpm=, mode= and with_options() say how; queued() is for clients "
                "of others"
            )
        if any(base.__name__ in ("AsyncAPIClient", "AsyncClient") for base in kind.__mro__):
            raise TypeError(f"{kind.__name__} is async: queued() is for clients that wait")
