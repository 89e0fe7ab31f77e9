"""The HTTP client's connections in groups of 32: what lets thousands of calls be in flight from one client.

A connection pool of httpx looks at every one of its connections for every call, so a call costs the more the more
of them are in flight: 9 ms of CPU at 3,000, where pools of 32 stay at 3.3. The pools here are the HTTP client's own
transport and siblings of it, made when they are needed, with the same TLS context, socket options and retries.

Only the client that an SDK made for itself is changed. One that the user brought, one that goes through a proxy, and
whatever else is not as the SDK makes it, are used as they are.
"""

from __future__ import annotations

import _thread
import math
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

from ..forks import at_fork

__all__ = ["ShardedTransport", "sensible_width", "widen"]

PER_SHARD = 32  # connections; measured: smaller pools are no cheaper, larger ones are
WIDTH = 4096  # calls in flight: where threads, not connections, become the brake
FILES_SHARE = 0.75  # of the files that the process may open; the rest is its own
_SDK_MADE = "SyncHttpxClientWrapper"  # the class in all three SDKs of the client that nobody brought


def widen(http_client: Any) -> float:
    """Make room for thousands of calls in an HTTP client that an SDK made for itself.

    Args:
        http_client: of httpx or httpx2; any other is left alone.

    Returns:
        How many calls can be in flight through it before they would wait inside it; math.inf when it does not say.
    """
    transport = _transport_of(http_client)
    if isinstance(transport, ShardedTransport):
        return transport.width
    if type(http_client).__name__ == _SDK_MADE and transport is http_client._transport:
        settings = _settings(transport)
        if settings is not None:
            kind: Any = type(transport)
            wide = _class_for(kind)(transport, settings)
            http_client._transport = wide
            return float(wide.width)
    return _connections(transport)


def _transport_of(http_client: Any) -> Any:
    """What the calls go through: a proxy's transport, where one is set for the base URL."""
    with suppress(Exception):
        if http_client.base_url.host:
            return http_client._transport_for_url(http_client.base_url)
    return getattr(http_client, "_transport", None)


def _connections(transport: Any) -> float:
    with suppress(AttributeError, TypeError, ValueError):
        most = float(transport._pool._max_connections)
        return math.inf if most >= sys.maxsize else most  # httpx writes "no limit" as the largest number
    return math.inf


def _settings(transport: Any) -> dict[str, Any] | None:
    """The arguments that make a sibling of this transport; None when it is not one of the usual kind."""
    module = sys.modules.get(type(transport).__module__.partition(".")[0])
    if module is None or type(transport) is not getattr(module, "HTTPTransport", None):
        return None
    pool = transport._pool
    with suppress(AttributeError):
        if type(pool).__name__ != "ConnectionPool" or getattr(pool, "_proxy", None) is not None or pool._http2:
            return None  # a proxy's pool; or one whose connections carry many calls each
        return {
            "verify": pool._ssl_context,
            "http1": pool._http1,
            "http2": pool._http2,
            "limits": module.Limits(
                max_connections=PER_SHARD,
                max_keepalive_connections=PER_SHARD,
                keepalive_expiry=pool._keepalive_expiry,
            ),
            "uds": pool._uds,
            "local_address": pool._local_address,
            "retries": pool._retries,
            "socket_options": pool._socket_options,
        }
    return None


class _Shard:
    """One transport and the calls that are in flight through it.

    Its pool gets a lock that can tell whose it is. The collector may come while a thread is at work in the pool, and
    close an answer of the same pool in that thread: with the pool's own lock it would wait for itself for ever, and
    with it everybody else.
    """

    __slots__ = ("in_flight", "lock", "transport")

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.in_flight = 0
        self.lock: Any = threading.RLock()
        if hasattr(transport._pool, "_optional_thread_lock"):
            transport._pool._optional_thread_lock = self.lock


