"""Who is next: priority first, then the tenant that has had least, then who came first.

The rules that this file must obey:

1. Inside a pool a lower number goes first, always; ageing, when asked for, lowers a waiting call's number.
2. Inside a priority, tenants take turns weighed by what their calls cost (start-time fair queueing: Goyal, Vin and
   Cheng 1996; with equal costs it is plain round robin). Inside a tenant, calls stay in the order they came.
3. A call that was put back (refused, or to be tried again) keeps its place: it goes before all that its pool holds
   in the same priority. While it backs off, the others go on.
4. A pool that has to wait holds up nobody else's pool. What waits is the pool's best call, not the pool: a better
   one that arrives is looked at at once.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass

from .request import QueuedRequest, State

__all__ = ["Candidate", "Scheduler", "Wait"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """This call is next; ask the budget, then say `started` or `deferred`."""

    request: QueuedRequest


@dataclass(frozen=True, slots=True)
class Wait:
    """Nobody can go now; come back at `until` (math.inf: only an event can change that)."""

    until: float


class _Level:
    """One priority of one pool: the lines of its tenants, and who among them has had least."""

    __slots__ = ("lines", "order", "returned", "served", "virtual")

    def __init__(self) -> None:
        self.returned: list[tuple[int, QueuedRequest]] = []  # a heap: put back, so before everybody
        self.lines: dict[str, deque[QueuedRequest]] = {}
        self.order: list[tuple[float, int, str]] = []  # a heap of (start tag, first sequence, tenant)
        self.served: dict[str, float] = {}  # finish tags: cost / weight of what a tenant was given
        self.virtual = 0.0  # the start tag of the call that went last

    def append(self, request: QueuedRequest) -> None:
        line = self.lines.get(request.tenant)
        if line is None:
            line = self.lines[request.tenant] = deque()
            # Somebody who was away gets no credit for it, and one who left in debt finds it again.
            start = max(self.virtual, self.served.get(request.tenant, 0.0))
            heapq.heappush(self.order, (start, request.sequence, request.tenant))
        line.append(request)

    def head(self) -> QueuedRequest | None:
        """The next call of this priority; forgets the ended ones that it meets."""
        while self.returned:
            if self.returned[0][1].state is State.QUEUED:
                return self.returned[0][1]
            heapq.heappop(self.returned)
        while self.order:
            tenant = self.order[0][2]
            line = self.lines[tenant]
            while line and line[0].state is not State.QUEUED:
                line.popleft()
            if line:
                return line[0]
            heapq.heappop(self.order)
            del self.lines[tenant]
        return None

    def pop(self, weight: float) -> None:
        """Remove what `head` answered and charge its tenant for it."""
        if self.returned:
            heapq.heappop(self.returned)  # charged when it was first sent
            return
        self.virtual, _, tenant = self.order[0]
        line = self.lines[tenant]
        request = line.popleft()
        finish = self.served[tenant] = self.virtual + (request.cost.expected + 1) / weight
        if line:
            heapq.heapreplace(self.order, (finish, line[0].sequence, tenant))
        else:
            heapq.heappop(self.order)
            del self.lines[tenant]
        if len(self.served) > 2 * len(self.lines) + 64:
            self.served = {name: tag for name, tag in self.served.items() if tag > self.virtual}

    def __iter__(self) -> Iterator[QueuedRequest]:
        yield from (request for _, request in self.returned)
        for line in self.lines.values():
            yield from line


class _Pool:
    """The calls that spend one set of limits."""

    __slots__ = ("blocked", "levels", "until")

    def __init__(self) -> None:
        self.levels: dict[int, _Level] = {}
        self.blocked: QueuedRequest | None = None  # the best call, which the budget told to wait ...
        self.until = 0.0  # ... until then

    def best(self, now: float, ageing: float | None) -> QueuedRequest | None:
        found: QueuedRequest | None = None
        found_rank = (math.inf, 0)
        for priority in sorted(self.levels):
            if ageing is None and found is not None:
                break
            head = self.levels[priority].head()
            if head is None:
                del self.levels[priority]
                continue
            rank = (_rank(head, now, ageing), head.sequence)
            if rank < found_rank:
                found, found_rank = head, rank
        return found


def _rank(request: QueuedRequest, now: float, ageing: float | None) -> float:
    """A call's priority after ageing: one number better for each `ageing` seconds waited, never better than HIGH."""
    if ageing is None or request.priority <= 1:
        return float(request.priority)
    return max(1.0, request.priority - (now - request.submitted_at) // ageing)


class Scheduler:
    """The queue: holds accepted calls and answers who is next.

    Args:
        ageing: seconds of waiting that improve a call's priority by one number, never past HIGH; None for strict
            priority, in which low calls wait as long as there are better ones.
        weights: shares of the tenants that are not 1.0, by name; twice the weight gets twice the cost served.

    Not thread-safe: one driver owns it.
    """

    def __init__(
        self,
        *,
        ageing: float | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.ageing = ageing
        self.weights = dict(weights or {})
        self._pools: dict[Hashable, _Pool] = {}
        self._resting: list[tuple[float, int, QueuedRequest]] = []  # a heap: backing off until then
        self._expiry: list[tuple[float, int, QueuedRequest]] = []  # a heap: not worth sending after that
        self._entries = itertools.count()  # keeps the heaps from ever comparing two calls
        self._queued = 0

    def __len__(self) -> int:
        """Calls waiting, of all pools."""
        return self._queued

    def __iter__(self) -> Iterator[QueuedRequest]:
        """Every waiting call, pool by pool, in no promised order."""
        resting = (request for _, _, request in self._resting)
        levels = (level for pool in self._pools.values() for level in pool.levels.values())
        for request in itertools.chain(resting, *levels):
            if request.state is State.QUEUED:
                yield request

    def add(self, request: QueuedRequest, *, first: bool = False) -> None:
        """Take in a new call, behind its equals; `first` puts it before them (a call made from inside another)."""
        if request.state is not State.QUEUED:
            return  # it was given up on its way here
        if first:
            heapq.heappush(self._level(request).returned, (request.sequence, request))
        else:
            self._level(request).append(request)
        self._queued += 1
        self._watch(request)

    def put_back(self, request: QueuedRequest, not_before: float) -> None:
        """Take a call in again that was sent: it keeps its place, and rests until that moment."""
        request.move(State.QUEUED)
        heapq.heappush(self._resting, (not_before, next(self._entries), request))
        self._queued += 1
        self._watch(request)

    def next(self, now: float) -> Candidate | Wait:
        """Answer the call that should go now, or when to ask again."""
        best: QueuedRequest | None = None
        until = min(self._wake_resting(now), self._next_expiry())
        for name, pool in list(self._pools.items()):
            head = pool.best(now, self.ageing)
            if head is None:
                del self._pools[name]
                continue
            if head is pool.blocked and pool.until > now:
                until = min(until, pool.until)
            elif best is None or (head.priority, head.sequence) < (best.priority, best.sequence):
                best = head
        return Wait(until) if best is None else Candidate(best)

    def started(self, request: QueuedRequest) -> None:
        """The candidate was sent: it leaves the queue, and its tenant has had its turn."""
        pool = self._pools[request.pool]
        pool.levels[request.priority].pop(self.weights.get(request.tenant, 1.0))
        pool.blocked = None
        request.move(State.SENDING)
        self._queued -= 1

    def deferred(self, request: QueuedRequest, until: float) -> None:
        """The candidate must wait for budget until then; others of its pool that are not better wait with it."""
        pool = self._pools[request.pool]
        pool.blocked, pool.until = request, until

    def release(self, pool: Hashable) -> None:
        """Something about this pool changed (a place came free, tokens came back): look at it again at once."""
        held = self._pools.get(pool)
        if held is not None:
            held.blocked = None

    def drop(self, request: QueuedRequest, state: State = State.CANCELLED) -> bool:
        """Take a waiting call out; False when it is not waiting any more (it was sent, or it has ended)."""
        if request.state is not State.QUEUED:
            return False
        request.move(state)  # its place is cleared when the line comes to it
        self._queued -= 1
        return True

    def expired(self, now: float) -> list[QueuedRequest]:
        """Take out, and answer, the waiting calls whose deadline has passed."""
        gone = []
        while self._expiry and self._expiry[0][0] <= now:
            request = heapq.heappop(self._expiry)[2]
            if self.drop(request, State.FAILED):
                gone.append(request)
        return gone

    def drop_all(self, which: Callable[[QueuedRequest], bool] = lambda request: True) -> list[QueuedRequest]:
        """Take out, and answer, every waiting call that `which` accepts, in the order they were submitted."""
        chosen = sorted((request for request in self if which(request)), key=lambda request: request.sequence)
        return [request for request in chosen if self.drop(request)]

    def _level(self, request: QueuedRequest) -> _Level:
        pool = self._pools.get(request.pool)
        if pool is None:
            pool = self._pools[request.pool] = _Pool()
        level = pool.levels.get(request.priority)
        if level is None:
            level = pool.levels[request.priority] = _Level()
        return level

    def _watch(self, request: QueuedRequest) -> None:
        if request.expires_at is not None:
            heapq.heappush(self._expiry, (request.expires_at, next(self._entries), request))

    def _wake_resting(self, now: float) -> float:
        """Give the calls that have rested their places again; answer when the next one will have."""
        while self._resting and self._resting[0][0] <= now:
            request = heapq.heappop(self._resting)[2]
            if request.state is State.QUEUED:
                heapq.heappush(self._level(request).returned, (request.sequence, request))
        return self._resting[0][0] if self._resting else math.inf

    def _next_expiry(self) -> float:
        while self._expiry and self._expiry[0][2].state is not State.QUEUED:
            heapq.heappop(self._expiry)
        return self._expiry[0][0] if self._expiry else math.inf
