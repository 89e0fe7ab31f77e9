"""queued(): a queue around a client that somebody else made, or wrapped.

    client = queued(wrap_openai(OpenAI()), rpm=500)         # a tracer that reads each answer inside of the call
    client = queued(boto3.client("bedrock-runtime"), rpm=100)

The client stays what it is. What is reached through it is the client's own, but for the methods that spend rate limit:
these wait for their turn under the limits and come back as futures, or wait. So whatever a wrapper does, it does when
the call's turn has come, on a thread of the queue (or on the caller's, in blocking mode).
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar, cast

from .accounts import Account, account_for
from .books.tally import Tally
from .calls.wrapped_call import WrappedCall, listen
from .client import QueuedClient
from .core.checks import weights_of, whole
from .core.limits import RateLimits
from .core.retry import RetryPolicy
from .engine import lifecycle
from .engine.jobs import in_call
from .engine.plain_answers import wants_answers
from .options import CallOptions, mode_from_environment, split_limits
from .providers import dialect_for
from .shared_workers import QueueSettings, worker_for
from .telemetry.asked import serve_if_asked

__all__ = ["CALLS", "queued"]

# Names of methods that spend rate limit: the SDKs of OpenAI, Groq, Anthropic, Mistral and Google, instructor, Bedrock's
# runtime, LangChain and LlamaIndex.
CALLS = frozenset({
    "create", "parse", "stream", "complete", "generate", "edit", "create_variation",
    "create_with_completion", "create_partial", "create_iterable", "chat_completion",
    "generate_content", "generate_content_stream", "embed_content", "generate_images",
    "converse", "converse_stream", "invoke_model", "invoke_model_with_response_stream",
    "invoke", "predict", "stream_complete", "stream_chat", "embed_query", "embed_documents",
})  # fmt: skip
# Parts of the SDKs whose `create` and the like make an object on the server and spend no model tokens.
FREE = frozenset({
    "assistants", "batches", "containers", "conversations", "evals", "files", "fine_tuning", "skills", "uploads",
    "vector_stores", "webhooks",
})  # fmt: skip
CALL_NAMES = ("priority", "tenant", "deadline", "max_wait", "mode", "tag")
QUEUE_NAMES = ("max_queue", "max_queue_per_tenant", "on_full", "ageing", "weights", "budget", "on_budget_lost")
PROVIDERS = ("openai", "groq", "anthropic")
MOST_INSIDE = 8  # wrappers of wrappers that are looked into

T = TypeVar("T")
_numbers = itertools.count()


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
    _check(client)
    given = {name: options.pop(name) for name in (*CALL_NAMES, *QUEUE_NAMES) if name in options}
    queue = Queue(client, split_limits(limits, options), _pattern(calls), tokens, given)
    queue.policy = RetryPolicy(max_retries=whole("max_retries", max_retries, 0))
    queue.retry_on = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    if not all(isinstance(each, type) and issubclass(each, BaseException) for each in queue.retry_on):
        raise TypeError(f"retry_on must be an exception class or a tuple of them, not {retry_on!r}")
    return cast(T, _proxy(queue, client, ""))


class Queue:
    """What stands behind one `queued()`: limits, options, and the calls that have not ended.

    Args:
        client: whose calls they are.
        limits: what may be spent.
        calls: says of a path whether it is to be queued.
        tokens: see `queued`.
        given: options of calls and queue.
    """

    policy: RetryPolicy
    retry_on: tuple[type[BaseException], ...]

    def __init__(
        self,
        client: Any,
        limits: RateLimits,
        calls: Callable[[str], bool],
        tokens: int | Callable[..., int] | None,
        given: dict[str, Any],
    ) -> None:
        own = {name: given[name] for name in CALL_NAMES if given.get(name) is not None}
        if "mode" not in own:
            own["mode"] = mode_from_environment()
        settings = {name: given[name] for name in QUEUE_NAMES if given.get(name) is not None}
        if "weights" in settings:
            settings["weights"] = tuple(sorted(weights_of(settings["weights"]).items()))
        self.options = CallOptions(**own)
        self.limits = limits
        self.spends = calls
        if tokens is not None and not callable(tokens):
            whole("tokens", tokens, 0)
        self.tokens = tokens
        self.worker = worker_for(QueueSettings(**settings))
        self.package = _package(client)
        self.account = _account(client, limits)
        self.tally = Tally(self.worker.budget, self.worker.clock)
        self.traced_by_sdk = any(getattr(each, "_tracer", None) is not None for each in _inside(client))
        self.pending: set[Future[Any]] = set()
        serve_if_asked()

    def with_options(self, **changes: Any) -> Queue:
        """The same with other options for its calls."""
        twin = object.__new__(Queue)
        twin.__dict__.update(self.__dict__)
        twin.options = self.options.replace(**changes)
        return twin

    def call(self, path: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Queue one call; answers its future, or in blocking mode what it returns."""
        if inspect.iscoroutinefunction(inspect.unwrap(method)):
            raise TypeError(f"{path} is async: queued() is for clients that wait; wrap the blocking twin of this one")
        call = WrappedCall(self, path, method, args, kwargs)
        if self.options.mode == "blocking" or in_call() or wants_answers():
            return call.in_own_thread()
        future = call.as_future()
        self.pending.add(future)
        future.add_done_callback(self.pending.discard)
        return future

    def wait(self, timeout: float | None = None) -> None:
        """Block until no call is pending, at most `timeout` seconds."""
        wait(list(self.pending), timeout)

    def cancel(self) -> int:
        """Cancel what waits; answers how many."""
        return sum(future.cancel() for future in list(self.pending))

    def is_part(self, value: Any) -> bool:
        """Whether an attribute is a part of the client, with calls of its own below."""
        if isinstance(value, (type, BaseException)) or type(value).__module__ == "builtins":
            return isinstance(value, ModuleType) and _package(value) == self.package
        if isinstance(value, SimpleNamespace) or _package(value) == self.package:
            return True
        return any(inspect.getattr_static(value, name, None) is not None for name in CALLS)


