"""What stands behind one `queued()`: limits, options, a worker, and which methods are queued."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from types import ModuleType, SimpleNamespace
from typing import Any

from ..books.tally import Tally
from ..core.checks import whole
from ..core.limits import RateLimits
from ..core.retry import RetryPolicy
from ..engine.jobs import in_call
from ..engine.plain_answers import wants_answers
from ..options import CallOptions
from ..shared_workers import QueueSettings, worker_for
from ..telemetry.autostart import serve_if_configured
from .call import WrappedCall
from .inspection import account_of, clients_in, package_of

__all__ = ["CALLS", "Queue", "pattern_of"]

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


class Queue:
    """What stands behind one `queued()`: limits, options, and the calls that have not ended.

    Args:
        client: whose calls they are.
        limits: what may be spent.
        calls: says of a path whether it is to be queued.
        tokens: see `queued`.
        policy: how often a call is tried again.
        retry_on: exception classes that are worth another try.
        given: options of calls and queue.
    """

    def __init__(
        self,
        client: Any,
        limits: RateLimits,
        calls: Callable[[str], bool],
        tokens: int | Callable[..., int] | None,
        policy: RetryPolicy,
        retry_on: tuple[type[BaseException], ...],
        given: dict[str, Any],
    ) -> None:
        self.options = CallOptions.read(given)
        self.limits = limits
        self.spends = calls
        if tokens is not None and not callable(tokens):
            whole("tokens", tokens, 0)
        self.tokens = tokens
        self.policy = policy
        self.retry_on = retry_on
        self.worker = worker_for(QueueSettings.read(given))
        self.package = package_of(client)
        self.account = account_of(client, limits)
        self.tally = Tally(self.worker.budget, self.worker.clock)
        self.traced_by_sdk = any(getattr(each, "_tracer", None) is not None for each in clients_in(client))
        self.pending: set[Future[Any]] = set()
        serve_if_configured()

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
            return isinstance(value, ModuleType) and package_of(value) == self.package
        if isinstance(value, SimpleNamespace) or package_of(value) == self.package:
            return True
        return any(inspect.getattr_static(value, name, None) is not None for name in CALLS)


def pattern_of(calls: str | Iterable[str] | None) -> Callable[[str], bool]:
    if calls is None:
        return lambda path: path.rpartition(".")[2] in CALLS and FREE.isdisjoint(path.split("."))
    names = (calls,) if isinstance(calls, str) else tuple(calls) if isinstance(calls, Iterable) else ()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise TypeError(f'calls must name methods, as in calls=("create", "chat.completions.parse"), not {calls!r}')
    return lambda path: any(path == name or path.endswith("." + name) for name in names)
