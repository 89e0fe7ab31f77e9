"""One HTTP/1.1 connection: bytes to a request, a plan to bytes, and the faults that happen on the wire.

Callbacks rather than coroutines: thousands of calls are in flight at once, and each costs a timer, not a task.
h11 reads the requests; answers are written by hand, which takes a third of the CPU off each call and lets a fault
send headers that no correct server would.
"""

from __future__ import annotations

import asyncio
import http
import socket
import struct
from collections.abc import Callable
from typing import Any

import h11

from .plan import Events, Plan
from .service import Service

__all__ = ["Connection"]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in http.HTTPStatus}


class Connection(asyncio.Protocol):
    """Reads requests one after the other, and sends for each what the service planned."""

    def __init__(self, service: Service, open_connections: set[Connection]) -> None:
        self._service = service
        self._open = open_connections
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None
        self._body: list[bytes] = []
        self._plan: Plan | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sent = self._cut = 0  # events of the stream: sent so far, and where a fault breaks it off
        self._tokens = 0  # of the output, sent so far

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open.add(self)
        self._service.tally.sums["connections"] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        self._give_up()

    def abort(self) -> None:
        """Drop the connection at once, whatever is on its way."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._http.receive_data(data)
            self._advance()
        except h11.RemoteProtocolError:
            self._transport.close()

    def eof_received(self) -> None:
        # The transport closes itself; what was on its way is given up in connection_lost.
        return None

    def _advance(self) -> None:
        """Read on until a request is complete, or more data is needed."""
        while self._plan is None:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._request = event
                if self._http.they_are_waiting_for_100_continue:
                    self._write(CONTINUE)
            elif isinstance(event, h11.Data):
                self._body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._begin()
                return
            else:
                if isinstance(event, h11.ConnectionClosed):
                    self._transport.close()
                return

    def _begin(self) -> None:
        request, raw = self._request, b"".join(self._body)
        assert request is not None
        self._body.clear()
        self._sent = self._tokens = 0
        method, target = request.method.decode("ascii"), request.target.decode("ascii")
        plan = self._service.handle(method, target, list(request.headers), raw, self._loop.time())
        self._plan = plan
        fault = plan.fault.kind if plan.fault is not None else None
        if fault == "reset":
            self._after(plan.delay, self._reset, plan)
        elif plan.events is not None:
            self._after(plan.delay, self._open_stream, plan, plan.events)
        elif fault == "stall":
            self._stall(plan, plan.delay, self._reply, plan)
        else:
            self._after(plan.delay, self._reply, plan)

    def _after(self, seconds: float, action: Callable[..., None], *words: Any) -> None:
        self._timer = None
        if seconds > 0:
            self._timer = self._loop.call_later(seconds, action, *words)
        else:
            action(*words)

    def _stall(self, plan: Plan, delay: float, then: Callable[..., None], *words: Any) -> None:
        if plan.fault is not None and plan.fault.seconds is not None:
            self._after(delay + plan.fault.seconds, then, *words)

    def _reply(self, plan: Plan) -> None:
        """Send a plain answer, or the half of it that a fault leaves."""
        plan.headers.append(("content-length", str(len(plan.body))))
        self._service.finish(plan, self._loop.time())
        if plan.fault is not None and plan.fault.kind == "truncate":
            self._write(_head(plan), plan.body[: len(plan.body) // 2])
            self._transport.close()
            return
        self._write(_head(plan), plan.body)
        self._next()

    def _open_stream(self, plan: Plan, events: Events) -> None:
        plan.headers.append(("transfer-encoding", "chunked"))
        self._cut = len(events)
        if plan.fault is not None and plan.fault.kind in ("stall", "truncate"):
            self._cut = min(self._cut, plan.fault.after)
        if plan.per_token:
            self._write(_head(plan))
            self._send_events(plan, events)
        else:
            self._send_events(plan, events, _head(plan))

    def _send_events(self, plan: Plan, events: Events, head: bytes = b"") -> None:
        """Send what is due: up to the next piece of text when tokens take time, else all that a fault allows."""
        due, pause = [], 0.0
        while self._sent < self._cut and not pause:
            event, tokens = events[self._sent]
            due.append(event)
            self._sent += 1
            self._tokens += tokens
            pause = plan.per_token * tokens
        data = _chunk(b"".join(due))
        if pause:
            self._write(head, data)
            self._timer = self._loop.call_later(pause, self._send_events, plan, events)
        elif self._sent < len(events):
            self._write(head, data)
            self._break_off(plan, events)
        else:
            self._service.finish(plan, self._loop.time(), tokens=self._tokens)
            self._write(head, data, LAST_CHUNK)
            self._next()

    def _break_off(self, plan: Plan, events: Events) -> None:
        """End a stream in its middle, for good or (a fault that stalls it) for a while."""
        if plan.fault is not None and plan.fault.kind == "stall":
            self._cut = len(events)
            self._stall(plan, 0.0, self._send_events, plan, events)
            return
        self._service.finish(plan, self._loop.time(), tokens=self._tokens)
        self._transport.close()

    def _reset(self, plan: Plan) -> None:
        """Break the connection as a crashed peer does: a reset, no orderly end."""
        self._service.finish(plan, self._loop.time(), tokens=0)
        raw = self._transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _next(self) -> None:
        self._plan = self._timer = None
        if self._http.their_state is h11.MUST_CLOSE:  # HTTP/1.0, or "connection: close"
            self._transport.close()
            return
        # A new one, since the old one never heard that its request was answered.
        early, _ = self._http.trailing_data
        self._http = h11.Connection(h11.SERVER)
        if early:
            # Not from here: a caller that pipelines a thousand requests would be a thousand frames deep.
            self._loop.call_soon(self.data_received, early)

    def _give_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._plan is not None:
            made = None if self._plan.events is None else self._tokens
            self._service.finish(self._plan, self._loop.time(), tokens=made, abandoned=True)
            self._plan = None

    def _write(self, *parts: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"".join(parts))


def _head(plan: Plan) -> bytes:
    line = STATUS_LINES.get(plan.status) or f"HTTP/1.1 {plan.status} Simulated\r\n"
    fields = "".join([f"{name}: {value}\r\n" for name, value in plan.headers])
    return f"{line}{fields}\r\n".encode("latin-1", "replace")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
