"""Processors that the tests use, and short ways to wait without guessing how long."""

from __future__ import annotations

import threading
from typing import Any

from ratelimited_llm.processors import Processor

PATIENCE = 10.0


class Echo(Processor):
    """Answers with what it was given; remembers the order."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def process(self, payload: Any) -> Any:
        self.seen.append(payload)
        return {"echo": payload}


class AsyncEcho(Processor):
    """The same as a coroutine."""

    async def process(self, payload: Any) -> Any:
        return {"echo": payload, "thread": threading.current_thread().name}


class Held(Processor):
    """Answers when it is told to; `arrived` says how many were sent."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.arrived = threading.Semaphore(0)

    def process(self, payload: Any) -> Any:
        self.arrived.release()
        assert self.go.wait(PATIENCE)
        return payload


class Failing(Processor):
    """Raises each of the errors in turn, and then answers."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.tries = 0

    def process(self, payload: Any) -> Any:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return payload


class StatusError(Exception):
    """What an HTTP library raises."""

    def __init__(self, status: int, message: str = "failed", **headers: str) -> None:
        super().__init__(message)
        self.status_code = status
        self.headers = headers
