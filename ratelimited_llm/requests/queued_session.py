"""Session: `requests.Session`, queued.

Everything that goes out of a session passes `send`. What spends rate limit becomes a queued call there; a sending
thread then passes once more through the session's own `send`, with an adapter in its place that is ours for that one
time. So hooks, cookies, redirects and `elapsed` are made by requests, as always.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NoReturn

import requests as _requests
from requests.adapters import HTTPAdapter
from requests.utils import resolve_proxies
from urllib3.util import Timeout

from ..conveniences import Conveniences
from ..engine.jobs import in_call
from ..engine.plain_answers import wants_answers
from ..forks import at_fork
from ..options import disabled
from ..shared_workers import worker_for
from .exchange import took
from .hosts import Target, target_of
from .llm_adapter import LLMAdapter, PacedAdapter
from .raw_calls import SessionCall, must_wait
from .settings import RequestsRuntime, checked, common_options, connections

__all__ = ["Session"]

_here = threading.local()  # .way: what the adapters of the `send` that this thread is in are wrapped in


class _through:
    """Within the `with` block, the adapters that a session of this thread sends through are wrapped.

    Args:
        way: makes what is sent through of an adapter.
    """

    __slots__ = ("_outer", "_way")

    def __init__(self, way: Callable[[Any], Any]) -> None:
        self._way = way

    def __enter__(self) -> None:
        self._outer = _way()
        _here.way = self._way

    def __exit__(self, *error: object) -> None:
        _here.way = self._outer


def _way() -> Callable[[Any], Any] | None:
    return getattr(_here, "way", None)


def _as_it_is(adapter: Any) -> Any:
    return adapter


class _Once:
    """Stands in for an adapter, for one request."""

    def __init__(self, send: Callable[..., _requests.Response]) -> None:
        self.send = send


class Session(Conveniences[Any], _requests.Session):  # type: ignore[misc]
    """`requests.Session`, queued: each POST that spends rate limit returns at once a future that is its Response.

    Everything else passes straight through: other methods, other hosts. What is sent is the request as of the call,
    with the session's headers, cookies, auth, hooks and adapters of that moment. It can be used again after `close()`,
    which waits for its calls.

    Args:
        **options: rpm, tpm, limits, mode, priority, deadline, max_queue..., as `ratelimited_llm.OpenAI` takes them, on
            top of what `configure` said; and `max_retries`: attempts after the first one when the provider has
            trouble or the connection breaks (2).

    Raises:
        TypeError, ValueError: at once, for an option that makes no sense.
    """

    # A session that was unpickled has only what `__attrs__` names.
    __attrs__ = [*_requests.Session.__attrs__, "_queue_options"]  # noqa: RUF012 - as in the base
    _queue_options: Mapping[str, Any] = MappingProxyType({})
    _queue_runtime: RequestsRuntime | None = None
    _queue_adapter: HTTPAdapter | None = None
    _queue_plain: tuple[Any, ...] = ()  # the adapters that requests made

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._queue_options = checked(options)
        self._queue_plain = tuple(self.adapters.values())
        if options:
            self._queue_runtime = self._new_runtime()  # so that nonsense is heard of here

    # -- the seam -----------------------------------------------------------------------------------------------------

    def send(self, request: Any, **kwargs: Any) -> _requests.Response:
        """Queue what spends rate limit, and send the rest as requests does."""
        target = self._queues(request)
        if target is None:
            with _through(_as_it_is):
                return super().send(request, **kwargs)
        kwargs.setdefault("stream", self.stream)
        kwargs.setdefault("verify", self.verify)
        kwargs.setdefault("cert", self.cert)
        if "proxies" not in kwargs:
            kwargs["proxies"] = resolve_proxies(request, dict(self.proxies), self.trust_env)
        _check(kwargs.get("timeout"))
        runtime = self._runtime
        if self._wants_answer(runtime, request):
            with _through(lambda adapter: PacedAdapter(adapter, runtime)):
                return took(super().send(request, **kwargs))
        adapter = self._for_calls(self.get_adapter(url=request.url))
        if getattr(adapter, "_pool_block", False):  # more would only wait inside it, where nobody orders them
            runtime.lane.width = min(runtime.lane.width, adapter._pool_maxsize)
        return SessionCall(self, runtime, target, adapter.send, request.copy(), kwargs).as_future()  # type: ignore[no-any-return]

    def _queues(self, request: Any) -> Target | None:
        """Where a request goes that is to be queued; None for all others."""
        if disabled() or not isinstance(request, _requests.PreparedRequest):
            return None
        target = target_of(request.method, request.url)
        # An adapter of ours that the user has mounted queues by itself.
        if target is None or isinstance(super().get_adapter(request.url), LLMAdapter):  # type: ignore[arg-type]
            return None
        return target

    def _wants_answer(self, runtime: RequestsRuntime, request: Any) -> bool:
        """Whether who made the call gets the Response and no future."""
        if runtime.options.mode == "blocking" or in_call() or wants_answers():
            return True
        return _way() is not None or must_wait(request)  # a redirect, or a hook's own request

    def _send_through(
        self, transmit: Callable[..., _requests.Response], request: Any, kwargs: dict[str, Any]
    ) -> _requests.Response:
        """Have requests send it with `transmit` in the place of the adapter's `send`."""
        with _through(lambda adapter: _Once(transmit)):
            return took(_requests.Session.send(self, request, **kwargs))

    def get_adapter(self, url: Any) -> Any:
        """The adapter of a URL, as of requests; while something is sent, what it is sent through."""
        adapter, way = super().get_adapter(url), _way()
        if way is None or way is _as_it_is:
            return adapter
        return way(self._for_calls(adapter))

    def _for_calls(self, adapter: Any) -> Any:
        """The adapter for queued calls: one with room for all of them, in the place of those that requests makes."""
        if not any(adapter is each for each in self._queue_plain):
            return adapter
        wide = self._queue_adapter
        if wide is None:
            with _lock:
                wide = self._queue_adapter = self._queue_adapter or HTTPAdapter(pool_maxsize=connections())
                _all.add(self)
        return wide

    @property
    def _runtime(self) -> RequestsRuntime:  # type: ignore[override]
        """Made for the first queued call: most sessions never see one."""
        runtime = self._queue_runtime
        if runtime is None:
            with _lock:
                runtime = self._queue_runtime = self._queue_runtime or self._new_runtime()
        if runtime.worker.closed:
            runtime.worker = worker_for(runtime.queue)
        return runtime

    def _new_runtime(self) -> RequestsRuntime:
        return RequestsRuntime({**common_options(), **self._queue_options})

    # -- what a session has no use for --------------------------------------------------------------------------------

    def batch(self, source: Any, target: Any, **options: Any) -> NoReturn:
        """Not of a session: a file of calls is answered by a client."""
        raise TypeError("a Session answers no files of calls: use ratelimited_llm.OpenAI(...).batch(source, target)")

    def estimate(self, source: Any, **options: Any) -> NoReturn:
        """Not of a session: a file of calls is estimated by a client."""
        raise TypeError("a Session estimates no files of calls: use ratelimited_llm.OpenAI(...).estimate(source)")

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Wait for the calls made so far, then close the connections; it can be used again."""
        if self._queue_runtime is None:
            _requests.Session.close(self)
            return
        super().close()
        if self._queue_adapter is not None:
            # requests would leave the sockets to the collector, and the traceback of a failed attempt keeps their pool.
            pools = _pools(self._queue_adapter)
            self._queue_adapter.close()
            for pool in pools:
                pool.close()


def _pools(adapter: HTTPAdapter) -> list[Any]:
    managers = (adapter.poolmanager, *adapter.proxy_manager.values())
    return [pool for manager in managers for pool in list(manager.pools._container.values())]


def _check(timeout: Any) -> None:
    """Raise here what an adapter would raise for a timeout that makes no sense, when the call is sent."""
    if isinstance(timeout, tuple):
        if len(timeout) != 2:
            raise ValueError(f"Invalid timeout {timeout}: give (connect, read) in seconds, or one number for both")
        Timeout(connect=timeout[0], read=timeout[1])
    elif not isinstance(timeout, Timeout):
        Timeout(connect=timeout, read=timeout)


# -- forks ------------------------------------------------------------------------------------------------------------

_lock = threading.Lock()
_all: weakref.WeakSet[Session] = weakref.WeakSet()  # those with connections of ours
_inherited: list[Any] = []


def _after_fork_in_child() -> None:
    """Two processes that read from one connection would take each other's answers."""
    global _lock
    _lock = threading.Lock()
    for session in list(_all):
        wide, session._queue_adapter = session._queue_adapter, None
        if wide is not None:
            _inherited.append(wide)  # never collected: that would ask for locks that a thread of the parent may hold
            _let_go(wide)
    _all.clear()


def _let_go(adapter: HTTPAdapter) -> None:
    """Close this process's copies of the idle sockets; nothing is said to the other end."""
    with suppress(Exception):
        for pool in _pools(adapter):
            for connection in list(pool.pool.queue):
                with suppress(Exception):
                    connection.sock.close()


at_fork(_after_fork_in_child)
