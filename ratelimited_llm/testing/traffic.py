"""What goes into a simulated run, and what comes out: its calls, and what became of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ..core.checks import number, text, whole
from ..core.request import Priority, State

__all__ = ["Call", "Run", "call"]

MOST_TOKENS = 10**12


@dataclass(frozen=True)
class Call:
    """One call of a simulated run.

    Attributes:
        at: when it is submitted, seconds.
        prompt, output: the model tokens that it really uses.
        max_tokens: what it asks for at most; None for just `output`.
        priority, tenant, pool: as in the client.
        deadline: seconds from submit after which it is not worth sending; None for never.
        latency: seconds from arrival to answer; None for the run's own.
        cancel_at: when its caller cancels it; None for never.
    """

    at: float = 0.0
    prompt: int = 100
    output: int = 50
    max_tokens: int | None = None
    priority: int | str = Priority.NORMAL
    tenant: str = ""
    pool: str = "model"
    deadline: float | None = None
    latency: float | None = None
    cancel_at: float | None = None

    def __post_init__(self) -> None:
        for name in ("at", "deadline", "latency", "cancel_at"):
            value = getattr(self, name)
            if (value is not None or name == "at") and not 0.0 <= number(name, value, "a number of seconds") < math.inf:
                raise ValueError(f"{name} must be a finite number of seconds from 0 up, not {value!r}")
        for name in ("prompt", "output", "max_tokens"):
            value = getattr(self, name)
            if (value is not None or name != "max_tokens") and whole(name, value, 0) > MOST_TOKENS:
                raise ValueError(f"{name} must be at most {MOST_TOKENS:,} tokens")
        Priority.parse(self.priority)
        for name in ("tenant", "pool"):
            text(name, getattr(self, name))


def call(at: float = 0.0, **fields: Any) -> Call:
    """Make a `Call`, with the defaults of an ordinary chat request."""
    return Call(at=at, **fields)


@dataclass
class Run:
    """What happened, call by call in the order they were given; times in seconds, NaN for what never happened."""

    started_at: list[float]
    finished_at: list[float]
    states: list[State]
    attempts: list[int]
    refused: int = 0
    sends: list[tuple[float, int]] = field(default_factory=list)
    ended_at: float = 0.0

    @property
    def answered(self) -> int:
        """How many calls were answered."""
        return sum(state is State.DONE for state in self.states)

    @property
    def lost(self) -> int:
        """Calls that were neither answered, nor cancelled, nor past their deadline; 0 unless something is wrong."""
        return sum(state in (State.NEW, State.QUEUED, State.SENDING, State.STREAMING) for state in self.states)
