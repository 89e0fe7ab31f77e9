"""The heart of a gateway: a request comes in as some SDK sent it, waits for its turn, and its answer is handed on.

What spends rate limit goes through our doors, like any call of a program: one queue, one budget, one retry authority.
Everything else goes straight through.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from ..books.status import Ratelimit
from ..core.request import Priority
from .answers import BrokenOff
from .errors import NO_RETRY, Refusal, refusal_of
from .gateway import Gateway, Ticket
from .guard import key_of
from .headers import call_options, decoded, for_client, tag_of
from .outgoing import Outgoing
from .routing import Destination, destination, shape_of
from .upstreams import Upstream, queued_call

__all__ = ["Relay", "path_below", "read_body"]

_log = logging.getLogger("ratelimited_llm.gateway")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

METHODS = frozenset({"get", "post", "put", "patch", "delete"})
GONE = 499  # what nginx writes down when the client has left; nobody reads it
_COUNTED = {429: "queue_full", 504: "expired", 413: "too_large", 401: "unauthorized"}


class Relay:
    """An ASGI app that hands requests on to the providers.

    Args:
        gateway: whose clients it uses.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request; when the client leaves, what it asked for is cancelled."""
        headers = decoded(scope["headers"])
        exchange = Exchange(self._gateway, scope, headers, send)
        try:
            self._gateway.guard.check(headers)
            body = await read_body(headers, receive, self._gateway.settings.max_body)
        except Refusal as refusal:
            await exchange.refuse(refusal)
            return
        except _Left:
            return
        work = asyncio.ensure_future(exchange.run(body))
        watch = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watch.cancel()
            if not work.done():
                work.cancel()
            await asyncio.wait({work, watch})
        if not work.cancelled():
            work.result()


def path_below(scope: Any) -> str:
    """The path below the place where the gateway is mounted, decoded."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if root and path.startswith(root + "/") else path


class _Left(Exception):
    """The client left before it had said all."""


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_body(headers: dict[str, str], receive: Receive, most: int) -> bytes:
    """The body of a request, which is held in memory as it may have to be sent again.

    Raises:
        Refusal: it is larger than it may be (413).
    """
    too_large = Refusal(413, f"the request is larger than {most:,} bytes, which is this gateway's --max-body",
                        "request_too_large", headers=(("connection", "close"),))  # fmt: skip
    told = headers.get("content-length", "")
    if told.isdigit() and int(told) > most:
        raise too_large
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Left
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise too_large
        if part:
            parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


