"""Connections to the server of a queue, and its clock, which is the one that everybody shares."""

from __future__ import annotations

import threading
import time
from typing import Any

from ..exceptions import SharedStoreLost
from .address import QueueAddress

__all__ = ["ServerClock", "connect", "lost", "require"]

CONNECT, ANSWER = 0.4, 0.8  # seconds: together what a caller may be kept when the server hangs
CHECKED_EVERY = 60.0  # seconds between two looks at the server's clock


def require(package: str, extra: str) -> Any:
    """Import an optional package, or say how to get it."""
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f'queue="{extra}+redis://..." needs {package}: pip install "ratelimited-llm[{extra}]"'
        ) from error


def connect(address: QueueAddress, answer: float = ANSWER) -> Any:
    """A client of redis-py that never waits for longer than its timeouts, and never tries again by itself.

    Args:
        address: the queue.
        answer: seconds that the server has to answer.
    """
    redis = require("redis", address.engine)
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        client = redis.Redis.from_url(
            address.server, socket_timeout=answer, socket_connect_timeout=CONNECT, retry=Retry(NoBackoff(), 0)
        )
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # not opened: this finds an option that redis-py does not know
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"the server in queue= cannot be reached that way ({type(error).__name__}): look at its path and options"
        ) from None
    return client


def lost(address: QueueAddress, error: BaseException, what: str) -> SharedStoreLost:
    """Our error for one of redis-py's, whose text may say more than is good."""
    return SharedStoreLost(
        f"the queue {address.shown} {what} ({type(error).__name__}): is the server there, and does it take writes?"
    )


class ServerClock:
    """Seconds since 1970 on the server's clock: this machine's own may be an hour off. Thread-safe.

    Args:
        client: of redis-py.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._ahead: float | None = None  # of the monotonic clock
        self._checked = 0.0

    def now(self) -> float:
        """The server's time, asked for once a minute; raises redis-py's errors when it was never heard."""
        if self._ahead is None or time.monotonic() - self._checked > CHECKED_EVERY:
            self._ask()
        assert self._ahead is not None
        return time.monotonic() + self._ahead

    def _ask(self) -> None:
        asked = time.monotonic()
        try:
            seconds, micros = self._client.time()
        except Exception:
            if self._ahead is None:
                raise
            return  # what was heard before is good enough
        answered = time.monotonic()
        with self._lock:
            self._ahead = seconds + micros / 1e6 - (asked + answered) / 2
            self._checked = answered
