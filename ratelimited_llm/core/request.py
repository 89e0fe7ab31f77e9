"""One call: what it asks for, what it costs, and the states it goes through."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any

__all__ = ["TRANSITIONS", "Cost", "Lane", "Priority", "QueuedRequest", "State", "Usage"]


class Priority(enum.IntEnum):
    """How soon a call goes, lower first; calls of equal priority stay in the order they were submitted."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 5
    LOW = 8
    BACKGROUND = 10

    @classmethod
    def parse(cls, value: object) -> int:
        """Read a priority as people write it: a member, its name in any case, or an int from 0 to 10.

        Raises:
            ValueError: for anything else, with the accepted names.
        """
        if isinstance(value, str) and value.upper() in cls.__members__:
            return cls[value.upper()]
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10:
            return value
        names = ", ".join(f'"{name.lower()}"' for name in cls.__members__)
        raise ValueError(f"unknown priority {value!r}: use {names}, or an int from 0 (first) to 10 (last)")


@dataclass(frozen=True, slots=True)
class Usage:
    """Model tokens that a call really used, as its answer said.

    Attributes:
        input_tokens: prompt tokens that count towards the limit, cached ones included unless the provider says not.
        output_tokens: generated tokens, reasoning included.
        cached_tokens: of the input, those read from the provider's cache and not counted by it (Groq, Anthropic).
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call will be charged, estimated before it is sent.

    Attributes:
        reserved: tokens that the provider holds against the limit at admission (by its own rule, for example
            prompt + max_tokens).
        expected: tokens that it will probably have used when it ends.
        input_tokens: of `expected`, the prompt.
        output_tokens: of `expected`, the answer.
    """

    reserved: int = 0
    expected: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class State(enum.Enum):
    """Where a call is in its life."""

    NEW = "new"
    QUEUED = "queued"
    SENDING = "sending"
    STREAMING = "streaming"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    __hash__ = object.__hash__  # Enum's own is a Python function, and every call looks its moves up in the table below


# A new call is on its way to the scheduler, or goes at once when nobody waits. A queued call may be sent, dropped or
# expire; a sent one may be answered, refused (and queued again), fail, or become an open stream, which holds its place
# until it ends. The last three states have no way out: that is what "every call ends exactly once" means.
TRANSITIONS: dict[State, frozenset[State]] = {
    State.NEW: frozenset({State.QUEUED, State.SENDING, State.CANCELLED, State.FAILED}),
    State.QUEUED: frozenset({State.SENDING, State.CANCELLED, State.FAILED}),
    State.SENDING: frozenset({State.QUEUED, State.STREAMING, State.DONE, State.FAILED, State.CANCELLED}),
    State.STREAMING: frozenset({State.DONE, State.FAILED}),
    State.DONE: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}


class Lane:
    """What calls go out through (an HTTP client): how many it carries at once.

    Attributes:
        width: calls in flight at most; more would only wait inside the HTTP client, where nobody orders them.
        carried: the numbers of the calls that it carries now. No mere count: a set cannot be decreased twice.
    """

    __slots__ = ("carried", "width")

    def __init__(self, width: float = math.inf) -> None:
        self.width = width
        self.carried: set[int] = set()

    @property
    def in_flight(self) -> int:
        """Calls in flight through it."""
        return len(self.carried)


class QueuedRequest:
    """One accepted call on its way from submit to its answer; owned by whoever drives the dispatcher.

    A driver subclasses it with what it needs to send the call. A million may wait at once, so it is kept small.

    Attributes:
        sequence: its number, unique and rising in one queue; equals keep this order.
        pool: whose limits it spends; calls of different pools never wait for one another.
        cost: what it will be charged; see `Cost`.
        priority: 0 (first) to 10 (last).
        tenant: whose turn it takes inside its priority.
        submitted_at: when it was accepted, seconds of the driver's clock.
        expires_at: the moment after which it is not worth sending, or None.
        state: where it is in its life.
        attempts: how often it was sent and failed; a refusal by a limit is no attempt.
        refusals: how often a limit refused it.
        lane: what it goes out through, when that can be full; None when it cannot.
        tag: a name by which calls are cancelled together; "" for none.
    """

    __slots__ = (
        "attempts", "cost", "expires_at", "pool", "priority", "refusals", "sequence", "state", "submitted_at", "tenant",
    )  # fmt: skip

    lane: Lane | None = None

    def __init__(
        self,
        sequence: int,
        pool: Any,
        cost: Cost,
        *,
        priority: int = Priority.NORMAL,
        tenant: str = "",
        submitted_at: float = 0.0,
        expires_at: float | None = None,
    ) -> None:
        self.sequence = sequence
        self.pool = pool
        self.cost = cost
        self.priority = priority
        self.tenant = tenant
        self.submitted_at = submitted_at
        self.expires_at = expires_at
        self.state = State.NEW
        self.attempts = 0
        self.refusals = 0

    def recost(self) -> None:
        """Bring `cost` up to date; called just before it is reserved. Here it stays as it is."""

    @property
    def tag(self) -> str:
        return ""

    def hindered(self) -> bool:
        """Whether something beside the limits keeps it from being sent until another call ends. Here nothing does.

        Raises:
            Exception: it can never be sent, and has failed with this.
        """
        return False

    def reserved(self) -> None:
        """Its place and its cost are reserved: it is sent now. Here that is no news."""

    def move(self, to: State) -> None:
        """Enter the next state; an impossible move raises RuntimeError, since it means a call could end twice."""
        if to not in TRANSITIONS[self.state]:
            raise RuntimeError(f"call {self.sequence} cannot go from {self.state.value} to {to.value}")
        self.state = to

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.sequence} {self.state.value} priority={self.priority} pool={self.pool!r}>"
