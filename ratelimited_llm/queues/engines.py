"""The seam to an engine that carries jobs: submit JSON here, take it there, and say what became of it.

An engine promises: what `submit` accepted is delivered to some worker at least once, also when workers are killed; a
job that was taken is delivered again unless its ticket said that it has ended; a class is never delivered while a
higher one waits and could be. It carries JSON and nothing else, and knows nothing of what is in it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

__all__ = ["CLASSES", "Handler", "QueueEngine", "Stop", "Ticket", "class_of"]

CLASSES = ("high", "normal", "low")  # one queue of the engine for each, the first goes first
LAST_HIGH, LAST_NORMAL = 2, 6  # priorities run from 0 (critical) to 10 (background); normal is 5


def class_of(priority: int) -> str:
    """Which of the three queues a priority goes into."""
    if priority <= LAST_HIGH:
        return "high"
    return "normal" if priority <= LAST_NORMAL else "low"


class Ticket(Protocol):
    """One delivery of a job. Exactly one of the methods is called once, from any thread; none raises.

    Attributes:
        job: the JSON, decoded; None when it is none.
        rank: the queue that it came from.
        running: set by the handler when it is being sent, so that it waits for no permit.
    """

    job: Any
    rank: str
    running: bool

    def done(self) -> None:
        """It has ended, and is not delivered again."""

    def put_back(self, delay: float = 0.0) -> None:
        """Deliver it again, to anybody, in so many seconds."""

    def refuse(self) -> None:
        """It makes no sense: it is not delivered again, and kept aside where the engine has a place for that."""


class Handler(Protocol):
    """What an engine gives its jobs to. All methods are called from one thread."""

    def take(self, tickets: Sequence[Ticket]) -> None:
        """Begin with these; does not wait for their end."""

    def tick(self) -> None:
        """Called every now and then, at least once a second."""

    def give_back(self) -> None:
        """The worker is to stop: put back what is not sent yet."""

    @property
    def held(self) -> Sequence[Ticket]:
        """Jobs that were taken and have not ended."""


class Stop:
    """How a worker is told to stop.

    Attributes:
        asked: take nothing more, finish what is in flight.
        now: do not wait for that either.
        drain: seconds that what is in flight has, after `asked`.
    """

    def __init__(self, drain: float = 30.0) -> None:
        self.asked = threading.Event()
        self.now = threading.Event()
        self.drain = drain

    def ask(self) -> None:
        """The first time: stop. The second time: now. May be called from a signal handler."""
        (self.now if self.asked.is_set() else self.asked).set()


class QueueEngine(Protocol):
    """An engine. `submit` and `close` are thread-safe."""

    def submit(self, job: Mapping[str, Any], rank: str, delay: float = 0.0) -> None:
        """Accept a job for one of the `CLASSES`, to be delivered in `delay` seconds at the earliest.

        Raises:
            SharedStoreLost: the server did not take it, within about a second; no message names a password.
        """

    def consume(self, handler: Handler, *, concurrency: int, heartbeat: float, stop: Stop) -> None:
        """Take jobs and hand them over, until told to stop; blocks.

        Args:
            handler: see there.
            concurrency: jobs that are in flight at once, about.
            heartbeat: seconds of silence after which a worker counts as dead, and others are given its jobs.
            stop: see there.
        """

    def close(self) -> None:
        """Let go of all connections. May be called more than once."""
