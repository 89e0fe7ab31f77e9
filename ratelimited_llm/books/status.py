"""What a client is doing, as values: for the progress line, the notebook's panel, the report, and your own code.

Seconds are floats, tokens are ints, costs are US dollars; None is "not known". A value never changes: ask for another.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["ErrorStatus", "History", "LimitStatus", "ModelStatus", "Moment", "PoolStatus", "Ratelimit", "Status"]


@dataclass(frozen=True, slots=True)
class LimitStatus:
    """One limit of one pool.

    Attributes:
        dimension: "rpm", "tpm", "rpd", "tpd", "itpm" or "otpm".
        used: what this client spent of it in the last `period` seconds, or since it began if that is shorter; at most
            the last 60 s are kept, so for a daily limit it is what was spent in all.
        limit: the whole of it.
        remaining: what could be spent at this moment (everybody's spending counted, as far as it is known).
        period: seconds that it stands for (60 or 86,400).
        binds: whether it is the one that the waiting calls wait for.
        source: whose number it is: "stated" by you, "learned" from the provider's answers, or "shared": told by other
            processes with the same budget, or learned by an earlier run (`budget="auto"`).
        learned: seconds since an answer of the provider taught this client the limit, or that it had changed; None
            when none did.
    """

    dimension: str
    used: float
    limit: float
    remaining: float
    period: float
    binds: bool = False
    source: str = "learned"
    learned: float | None = None


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """The calls of this client to one pool of limits (a provider, a key, a model family).

    Attributes:
        provider: the host, never a key.
        family: the model family; "" when the provider's limits know no models.
        queued, in_flight: calls.
        requests_per_minute, tokens_per_minute: sent, and spent, in the last 60 s.
        limits: what is known of its limits; empty before the first answer when none were configured.
        eta: seconds until its last waiting call is answered, from the limits; None when nothing tells.
        paused: seconds that a refusal still holds it back; 0.0 when none does.
    """

    provider: str
    family: str
    queued: int
    in_flight: int
    requests_per_minute: float
    tokens_per_minute: float
    limits: tuple[LimitStatus, ...] = ()
    eta: float | None = None
    paused: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What became of the calls to one model; `spent` is None when nobody knows its price."""

    model: str
    answered: int
    failed: int
    input_tokens: int
    output_tokens: int
    spent: float | None
    latency: float | None  # median seconds from dispatch to answer


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """A kind of failure: the exception's class and status, never the prompt; and how often it ended a call."""

    text: str
    count: int


@dataclass(frozen=True, slots=True)
class Status:
    """All calls of one client and its copies since it was made.

    Attributes:
        at: wall-clock seconds since the epoch.
        elapsed: seconds from the first call until now, or until the last one ended; 0.0 before it.
        total: calls that are to be made; the submitted ones, or more when a batch said how many it has.
        submitted: calls that were accepted.
        answered: of these, the ones a provider answered in this run.
        replayed: answered by the journal, without a request.
        failed, cancelled, queued, in_flight: of the submitted ones; in flight counts open streams.
        refused: 429s so far (no call is lost by one).
        retries: attempts after a failure that was no refusal.
        perhaps_paid: calls that were in flight when an earlier run crashed, and were sent again.
        input_tokens, output_tokens: used, as the provider told.
        spent: what that cost; None when the price of no model is known.
        expected: what everything will have cost in the end, replayed answers apart; None likewise.
        eta: seconds until the last call is answered, from the limits; None when nothing tells, 0.0 when none is open.
        latency, latency_p95: median and 95th percentile of dispatch to answer, of the latest thousand; None before.
        pools, models, errors: the parts, the busiest first.
    """

    at: float
    elapsed: float
    total: int
    submitted: int
    answered: int
    replayed: int
    failed: int
    cancelled: int
    queued: int
    in_flight: int
    refused: int
    retries: int
    perhaps_paid: int
    input_tokens: int
    output_tokens: int
    spent: float | None
    expected: float | None
    eta: float | None
    latency: float | None
    latency_p95: float | None
    pools: tuple[PoolStatus, ...] = ()
    models: tuple[ModelStatus, ...] = ()
    errors: tuple[ErrorStatus, ...] = ()

    @property
    def done(self) -> int:
        """Calls that have ended, one way or another."""
        return self.answered + self.replayed + self.failed + self.cancelled

    @property
    def over(self) -> bool:
        """Whether every submitted call has ended."""
        return self.done >= self.submitted


@dataclass(frozen=True, slots=True)
class Moment:
    """What happened in one slice of a run.

    Attributes:
        at: seconds from the first call to the start of the slice.
        sent, answered, failed, refused: how often, in the slice.
        tokens: spent in the slice, as the answers told.
        queued, in_flight: at the end of the slice.
        latency: median seconds of the calls that were answered in the slice; None when none was.
    """

    at: float
    sent: int = 0
    answered: int = 0
    failed: int = 0
    refused: int = 0
    tokens: int = 0
    queued: int = 0
    in_flight: int = 0
    latency: float | None = None


@dataclass(frozen=True, slots=True)
class History:
    """A run as equal slices of time, at most some hundred whatever its length; and its limits as they changed.

    Attributes:
        slice_seconds: the length of a slice.
        moments: the slices, from the first call on, without gaps.
        latencies: seconds from dispatch to answer of up to a thousand calls, spread evenly over the run; ascending.
        limits: (seconds from the first call, dimension, limit) each time a limit was learned or changed; of the pool
            with the most calls.
    """

    slice_seconds: float
    moments: tuple[Moment, ...] = ()
    latencies: tuple[float, ...] = ()
    limits: tuple[tuple[float, str, float], ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Ratelimit:
    """How one call fared in the queue (`future.ratelimit`); reading it never waits.

    Attributes:
        state: "queued", "running", "done", "failed" or "cancelled".
        queued_s: seconds from submit to the first dispatch; so far, while it waits.
        sent_s: seconds from the last dispatch to the answer; so far, while it runs; None before.
        attempts: how often it was sent, refusals included.
        place: where it stands in the queue, 1 being next; None when it does not wait, or that cannot be told now.
        of: how many wait.
        eta: seconds until it is probably answered; None when nothing tells.
        held_by: what it waits for: "rpm", "tpm", ..., "concurrency", "pause" (a refusal), "first answer"; None when it
            does not wait.
        replayed: whether the journal answered it.
    """

    state: str
    queued_s: float
    sent_s: float | None = None
    attempts: int = 0
    place: int | None = None
    of: int | None = None
    eta: float | None = None
    held_by: str | None = None
    replayed: bool = False
