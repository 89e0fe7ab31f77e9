"""What a ledger writes in: a note on each call, and sums for each pool of limits, each model, each kind of failure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from ..accounts import CallPool
from ..core.request import Cost, Usage
from ..telemetry.meters import Meter
from .bills import Bill
from .minute import Minute

__all__ = ["ENDED", "FLYING", "STREAMING", "WAITING", "CallRecord", "Failures", "ModelBook", "PoolBook"]

ENDED, WAITING, FLYING, STREAMING = range(4)  # a new call is as one that has ended: nowhere
MOST_ERRORS = 50  # kinds of failures told apart
NOTHING = Cost()
COLUMNS = 4  # of a minute: requests, tokens as charged, of the prompts, of the answers


class CallRecord(Bill):
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
        book: its pool's; the ledger's, from its submission on.
        meter: what its kind of calls is counted by; the ledger's, from its submission on.
        trace: who tells OpenTelemetry about it; None when nobody listens.
    """

    __slots__ = ("book", "counted", "dispatched_at", "meter", "model", "number", "planned", "pool", "sent_at", "size",
                 "stage", "submitted_at", "trace", "tries")  # fmt: skip

    book: PoolBook
    meter: Meter
    trace: Any  # telemetry.tracing.CallTrace

    def __init__(self, pool: CallPool, model: str, size: int) -> None:
        Bill.__init__(self)
        self.number = 0
        self.pool = pool
        self.model = model
        self.size = size
        self.counted = False
        self.submitted_at = self.dispatched_at = self.sent_at = 0.0
        self.tries = 0
        self.stage = ENDED
        self.planned = NOTHING
        self.trace = None

    def kind(self) -> tuple[str, str, int]:
        """Its model, what it does with it ("chat", ...), and its priority."""
        raise NotImplementedError

    def asked(self) -> Mapping[str, Any]:
        """Attributes of its span that say how it asks, and never what."""
        raise NotImplementedError

    def traced_by_sdk(self) -> bool:
        """Whether the SDK makes a span of its own for it."""
        raise NotImplementedError

    def most_output(self) -> int | None:
        """The most tokens that it can be answered with; None when it does not say."""
        raise NotImplementedError


class PoolBook:
    """The calls to one pool of limits.

    Attributes:
        meters: the ledger's, by `CallRecord.kind`.
        reserves: whether its limits count what a call reserves, whatever it uses then.
    """

    __slots__ = ("flying", "input_tokens", "meters", "minute", "output_tokens", "pool", "requests", "reserved",
                 "reserves", "tokens", "waiting", "waiting_input", "waiting_output")  # fmt: skip

    def __init__(self, pool: CallPool) -> None:
        self.pool = pool
        self.reserves = pool.dialect.charge == "reserve"
        self.waiting = self.flying = 0
        self.reserved = self.waiting_input = self.waiting_output = 0  # tokens of the waiting ones
        self.requests = self.tokens = self.input_tokens = self.output_tokens = 0  # since the start
        self.minute = Minute()
        self.meters: dict[tuple[str, str, int], Meter] = {}

    def enter(self, cost: Cost) -> None:
        """Count a call that waits, with its estimated cost."""
        self.waiting += 1
        self.reserved += cost.reserved
        self.waiting_input += cost.input_tokens
        self.waiting_output += cost.output_tokens

    def leave(self, cost: Cost) -> None:
        """Take a call out of those that wait; `cost` as it was entered."""
        self.waiting -= 1
        self.reserved -= cost.reserved
        self.waiting_input -= cost.input_tokens
        self.waiting_output -= cost.output_tokens

    def spend(self, cost: Cost, now: float, sign: int = 1) -> None:
        """A call was sent; or (sign -1) nothing was spent on it after all, and the limit has it again."""
        tokens = sign * (cost.reserved if self.reserves else cost.expected)
        self.requests += sign
        self.tokens += tokens
        slot = self.minute.slot(now, COLUMNS)
        slot[0] += sign
        slot[1] += tokens
        slot[2] += sign * cost.input_tokens
        slot[3] += sign * cost.output_tokens

    def use(self, planned: Cost, usage: Usage, now: float) -> None:
        """Correct what a call was charged to what it used."""
        prompt, output = usage.input_tokens, usage.output_tokens
        self.input_tokens += prompt
        self.output_tokens += output
        slot = self.minute.slot(now, COLUMNS)
        if not self.reserves:
            more = prompt + output - planned.expected
            self.tokens += more
            slot[1] += more
        slot[2] += prompt - planned.input_tokens
        slot[3] += output - planned.output_tokens

    def forget_open(self) -> None:
        """Nothing waits or is in flight any more."""
        self.waiting = self.flying = self.reserved = self.waiting_input = self.waiting_output = 0


class ModelBook:
    """Sums over the calls to one model, and its latest latencies in seconds."""

    __slots__ = ("answered", "failed", "input_tokens", "latencies", "output_tokens", "provider")

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.answered = self.failed = self.input_tokens = self.output_tokens = 0
        self.latencies: deque[float] = deque(maxlen=101)


class Failures(Counter[str]):
    """How often calls ended in which way, by the error's class and status, never by its text: it may quote a prompt."""

    def note(self, error: BaseException) -> None:
        """Count one failed call under its class, status and code."""
        status, code = getattr(error, "status_code", None), getattr(error, "code", None)
        parts = [type(error).__name__]
        if isinstance(status, int):
            parts.append(str(status))
        if isinstance(code, str) and len(code) <= 40:
            parts.append(code)
        text = " ".join(parts)
        if text in self or len(self) < MOST_ERRORS:
            self[text] += 1