# -- what the user holds ----------------------------------------------------------------------------------------------


class _Queued:
    """A client, or a part of it; all names are its own but for these."""

    __slots__ = ("__weakref__", "_queued_client", "_queued_path", "_queued_queue")

    _queued_client: Any
    _queued_path: str
    _queued_queue: Queue

    def __getattr__(self, name: str) -> Any:
        client, queue = self._queued_client, self._queued_queue
        if not self._queued_path:
            if name == "with_options":
                return functools.partial(_with_options, self)
            if name == "close":
                return functools.partial(_close, self)
        value = getattr(client, name)
        if name.startswith("_"):
            return value
        path = f"{self._queued_path}.{name}" if self._queued_path else name
        if callable(value) and not isinstance(value, type):
            if queue.spends(path):
                return _method(queue, path, value)
            if name == "copy":
                return functools.partial(_copy, self)
            if inspect.isroutine(value):
                return value
        return _proxy(queue, value, path) if queue.is_part(value) else value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._queued_client, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._queued_client, name)

    def __dir__(self) -> Iterable[str]:
        return dir(self._queued_client)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # what isinstance goes by
        return type(self._queued_client)

    def __repr__(self) -> str:
        # Never the client's own: it may show a key.
        queue = self._queued_queue
        path = f".{self._queued_path}" if self._queued_path else ""
        return f'<queued {type(self._queued_client).__name__}{path} {queue.limits!r} mode="{queue.options.mode}">'

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            f"{self!r} cannot be pickled or copied: its queue is in this process. Make the client where it is used"
        )

    def __enter__(self) -> Any:
        client = self._queued_client
        if hasattr(type(client), "__enter__"):
            entered = type(client).__enter__(client)
            return self if entered is client else entered
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> Any:
        queue = self._queued_queue
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            lifecycle.leave(queue.cancel, queue.wait)
        else:
            queue.wait()
        client = self._queued_client
        leave = getattr(type(client), "__exit__", None)
        return None if leave is None else leave(client, kind, error, traceback)


class _CallableQueued(_Queued):
    """The same of a client that is called itself."""

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        path = f"{self._queued_path}.__call__".lstrip(".")
        client, queue = self._queued_client, self._queued_queue
        if queue.spends(path):
            return queue.call(path, client.__call__, args, kwargs)
        return client(*args, **kwargs)


