"""What a ledger writes in: a note on each call, and sums for each pool of limits and each model."""

from __future__ import annotations

from collections import deque

from .core.request import Cost
from .minute import Minute
from .pools import CallPool

__all__ = ["ENDED", "FLYING", "STREAMING", "WAITING", "ModelBook", "Noted", "PoolBook"]

ENDED, WAITING, FLYING, STREAMING = range(4)  # a new call is as one that has ended: nowhere
NOTHING = Cost()


class Noted:
    """A call as the ledger knows it.

    Attributes:
        number: unique.
        pool: whose limits it spends.
        model: as the request states it.
        size: bytes of its prompt.
        counted: whether `Ledger.wait` waits for it.
        submitted_at, dispatched_at, sent_at: when it was accepted, first sent, and last sent; seconds of the ledger's
            clock.
        tries: how often it was sent.
        stage, planned: the ledger's own notes: where it is, and what it was last counted to cost.
    """

    __slots__ = ("counted", "dispatched_at", "model", "number", "planned", "pool", "sent_at", "size", "stage",
                 "submitted_at", "tries")  # fmt: skip

    def __init__(self, pool: CallPool, model: str, size: int) -> None:
        self.number = 0
        self.pool = pool
        self.model = model
        self.size = size
        self.counted = False
        self.submitted_at = self.dispatched_at = self.sent_at = 0.0
        self.tries = 0
        self.stage = ENDED
        self.planned = NOTHING

    def most_output(self) -> int | None:
        """The most tokens that it can be answered with; None when it does not say."""
        raise NotImplementedError


class PoolBook:
    """The calls to one pool of limits."""

    __slots__ = ("flying", "input_tokens", "minute", "output_tokens", "pool", "requests", "reserved", "tokens",
                 "waiting", "waiting_input", "waiting_output")  # fmt: skip

    def __init__(self, pool: CallPool) -> None:
        self.pool = pool
        self.waiting = self.flying = 0
        self.reserved = self.waiting_input = self.waiting_output = 0  # tokens of the waiting ones
        self.requests = self.tokens = self.input_tokens = self.output_tokens = 0  # since the start
        self.minute = Minute()

    def wait(self, cost: Cost, sign: int) -> None:
        """One more waits, or (sign -1) one less."""
        self.waiting += sign
        self.reserved += sign * cost.reserved
        self.waiting_input += sign * cost.input_tokens
        self.waiting_output += sign * cost.output_tokens

    def charge(self, cost: Cost) -> int:
        """The tokens that a limit counts as spent when it is sent."""
        return cost.reserved if self.pool.dialect.charge == "reserve" else cost.expected


class ModelBook:
    """The calls to one model."""

    __slots__ = ("answered", "failed", "input_tokens", "latencies", "output_tokens", "provider")

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.answered = self.failed = self.input_tokens = self.output_tokens = 0
        self.latencies: deque[float] = deque(maxlen=101)
