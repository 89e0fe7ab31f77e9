"""The books of the simulator: one record for each request, and the sums."""

from __future__ import annotations

from collections import Counter
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

    requests: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    abandoned: int = 0
    by_status: Mapping[int, int] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    connections: int = 0


class Tally:
    """The running sums, by the names of `Counters`; written by the server's thread only, read by any."""

    def __init__(self) -> None:
        self.sums: Counter[str] = Counter()
        self.by_status: Counter[int] = Counter()

    def arrived(self) -> None:
        self.sums["requests"] += 1
        self.sums["in_flight"] += 1
        self.sums["max_in_flight"] = max(self.sums["max_in_flight"], self.sums["in_flight"])

    def ended(self, status: int | None, given: int, made: int, *, refused: bool, failed: bool, abandoned: bool) -> None:
        sums = self.sums
        sums["in_flight"] -= 1
        if abandoned:
            sums["abandoned"] += 1
            return
        if status is not None:
            self.by_status[status] += 1
        if refused or failed:
            sums["refused" if refused else "failed"] += 1
        elif status is not None and status < 400:
            sums["answered"] += 1
            sums["input_tokens"] += given
            sums["output_tokens"] += made

    def snapshot(self) -> Counters:
        return Counters(**dict(self.sums), by_status=MappingProxyType(dict(self.by_status)))
