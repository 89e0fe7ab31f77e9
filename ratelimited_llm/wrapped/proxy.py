"""What the user of `queued()` holds: it looks like the client itself, but for the calls that are queued."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from ..engine import lifecycle
from ..options import CALL_NAMES
from .client_queue import Queue

__all__ = ["QueuedProxy", "proxy_of"]


class QueuedProxy:
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
        return proxy_of(queue, value, path) if queue.is_part(value) else value

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


class CallableProxy(QueuedProxy):
    """The same of a client that is called itself."""

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        path = f"{self._queued_path}.__call__".lstrip(".")
        client, queue = self._queued_client, self._queued_queue
        if queue.spends(path):
            return queue.call(path, client.__call__, args, kwargs)
        return client(*args, **kwargs)


def proxy_of(queue: Queue, client: Any, path: str) -> Any:
    made = object.__new__(CallableProxy if callable(client) else QueuedProxy)
    for name, value in (("_queued_client", client), ("_queued_path", path), ("_queued_queue", queue)):
        object.__setattr__(made, name, value)
    return made


def _method(queue: Queue, path: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return queue.call(path, method, args, kwargs)

    with suppress(Exception):  # the signature and the docstring, where it has them
        functools.update_wrapper(call, method)
    return call


def _with_options(proxy: QueuedProxy, **changes: Any) -> Any:
    """The same client and queue, with other options: ours, and those that the client itself knows."""
    ours = {name: changes.pop(name) for name in CALL_NAMES if name in changes}
    client: Any = proxy._queued_client
    if changes or not ours:
        client = client.with_options(**changes)
    return proxy_of(proxy._queued_queue.with_options(**ours), client, "")


def _copy(proxy: QueuedProxy, *args: Any, **kwargs: Any) -> Any:
    made = proxy._queued_client.copy(*args, **kwargs)
    same = type(made) is type(proxy._queued_client)
    return proxy_of(proxy._queued_queue, made, proxy._queued_path) if same else made


def _close(proxy: QueuedProxy) -> None:
    """Wait for what is queued, and close the client, if it can be closed."""
    proxy._queued_queue.wait()
    close = getattr(proxy._queued_client, "close", None)
    if close is not None:
        close()