class ShardedTransport:
    """A transport of httpx that spreads its calls over many small ones; thread-safe.

    A call takes the first shard that has room, so that few calls use few connections, again and again. Shards beyond
    those that the original would have kept connections for are closed when less than half of all is in use.

    It is mixed into the transport class of the httpx in question, as code that looks for that class expects.

    Args:
        original: the transport to begin with.
        settings: the arguments that make its siblings.
        width: calls that may be in flight; more of them wait in one of the shards. None for as many as is sensible.
    """

    _stream_class: type[_Stream]

    def __init__(self, original: Any, settings: dict[str, Any], *, width: int | None = None) -> None:
        self.width = sensible_width() if width is None else width
        self._make = type(original)
        self._settings = settings
        self._most = max(1, math.ceil(self.width / PER_SHARD))
        # As many connections as the original would keep when nothing is in flight.
        self._kept = max(1, min(self._most, math.ceil(original._pool._max_keepalive_connections / PER_SHARD)))
        self._begin(original)
        _all.add(self)

    def _begin(self, first: Any) -> None:
        self._lock = threading.Lock()
        self._shards = [_Shard(first)]
        # A response can be closed by the garbage collector, in the middle of anything, `_lock` included. So its end is
        # noted here, and counted by whoever has the lock next.
        self._left: deque[_Shard] = deque()
        self._forgotten: deque[tuple[Any, _Shard, Any]] = deque()  # answers that nobody closed, and their chunks
        # The chunks of those that are being read, by answer: so the collector does not find and close them by itself.
        self._chunks: dict[int, Any] = {}

    @property
    def _pool(self) -> Any:
        """The first shard's pool, for whoever looks into a transport of httpx."""
        return self._shards[0].transport._pool

    def __enter__(self) -> ShardedTransport:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def handle_request(self, request: Any) -> Any:
        """Send through a shard with room; its place is free again when the answer is read or closed."""
        shard = self._enter()
        try:
            response = shard.transport.handle_request(request)
        except BaseException:
            self._leave(shard)
            raise
        response.stream = self._stream_class(response.stream, self, shard)
        return response

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            shards, self._shards = self._shards, self._shards[:1]
        self._close_forgotten()
        for shard in shards:
            shard.transport.close()

    def _enter(self) -> _Shard:
        if self._forgotten:
            self._close_forgotten()
        with self._lock:
            surplus = self._settle()
            shard = self._with_room()
            shard.in_flight += 1
        if surplus:
            _close_all(surplus)
        return shard

    def _with_room(self) -> _Shard:
        for shard in self._shards:
            if shard.in_flight < PER_SHARD:
                return shard
        if len(self._shards) >= self._most:
            return min(self._shards, key=lambda shard: shard.in_flight)
        made = _Shard(self._make(**self._settings))
        self._shards.append(made)
        return made

    def _leave(self, shard: _Shard) -> None:
        self._left.append(shard)
        if self._lock.acquire(blocking=False):  # else whoever has it, or comes next, counts it
            try:
                surplus = self._settle()
            finally:
                self._lock.release()
            if surplus:
                _close_all(surplus)

    def _settle(self) -> list[_Shard]:
        """Count what has ended; answer the shards that are not needed any more. Under `_lock`."""
        emptied = False
        while self._left:
            shard = self._left.popleft()
            shard.in_flight -= 1
            emptied = emptied or not shard.in_flight
        if not emptied or len(self._shards) <= self._kept:
            return []
        if 2 * sum(shard.in_flight for shard in self._shards) > PER_SHARD * len(self._shards):
            return []
        surplus = [shard for shard in self._shards[self._kept :] if not shard.in_flight]
        self._shards = [*self._shards[: self._kept], *(s for s in self._shards[self._kept :] if s.in_flight)]
        return surplus

    def _close_forgotten(self) -> None:
        while self._forgotten:
            with suppress(IndexError):  # another thread was faster
                stream, shard, _chunks = self._forgotten.popleft()
                with suppress(Exception):
                    stream.close()
                self._leave(shard)

    def _reset_after_fork(self) -> None:
        """In the child: two processes that read from one connection would take each other's answers."""
        inherited = self._shards
        self._begin(self._make(**self._settings))
        for shard in inherited:
            _let_go(shard.transport)

    def __repr__(self) -> str:
        shards = self._shards
        return f"<ShardedTransport in_flight={sum(s.in_flight for s in shards)}/{self.width} shards={len(shards)}>"


class _Stream:
    """The bytes of an answer; mixed into the `SyncByteStream` of the httpx in question."""

    def __init__(self, stream: Any, transport: ShardedTransport, shard: _Shard) -> None:
        self._stream = stream
        self._transport = transport
        self._lock = shard.lock
        self._held = [shard]  # popped by the first who ends it: that is atomic

    def __iter__(self) -> Iterator[bytes]:
        chunks: Iterator[bytes] = iter(self._stream)
        self._transport._chunks[id(self)] = chunks
        return chunks

    def close(self) -> None:
        if self._lock._is_owned():  # this thread was interrupted at work in the pool
            self._leave_to_others()
            return
        try:
            self._stream.close()
        finally:
            self._transport._chunks.pop(id(self), None)
            if self._held:
                with suppress(IndexError):
                    self._transport._leave(self._held.pop())

    def __del__(self) -> None:
        # Closing it here would take the pool's lock, which the thread that we interrupted may hold.
        if getattr(self, "_held", None):
            self._leave_to_others()
        elif hasattr(self, "_transport"):
            self._transport._chunks.pop(id(self), None)

    def _leave_to_others(self) -> None:
        # Without a call of a Python function: the collector may come at the bottom of a recursion.
        transport = self._transport
        try:
            transport._forgotten.append((self._stream, self._held.pop(), transport._chunks.pop(id(self), None)))
            _thread.start_new_thread(transport._close_forgotten, ())
        except (IndexError, RuntimeError):  # it is over; or no thread can be started, and the next call does it
            pass


@lru_cache(maxsize=8)
def _class_for(transport_class: Any) -> Any:
    """The sharded transport that is also a transport of the given class's httpx."""
    module = sys.modules[transport_class.__module__.partition(".")[0]]
    stream_class = type("ShardStream", (_Stream, module.SyncByteStream), {"__module__": __name__})
    names = {"__module__": __name__, "__doc__": ShardedTransport.__doc__, "_stream_class": stream_class}
    return type("ShardedTransport", (ShardedTransport, transport_class), names)


def sensible_width() -> int:
    """As wide as is of use, and no wider than the process may open files (`ulimit -n`)."""
    try:
        import resource
    except ImportError:  # not on Windows
        return WIDTH
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return WIDTH if files == resource.RLIM_INFINITY else max(1, min(WIDTH, int(files * FILES_SHARE)))


def _close_all(shards: Iterable[_Shard]) -> None:
    for shard in shards:
        with suppress(Exception):  # idle connections that are in nobody's way
            shard.transport.close()


def _let_go(transport: Any) -> None:
    """Close this process's copies of the sockets. The parent's stay open, and nothing is said to the other end.

    No lock is asked for: whoever held it is a thread of the parent.
    """
    with suppress(Exception):
        for connection in list(transport._pool._connections):
            with suppress(Exception):
                connection.close()


_all: weakref.WeakSet[ShardedTransport] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for transport in list(_all):
        transport._reset_after_fork()


at_fork(_after_fork_in_child)