def _proxy(queue: Queue, client: Any, path: str) -> Any:
    made = object.__new__(_CallableQueued if callable(client) else _Queued)
    for name, value in (("_queued_client", client), ("_queued_path", path), ("_queued_queue", queue)):
        object.__setattr__(made, name, value)
    return made


def _method(queue: Queue, path: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return queue.call(path, method, args, kwargs)

    with suppress(Exception):  # the signature and the docstring, where it has them
        functools.update_wrapper(call, method)
    return call


def _with_options(proxy: _Queued, **changes: Any) -> Any:
    """The same client and queue, with other options: ours, and those that the client itself knows."""
    ours = {name: changes.pop(name) for name in CALL_NAMES if name in changes}
    client: Any = proxy._queued_client
    if changes or not ours:
        client = client.with_options(**changes)
    return _proxy(proxy._queued_queue.with_options(**ours), client, "")


def _copy(proxy: _Queued, *args: Any, **kwargs: Any) -> Any:
    made = proxy._queued_client.copy(*args, **kwargs)
    same = type(made) is type(proxy._queued_client)
    return _proxy(proxy._queued_queue, made, proxy._queued_path) if same else made


def _close(proxy: _Queued) -> None:
    """Wait for what is queued, and close the client, if it can be closed."""
    proxy._queued_queue.wait()
    close = getattr(proxy._queued_client, "close", None)
    if close is not None:
        close()


# -- looking at a client ----------------------------------------------------------------------------------------------


def _inside(client: Any) -> list[Any]:
    """The client, and the clients that it was made around, as far as they are where wrappers keep them."""
    found: list[Any] = [client]
    for each in found:
        for kept in (getattr(each, "__dict__", None), getattr(each, "__pydantic_private__", None)):
            if not isinstance(kept, Mapping):
                continue
            for name in ("client", "_client", "root_client"):
                inner = kept.get(name)
                if inner is not None and not any(inner is known for known in found) and len(found) < MOST_INSIDE:
                    found.append(inner)
    return found


def _check(client: Any) -> None:
    if isinstance(client, type) or inspect.isroutine(client) or (
        type(client).__module__ == "builtins" and not isinstance(client, ModuleType)
    ):  # fmt: skip
        also = "; for functions there is RateLimitedExecutor" if inspect.isroutine(client) else ""
        raise TypeError(f"queued() takes a client, an object with methods, not {client!r:.60}{also}")
    for each in _inside(client):
        kind = type(each)
        if issubclass(kind, (QueuedClient, _Queued)):
            what = "it is" if each is client else f"the {kind.__name__} inside of it is"
            raise TypeError(
                f"{what} queued already: its own rpm=, tpm=, mode= and with_options() say how; queued() is for clients "
                "of others"
            )
        if any(base.__name__ in ("AsyncAPIClient", "AsyncClient") for base in kind.__mro__):
            raise TypeError(f"{kind.__name__} is async: queued() is for clients that wait")


def _account(client: Any, limits: RateLimits) -> Account:
    """Whose limits its calls spend: those of its key at its URL, shared with our own clients, or nobody else's."""
    for each in _inside(client):
        provider = _package(each)
        base_url = getattr(each, "base_url", None)
        if provider not in PROVIDERS or base_url is None:
            continue
        if "Azure" in type(each).__name__:
            provider = "azure"
        listen(getattr(each, "_client", None))
        names = ("api_key", "auth_token", "organization", "project")
        key = "\n".join(value for value in (getattr(each, name, None) for name in names) if isinstance(value, str))
        return account_for(provider, str(base_url), key, limits, dialect_for(provider, str(base_url)))
    name = f"{_package(client)}-{next(_numbers)}"
    return account_for(_package(client), "", name, limits, dialect_for(None, ""))


def _package(value: Any) -> str:
    module = value.__name__ if isinstance(value, ModuleType) else type(value).__module__
    return str(module).partition(".")[0]


def _pattern(calls: str | Iterable[str] | None) -> Callable[[str], bool]:
    if calls is None:
        return lambda path: path.rpartition(".")[2] in CALLS and FREE.isdisjoint(path.split("."))
    names = (calls,) if isinstance(calls, str) else tuple(calls) if isinstance(calls, Iterable) else ()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise TypeError(f'calls must name methods, as in calls=("create", "chat.completions.parse"), not {calls!r}')
    return lambda path: any(path == name or path.endswith("." + name) for name in names)
