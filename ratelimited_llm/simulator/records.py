"""The books of the simulator: one record for each request, and the sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["Counters", "Record", "Tally"]

SECRETS = (b"authorization", b"api-key", b"x-api-key")


@dataclass(slots=True)
class Record:
    """One request as it was seen; its status and end are filled in as they are known.

    Attributes:
        number: counted from 1.
        arrived: seconds of the monotonic clock.
        method, path: as sent, with the query.
        model: the model that it asked for; "" when it named none.
        tag: the first 80 characters of its last user text.
        stream: it asked for events.
        status: of the answer; None until it is decided, and when the connection was reset instead.
        dimension: the limit that refused it, or None.
        finished: when its answer was complete or given up; None until then.
    """

    number: int
    arrived: float
    method: str
    path: str
    raw_headers: list[tuple[bytes, bytes]] = field(repr=False)
    model: str = ""
    tag: str = ""
    stream: bool = False
    status: int | None = None
    dimension: str | None = None
    finished: float | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The request's headers, lower-case names, without those that carry a key."""
        return {k.decode("latin-1"): v.decode("latin-1") for k, v in self.raw_headers if k not in SECRETS}

    @property
    def retry_count(self) -> int | None:
        """How often its SDK had sent it before, as `x-stainless-retry-count` says; None when nothing says so."""
        for name, value in self.raw_headers:
            if name == b"x-stainless-retry-count" and value.isdigit():
                return int(value)
        return None

    def key(self) -> str | None:
        """The API key that it came with, in whichever header; None without one."""
        for name, value in self.raw_headers:
            if name in SECRETS:
                return value.decode("latin-1").removeprefix("Bearer ")
        return None


@dataclass(frozen=True)
class Counters:
    """Sums since the start, at one moment.

    Attributes:
        requests: all that arrived.
        answered: answered in full, with a status below 400.
        refused: refused by a limit.
        failed: struck by a fault.
        abandoned: their callers hung up before the end.
        by_status: how many answers had each status (a stream counts when it ends).
        input_tokens, output_tokens: of the answered.
        in_flight, max_in_flight: requests whose answer is not complete, now and at most.
        connections: opened so far.
    """

    requests: int
    answered: int
    refused: int
    failed: int
    abandoned: int
    by_status: Mapping[int, int]
    input_tokens: int
    output_tokens: int
    in_flight: int
    max_in_flight: int
    connections: int


class Tally:
    """The running sums; written by the server's thread only, read by any."""

    def __init__(self) -> None:
        self.requests = 0
        self.answered = 0
        self.refused = 0
        self.failed = 0
        self.abandoned = 0
        self.by_status: dict[int, int] = {}
        self.input_tokens = 0
        self.output_tokens = 0
        self.in_flight = 0
        self.max_in_flight = 0
        self.connections = 0

    def arrived(self) -> None:
        self.requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def ended(self, status: int | None, given: int, made: int, *, refused: bool, failed: bool, abandoned: bool) -> None:
        self.in_flight -= 1
        if abandoned:
            self.abandoned += 1
            return
        if status is not None:
            self.by_status[status] = self.by_status.get(status, 0) + 1
        if refused:
            self.refused += 1
        elif failed:
            self.failed += 1
        elif status is not None and status < 400:
            self.answered += 1
            self.input_tokens += given
            self.output_tokens += made

    def snapshot(self) -> Counters:
        sums = dict(vars(self))
        sums["by_status"] = MappingProxyType(dict(self.by_status))
        return Counters(**sums)
