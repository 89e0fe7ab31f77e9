"""Adapters that wait their turn: for one session of plain requests, by `mount`; for all of the process, by patching."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import requests as _requests
from requests.adapters import HTTPAdapter

from ..conveniences import Conveniences
from ..core.checks import whole
from ..options import disabled
from ..shared_workers import worker_for
from .hosts import target_of
from .raw_calls import RawCall
from .settings import RequestsRuntime, common_options

__all__ = ["LLMAdapter", "PacedAdapter", "patch_requests", "unpatch_requests"]


def _send_paced(
    send: Callable[..., _requests.Response], runtime: RequestsRuntime, request: Any, kwargs: dict[str, Any]
) -> _requests.Response:
    """Send through an adapter's `send`, when its turn has come if it spends rate limit."""
    target = None if disabled() else target_of(request.method, request.url)
    if target is None:
        return send(request, **kwargs)
    if runtime.worker.closed:
        runtime.worker = worker_for(runtime.queue)
    response: _requests.Response = RawCall(runtime, target, send, request, kwargs).in_own_thread()
    return response


class PacedAdapter:
    """An adapter whose requests wait their turn; for everything else, that adapter."""

    def __init__(self, adapter: Any, runtime: RequestsRuntime) -> None:
        self._adapter = adapter
        self._runtime = runtime

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._adapter)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)

    def send(self, request: Any, **kwargs: Any) -> _requests.Response:
        return _send_paced(self._adapter.send, self._runtime, request, kwargs)


class LLMAdapter(HTTPAdapter):
    """An `HTTPAdapter` whose calls to LLM hosts wait their turn, then return the plain Response; others go straight.

        session.mount("https://api.openai.com/", LLMAdapter(rpm=500))

    It shares queue and limits with everything else of ours. `elapsed` of an answer counts the waiting, too.

    Args:
        pool_connections, pool_maxsize, pool_block: as of `HTTPAdapter`; `pool_maxsize` is at most how many go at once.
        max_retries: attempts after the first one, 2 by default; or a `Retry` of urllib3, which then has the say alone
            about broken connections.
        **options: as of `Session`.

    Raises:
        TypeError, ValueError: at once, for an option that makes no sense.
    """

    # One that was unpickled has only what `__attrs__` names.
    __attrs__: ClassVar[list[str]] = [*HTTPAdapter.__attrs__, "_queue_options", "_queue_width"]  # type: ignore[misc]
    _queue_options: Mapping[str, Any] = MappingProxyType({})
    _queue_width: float = math.inf
    _queue_runtime: RequestsRuntime | None = None

    def __init__(
        self, pool_connections: int = 10, pool_maxsize: int = 256, max_retries: Any = None, pool_block: bool = False,
        **options: Any,
    ) -> None:  # fmt: skip
        own = max_retries is None or isinstance(max_retries, int)
        if not own and not hasattr(max_retries, "increment"):
            raise TypeError(f"max_retries must be a whole number, a urllib3 Retry, or None, not {max_retries!r}")
        whole("pool_connections", pool_connections, 1)
        whole("pool_maxsize", pool_maxsize, 1)
        super().__init__(pool_connections, pool_maxsize, 0 if own else max_retries, pool_block)
        self._queue_options = {**options, "max_retries": max_retries if own else 0}
        self._queue_width = pool_maxsize
        self._runtime_now()  # so that nonsense is heard of here

    def send(self, request: Any, *args: Any, **kwargs: Any) -> _requests.Response:
        """Send when its turn has come."""
        kwargs.update(zip(("stream", "timeout", "verify", "cert", "proxies"), args, strict=False))
        return _send_paced(super().send, self._runtime_now(), request, kwargs)

    def _runtime_now(self) -> RequestsRuntime:
        runtime = self._queue_runtime
        if runtime is None:
            runtime = self._queue_runtime = RequestsRuntime({**common_options(), **self._queue_options})
            runtime.lane.width = self._queue_width
        return runtime


# -- every session of the process -------------------------------------------------------------------------------------

_lock = threading.Lock()
_plain: list[Callable[..., Any]] = []  # Session.get_adapter as it was


def patch_requests(**options: Any) -> None:
    """Have every session of plain requests in this process, of whichever library, wait its turn at LLM hosts.

    Calls block, and return plain Responses; see `LLMAdapter`. A second time changes nothing but the options.

    Args:
        **options: as of `Session`.

    Raises:
        TypeError, ValueError: for an option that makes no sense.
    """
    runtime = RequestsRuntime({**common_options(), **options})
    with _lock:
        plain = _plain[0] if _plain else _requests.Session.get_adapter

        def get_adapter(self: _requests.Session, url: Any) -> Any:
            adapter = plain(self, url)
            if isinstance(self, Conveniences) or isinstance(adapter, LLMAdapter):  # they queue by themselves
                return adapter
            return PacedAdapter(adapter, runtime)

        _plain[:] = [plain]
        _requests.Session.get_adapter = get_adapter  # type: ignore[method-assign]


def unpatch_requests() -> None:
    """Undo `patch_requests`."""
    with _lock:
        if _plain:
            _requests.Session.get_adapter = _plain.pop()  # type: ignore[method-assign]