class Exchange:
    """One request and its answer."""

    def __init__(self, gateway: Gateway, scope: Any, headers: dict[str, str], send: Send) -> None:
        self._gateway = gateway
        self._scope = scope
        self._headers = headers
        self._send = send
        self._path = path_below(scope)
        self._started = False
        self._begun: Ratelimit | None = None  # how it fared until its answer began
        self._note: list[Any] = []
        self._queues = False

    async def run(self, body: bytes) -> None:
        """Answer the request: with the provider's answer, its error, or an error of the gateway's own."""
        try:
            to = self._destination()
            upstream = self._gateway.upstreams[to.upstream]
            try:
                await self._answer(upstream, to, body)
            except (Refusal, asyncio.CancelledError):
                raise
            except Exception as error:
                await self._failed(upstream, error)
        except Refusal as refusal:
            await self.refuse(refusal)
        except asyncio.CancelledError:
            if self._started or not self._gateway.draining:
                self._end(GONE, "gone")
                raise
            await self.refuse(Refusal(503, "this gateway has ended before there was an answer", "draining", 2.0))

    def _destination(self) -> Destination:
        if self._scope["method"].lower() not in METHODS:
            raise Refusal(405, f"{self._scope['method']} is no method of this gateway", "method_not_allowed")
        to = destination(self._path, self._scope["query_string"].decode("latin-1"), self._headers)
        if to is None:
            raise Refusal(404, "there is nothing at this path of the gateway: base URLs are /v1 for OpenAI, and / for "
                          "Groq and Anthropic", "not_found")  # fmt: skip
        return to

    async def _answer(self, upstream: Upstream, to: Destination, body: bytes) -> None:
        gateway, method = self._gateway, self._scope["method"].lower()
        options = call_options(self._headers)
        client = gateway.client_for(upstream, options, self._key())
        call = Outgoing(client, method, to.path, self._headers, body, gateway.settings.pass_through_keys)
        self._queues = call.queues
        if not call.queues:
            gateway.counts["passed_through"] += 1
            await self._hand_on_stream(await call.straight())
            return
        if gateway.draining:
            raise Refusal(503, "this gateway is about to end: nothing new is accepted", "draining", 2.0)
        self._note = queued_call()
        rank = Priority.parse(options.get("priority", Priority.NORMAL))
        ticket = Ticket(rank, str(options.get("tenant", "")), tag_of(self._headers), self._note, asyncio.current_task())
        try:
            gateway.enter(ticket, client)
            if call.streams:
                await self._hand_on_stream(await call.stream())
            else:
                await self._hand_on(await call.whole())
        finally:
            gateway.leave(ticket)

    def _key(self) -> str | None:
        """The client's own key, where that is what goes to the provider."""
        if not self._gateway.settings.pass_through_keys:
            return None
        for name in ("x-api-key", "api-key", "authorization"):
            key = key_of(self._headers.get(name, ""))
            if key:
                return key
        raise Refusal(401, "this gateway passes your own key on to the provider, and there is none", "no_api_key")

    # -- answers ------------------------------------------------------------------------------------------------------

    async def _hand_on(self, response: Any) -> None:
        body = response.content
        headers = for_client(response.headers.multi_items())
        await self._start(response.status_code, [*headers, ("content-length", str(len(body)))])
        await self._send({"type": "http.response.body", "body": body})
        self._end(response.status_code, "answered")

    async def _hand_on_stream(self, stream: Any) -> None:
        response = stream.response
        try:
            await self._start(response.status_code, for_client(response.headers.multi_items()))
            try:
                async for item in stream:
                    if type(item) is bytes:
                        await self._send({"type": "http.response.body", "body": item, "more_body": True})
            except BrokenOff as end:
                async for chunk in end.rest:
                    await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            with suppress(Exception):
                await response.aclose()
        await self._send({"type": "http.response.body", "body": b""})
        self._end(response.status_code, "answered")

    async def _failed(self, upstream: Upstream, error: Exception) -> None:
        """Hand on the provider's error; say what went wrong when it has none."""
        sdk = upstream.sdk
        if self._started:
            # Nothing can be said any more: the connection breaks off, as the provider's did.
            _log.warning("stream_broken: %s", type(error).__name__, extra={"event": "stream_broken"})
            self._end(GONE, "failed")
            raise ConnectionAbortedError("the provider broke off in the middle of its answer") from None
        ours = refusal_of(error, self._room_in(upstream))
        if ours is not None:
            raise ours
        if isinstance(error, sdk.APIStatusError):
            await self._hand_on_error(error.response)
            return
        if isinstance(error, sdk.APITimeoutError):
            raise Refusal(504, "the provider did not answer in time", "upstream_timeout") from None
        if isinstance(error, sdk.APIConnectionError):
            raise Refusal(502, "the provider cannot be reached", "upstream_unreachable") from None
        if isinstance(error, UnicodeError):
            raise Refusal(400, "the request has text that is no Unicode", "bad_json") from None
        _log.error("request_failed: %s", type(error).__name__, extra={"event": "request_failed"})
        _log.debug("request_failed", exc_info=error)
        raise Refusal(500, f"the gateway failed ({type(error).__name__})", "gateway_error") from None

    def _room_in(self, upstream: Upstream) -> float | None:
        return None if upstream.client is None else self._gateway.room_in(upstream.client)

    async def _hand_on_error(self, response: Any) -> None:
        body = response.content
        headers = for_client(response.headers.multi_items())
        if self._queues:  # it was tried as often as makes sense
            headers = [*((name, value) for name, value in headers if name != NO_RETRY[0]), NO_RETRY]
        await self._start(response.status_code, [*headers, ("content-length", str(len(body)))])
        await self._send({"type": "http.response.body", "body": body})
        self._end(response.status_code, "failed")

    async def refuse(self, refusal: Refusal) -> None:
        """Answer on the gateway's own account."""
        body = refusal.body(shape_of(self._path, self._headers))
        kind = _COUNTED.get(refusal.status)
        if kind is not None and refusal.code != "upstream_timeout":
            self._gateway.counts[kind] += 1
        await self._start(refusal.status, [*refusal.header_list(), ("content-length", str(len(body)))])
        await self._send({"type": "http.response.body", "body": body})
        # What an operator cancels is no failure: it would look like an illness of the gateway's.
        never_sent = refusal.status in (413, 429, 504)
        outcome = "gone" if refusal.code == "cancelled" else "rejected" if never_sent else "failed"
        self._end(refusal.status, outcome)

    async def _start(self, status: int, headers: list[tuple[str, str]]) -> None:
        self._started = True
        fared = self._begun = self._fared()
        if fared is not None:
            headers = [*headers, ("x-ratelimited-queued", f"{fared.queued_s:.3f}"),
                       ("x-ratelimited-attempts", str(fared.attempts))]  # fmt: skip
        raw = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    def _fared(self) -> Ratelimit | None:
        return self._note[0].fared("done") if self._note else None

    def _end(self, status: int, outcome: str) -> None:
        """Count how the request ended, for the statistics and the health."""
        self._gateway.statuses[status] += 1
        if not self._queues and outcome != "rejected":
            return
        fared = self._begun or self._fared()
        if fared is None or not fared.attempts:
            self._gateway.history.ended(outcome, None, None)
        else:
            self._gateway.history.ended(outcome, fared.queued_s, fared.sent_s if outcome == "answered" else None)
