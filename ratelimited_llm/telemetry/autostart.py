"""RATELIMITED_LLM_METRICS_PORT: the first client of a process has its metrics served, without a line of code."""

from __future__ import annotations

import logging
import os

__all__ = ["serve_if_configured"]

PORT, HOST = "RATELIMITED_LLM_METRICS_PORT", "RATELIMITED_LLM_METRICS_HOST"

_log = logging.getLogger("ratelimited_llm.metrics")
_asked: set[str] = set()


def serve_if_configured() -> None:
    """Start the metrics server that the environment names, once; whatever is wrong with it is said once, and no more.

    In the child of a fork it is not started again: the port is the parent's.
    """
    port = os.environ.get(PORT)
    if not port or port in _asked:
        return
    _asked.add(port)
    host = os.environ.get(HOST) or "127.0.0.1"
    try:
        from . import start_metrics_server

        server = start_metrics_server(int(port), host)
    except (ImportError, OSError, OverflowError, ValueError) as error:
        _log.warning(
            "metrics_not_served: %s=%s: %s; everything else goes on without", PORT, port, error,
            extra={"event": "metrics_not_served"},
        )  # fmt: skip
    else:
        _log.info("metrics_served at %s", server.url, extra={"event": "metrics_served"})
