"""serve: a gateway behind a port, until a signal ends it; what is open then is answered first."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn

from ..books.facts import set_role
from ..core.checks import number, text, whole
from .app import create_app
from .gateway import Gateway
from .guard import is_loopback

__all__ = ["GatewayServer", "listen", "serve"]

_log = logging.getLogger("ratelimited_llm.gateway")
BACKLOG = 4096  # a burst of a thousand clients connects at once
FILES = 65_536  # a request has two sockets
KEEP_ALIVE = 120  # seconds; the clients of httpx let go after 5, and who lets go first must not be the server
LAST_WORDS = 1.0  # seconds for answers of what was cancelled


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8089,
    drain: float = 30.0,
    ready: Callable[[str, Any], None] | None = None,
    **options: Any,
) -> int:
    """Run a gateway until SIGTERM or Ctrl-C; answers the exit code. To be called in the main thread.

    Args:
        host, port: where; port 0 for any free one.
        drain: seconds that open requests, and those that wait, are given to end after the first signal. Meanwhile
            nothing new is accepted (503, `/readyz` too). A second signal ends it at once.
        ready: called with the URL and the app when it listens.
        **options: see `create_app`.

    Returns:
        0, or 128 + the number of a second signal.

    Raises:
        ValueError: it would listen beyond loopback without a token; or an option makes no sense.
        OSError: the port cannot be used.
    """
    if not text("host", host):
        raise ValueError('host must be a name or an address such as "127.0.0.1"; "0.0.0.0" is all there are')
    if whole("port", port, 0) > 65_535:
        raise ValueError(f"port must be from 0 to 65535, not {port}; 0 is any that is free")
    if not 0.0 <= number("drain", drain, "a number of seconds") < math.inf:
        raise ValueError(f"drain must be a finite number of seconds from 0 up, not {drain!r}")
    if ready is not None and not callable(ready):
        raise TypeError(f"ready must be a function of a URL and an app, not {ready!r}")
    if not is_loopback(host) and not options.get("token"):
        raise ValueError(
            f"at {host} everybody in the network could spend your keys: give --token (or RATELIMITED_LLM_TOKEN), or "
            "listen on 127.0.0.1"
        )
    set_role("gateway")
    app = create_app(**options)
    with listen(host, port) as listening:
        allow_files()
        server = GatewayServer(app, app.state.gateway, drain)
        address = listening.getsockname()
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        if ready is not None:
            ready(f"http://{shown}:{address[1]}", app)
        server.run(sockets=[listening])
    return server.exit_code


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        OSError: it cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
    # With its protocol, as asyncio sends small parts at once (TCP_NODELAY) only where it sees that it is TCP.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # on Windows it would let two servers have one port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def allow_files() -> None:
    """Let this process have as many sockets as the system allows it."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class GatewayServer(uvicorn.Server):
    """uvicorn, with an end of our own: it goes on listening while it drains, so that `/readyz` can say so.

    Args:
        app: the app.
        gateway: the gateway in it.
        drain: seconds.

    Attributes:
        exit_code: of the process.
    """

    def __init__(self, app: Any, gateway: Gateway, drain: float) -> None:
        config = uvicorn.Config(
            app, log_config=None, log_level=logging.CRITICAL, access_log=False, backlog=BACKLOG, lifespan="on",
            timeout_graceful_shutdown=1, timeout_keep_alive=KEEP_ALIVE, server_header=False, ws="none",
        )  # fmt: skip
        super().__init__(config)
        self.exit_code = 0
        self._gateway = gateway
        self._seconds = drain
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: the first begins the end, the second is the end."""
        if self._loop is None or self._draining is not None or self._gateway.draining:
            self.exit_code = 128 + sig
            self.force_exit = self.should_exit = True
            if self._loop is None:
                raise KeyboardInterrupt
            return
        self._gateway.draining = True
        self._loop.call_soon_threadsafe(self.begin_to_end)

    def begin_to_end(self) -> None:
        """Drain, and then stop. Called on the server's loop."""
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        _log.info("draining: %d open", len(self._gateway.open), extra={"event": "draining"})
        try:
            if not await self._gateway.drain(self._seconds):
                _log.warning(
                    "drain_cut_short: %d given up", len(self._gateway.open), extra={"event": "drain_cut_short"}
                )
            await asyncio.wait_for(self._gateway.aclose(), LAST_WORDS)
        except asyncio.TimeoutError:
            pass
        finally:
            self.should_exit = True
