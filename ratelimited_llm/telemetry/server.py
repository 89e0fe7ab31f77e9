"""A small HTTP server for a Prometheus scraper, on a thread of its own."""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from ..core.checks import text
from ..forks import at_fork
from .prometheus import client_library, register

if TYPE_CHECKING:
    from prometheus_client.registry import CollectorRegistry

__all__ = ["MetricsServer", "start", "stop_all"]

POLL = 0.25  # seconds until the thread notices that it is to end

_log = logging.getLogger("ratelimited_llm.metrics")
_lock = threading.Lock()
_servers: dict[tuple[str, int], MetricsServer] = {}


class _Handler(WSGIRequestHandler):
    timeout = 10.0  # seconds that a scraper which sends nothing is borne with

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        # The base class asks the name service what the address is called, which can take long and matters to nobody.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[0], self.server_address[1]  # type: ignore[assignment]
        self.setup_environ()


class _Server6(_Server):
    address_family = socket.AF_INET6


class MetricsServer:
    """A server that is running.

    Attributes:
        host, port: where it listens.
    """

    def __init__(self, host: str, port: int, app: Any) -> None:
        self._server = (_Server6 if ":" in host else _Server)((host, port), _Handler)
        self._server.set_app(app)
        self.host = host
        self.port: int = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL,), name="ratelimited-llm-metrics", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where a scraper finds it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/metrics"

    def stop(self) -> None:
        """End it; blocks until its thread is gone, a quarter of a second. Again, it does nothing."""
        with _lock:
            for address in [address for address, each in _servers.items() if each is self]:
                del _servers[address]
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def leave_to_parent(self) -> None:
        """In the child of a fork: the thread is the parent's, and the socket was only copied."""
        self._server.socket.close()

    def __repr__(self) -> str:
        return f"<MetricsServer {self.url}>"


def start(port: int, host: str, registry: CollectorRegistry | None) -> MetricsServer:
    """See `telemetry.start_metrics_server`."""
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port must be a whole number, not {port!r}")
    if not 0 <= port <= 65_535:
        raise ValueError(f"port must be from 0 to 65535, not {port}; 0 is any that is free")
    if not text("host", host):
        raise ValueError('host must be a name or an address such as "127.0.0.1"; "0.0.0.0" is all there are')
    library = client_library()
    registry = register(registry)
    with _lock:
        running = _servers.get((host, port))
        if running is None:
            running = MetricsServer(host, port, library.make_wsgi_app(registry))
            _servers[host, running.port] = running
        return running


def stop_all() -> None:
    """See `telemetry.stop`."""
    with _lock:
        running = list(_servers.values())
    for each in running:
        each.stop()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for each in _servers.values():
        each.leave_to_parent()
    _servers.clear()


at_fork(_after_fork_in_child)
