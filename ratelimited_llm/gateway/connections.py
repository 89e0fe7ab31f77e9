"""A gateway's connections to a provider in groups of 32: the pools of httpx look at each of theirs for every request.

With a thousand open streams in one pool that is 6 ms of CPU a request; see `ratelimited_llm.transport`, which does the
same for threads.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any

from ..calls.transport import PER_SHARD

__all__ = ["spread"]

KEPT = 4  # groups whose idle connections are kept


def spread(http_client: Any) -> None:
    """Have an async client of httpx, in which nothing was sent yet, use many small pools.

    One whose requests go through a proxy, and whatever else is not as httpx makes it, is left as it is.
    """
    transport = http_client._transport
    module = sys.modules[type(transport).__module__.partition(".")[0]]
    through_proxy = any(each is not None for each in http_client._mounts.values())
    if through_proxy or type(transport) is not module.AsyncHTTPTransport:
        return
    pool = transport._pool
    limits = module.Limits(
        max_connections=PER_SHARD, max_keepalive_connections=PER_SHARD, keepalive_expiry=pool._keepalive_expiry
    )

    def make() -> Any:
        return type(transport)(
            verify=pool._ssl_context, limits=limits, retries=pool._retries, socket_options=pool._socket_options
        )

    http_client._transport = _kind(module)(make)


class _Group:
    """One transport and the requests that are in flight through it."""

    __slots__ = ("in_flight", "transport")

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.in_flight = 0


class _Spread:
    """Sends each request through the first group that has room; for one event loop. Goes before httpx's base class."""

    stream_kind: Any

    def __init__(self, make: Any) -> None:
        self._make = make
        self._groups: list[_Group] = []

    async def handle_async_request(self, request: Any) -> Any:
        """Send it; its place is free again when the answer is closed."""
        group = next((each for each in self._groups if each.in_flight < PER_SHARD), None)
        if group is None:
            group = _Group(self._make())
            self._groups.append(group)
        group.in_flight += 1
        try:
            response = await group.transport.handle_async_request(request)
        except BaseException:
            group.in_flight -= 1
            raise
        response.stream = self.stream_kind(response.stream, self, group)
        return response

    async def left(self, group: _Group) -> None:
        """A request through this group is over; the last of many groups goes with its last request."""
        group.in_flight -= 1
        spare = len(self._groups) > KEPT and not group.in_flight and group in self._groups
        if spare and 2 * sum(each.in_flight for each in self._groups) < PER_SHARD * len(self._groups):
            self._groups.remove(group)
            await group.transport.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        groups, self._groups = self._groups, []
        for group in groups:
            await group.transport.aclose()


class _Stream:
    """The bytes of an answer; goes before the `AsyncByteStream` of httpx."""

    def __init__(self, stream: Any, spread: _Spread, group: _Group) -> None:
        self._stream = stream
        self._spread: _Spread | None = spread
        self._group = group

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        spread, self._spread = self._spread, None
        try:
            await self._stream.aclose()
        finally:
            if spread is not None:
                await spread.left(self._group)


@lru_cache(maxsize=4)
def _kind(module: Any) -> Any:
    stream = type("SpreadStream", (_Stream, module.AsyncByteStream), {"__module__": __name__})
    return type("Spread", (_Spread, module.AsyncBaseTransport), {"__module__": __name__, "stream_kind": stream})
