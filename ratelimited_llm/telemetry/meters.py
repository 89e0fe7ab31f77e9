"""What is counted for operators: histograms and counters of calls, a set for each kind of call. Pure.

A kind of call is a provider, a model, a bucket of limits, an operation and a priority; see `Labels`. Whoever notes
something holds a lock around it, and a note costs a few tenths of a microsecond.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

__all__ = ["DURATIONS", "TOKENS", "WAITS", "Histogram", "Labels", "Meter", "Meters", "operation_of"]

# Seconds of an operation, and tokens, as the GenAI conventions of OpenTelemetry have them.
DURATIONS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
# Seconds in a queue, for which there is no convention: from not at all to an overnight run.
WAITS = (0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 7200.0)
MOST_REASONS = 50  # reasons of one meter that are told apart; what a server makes up beyond is "other"
OTHER = "other"

# The names that the conventions know come first; for the rest there is none yet.
OPERATIONS = {
    "completions": "text_completion", "complete": "text_completion", "messages": "chat", "responses": "chat",
    "embeddings": "embeddings", "moderations": "moderation", "generations": "image_generation",
    "edits": "image_generation", "variations": "image_generation", "speech": "speech",
    "transcriptions": "transcription", "translations": "transcription", "rerank": "rerank",
    "generateContent": "generate_content", "streamGenerateContent": "generate_content",
}  # fmt: skip


@lru_cache(maxsize=1024)
def operation_of(path: str) -> str:
    """What a request to this path does: "chat", "embeddings", "text_completion"...; "other" when it is none of ours."""
    parts = path.partition("?")[0].rstrip("/").split("/")
    if parts[-1] == "completions" and "chat" in parts:
        return "chat"
    return OPERATIONS.get(parts[-1].rpartition(":")[2], OTHER)


class Labels(NamedTuple):
    """What tells kinds of calls apart: few values each, and nothing that anybody typed but a model's name.

    Attributes:
        provider: as the GenAI conventions call it.
        model: as the request states it.
        bucket: the set of limits that it spends, usually a model family.
        operation: see `operation_of`.
        priority: from 0 to 10.
    """

    provider: str
    model: str
    bucket: str
    operation: str
    priority: int


class Histogram:
    """How many values came under each bound, and their sum.

    Args:
        bounds: rising; a value that equals one counts under it.

    Attributes:
        counts: for each bound the values under it and above the one before; at last those above all.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """One more; a negative one (no clock of ours makes it) counts as 0."""
        if not value > 0.0:
            value = 0.0
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def join(self, other: Histogram) -> None:
        """Add another one with the same bounds."""
        self.counts = [mine + yours for mine, yours in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum

    @property
    def count(self) -> int:
        return sum(self.counts)


class Meter:
    """The counts of one kind of calls.

    Attributes:
        waiting, flying: calls at this moment; in flight counts open streams.
        answered, failed, cancelled, replayed: calls by how they ended; a stream is answered when it begins.
        input_tokens, output_tokens: as the provider told.
        cost: US dollars, as far as prices are known.
        limited: refusals by the limit that refused ("rpm", ...; "unknown").
        retries: attempts that failed for another reason, by it (a status, or the class of the error).
        wait: seconds from submit to the first dispatch.
        duration: seconds from the last dispatch to the end of the answer, of those that were answered.
        first_chunk: seconds from the last dispatch to the first chunk of a stream.
    """

    __slots__ = ("answered", "cancelled", "cost", "duration", "failed", "first_chunk", "flying", "input_tokens",
                 "limited", "output_tokens", "replayed", "retries", "wait", "waiting")  # fmt: skip

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, as in the child of a fork."""
        self.waiting = self.flying = 0
        self.answered = self.failed = self.cancelled = self.replayed = 0
        self.input_tokens = self.output_tokens = 0
        self.cost = 0.0
        self.limited: dict[str, int] = {}
        self.retries: dict[str, int] = {}
        self.wait = Histogram(WAITS)
        self.duration = Histogram(DURATIONS)
        self.first_chunk = Histogram(DURATIONS)

    def came_back(self, reason: str, *, limited: bool) -> None:
        """An attempt was refused by a limit, or failed."""
        _count(self.limited if limited else self.retries, reason)

    def join(self, other: Meter) -> None:
        """Add the counts of another one."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, yours in ((self.limited, other.limited), (self.retries, other.retries)):
            for reason, count in yours.items():
                _count(mine, reason, count)
        self.wait.join(other.wait)
        self.duration.join(other.duration)
        self.first_chunk.join(other.first_chunk)


_NUMBERS = ("waiting", "flying", "answered", "failed", "cancelled", "replayed", "input_tokens", "output_tokens", "cost")


class Meters(dict[Labels, Meter]):
    """A meter for each kind of calls; guarded by its owner's lock."""

    __slots__ = ("__weakref__",)

    def __missing__(self, labels: Labels) -> Meter:
        meter = self[labels] = Meter()
        return meter

    def join(self, other: Mapping[Labels, Meter]) -> None:
        """Add the counts of others."""
        for labels, meter in other.items():
            self[labels].join(meter)


def _count(counts: dict[str, int], reason: str, more: int = 1) -> None:
    if reason not in counts and len(counts) >= MOST_REASONS:
        reason = OTHER
    counts[reason] = counts.get(reason, 0) + more
