"""Who is next: priority first, then the tenant that has had least, then who came first.

The rules that this file must obey:

1. Inside a pool a lower number goes first, always; ageing, when asked for, lowers a waiting call's number.
2. Inside a priority, tenants take turns weighed by what their calls cost (see `fair_queue`). Inside a tenant, calls
   stay in the order they came.
3. A call that was put back (refused, or to be tried again) keeps its place: it goes before all that its pool holds
   in the same priority. While it backs off, the others go on.
4. A pool that has to wait holds up nobody else's pool. What waits is the pool's best call, not the pool: a better
   one that arrives is looked at at once.
5. A call that was dropped leaves soon, and with it its body: never are more calls kept that have ended than wait.
6. Who is next costs the logarithm of the number of pools: only pools in which something changed are looked at again
   (but for ageing, by which time itself changes every rank).
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass

from .fair_queue import FairQueue
from .request import QueuedRequest, State
from .size_classes import SizeClasses, SizedQueue

__all__ = ["Candidate", "Scheduler", "Wait"]

SPARE = 64  # entries of ended calls that are never worth a sweep


@dataclass(frozen=True, slots=True)
class Candidate:
    """This call is next; ask the budget, then say `started` or `deferred`."""

    request: QueuedRequest


@dataclass(frozen=True, slots=True)
class Wait:
    """Nobody can go now; come back at `until` (math.inf: only an event can change that)."""

    until: float


class _Pool:
    """The calls that spend one set of limits."""

    __slots__ = ("blocked", "entry", "levels", "name", "ready", "until")

    def __init__(self, name: Hashable) -> None:
        self.name = name
        self.levels: dict[int, FairQueue | SizedQueue] = {}
        self.blocked: QueuedRequest | None = None  # the best call, which the budget told to wait ...
        self.until = 0.0  # ... until then
        self.ready: QueuedRequest | None = None  # the best call, when nothing tells it to wait ...
        self.entry = -1  # ... and the number under which it is lined up

    def best(self, now: float, ageing: float | None) -> QueuedRequest | None:
        found: QueuedRequest | None = None
        for priority in sorted(self.levels):
            if ageing is None and found is not None:
                break
            head = self.levels[priority].head()
            if head is None:
                del self.levels[priority]
            elif found is None or _rank(head, now, ageing) < _rank(found, now, ageing):
                found = head
        return found


def _rank(request: QueuedRequest, now: float, ageing: float | None) -> tuple[float, int]:
    """A call's priority after ageing: one number better for each `ageing` seconds waited, never better than HIGH."""
    if ageing is None or request.priority <= 1:
        return float(request.priority), request.sequence
    return max(1.0, request.priority - (now - request.submitted_at) // ageing), request.sequence


class Scheduler:
    """The queue: holds accepted calls and answers who is next.

    Args:
        ageing: seconds of waiting that improve a call's priority by one number, never past HIGH; None for strict
            priority, in which low calls wait as long as there are better ones.
        weights: shares of the tenants that are not 1.0, by name; twice the weight gets twice the cost served.
        sizes: classes of calls by their tokens that take turns inside a priority, see `size_classes`; None for none.

    Attributes:
        paused: nobody is next until it is False again; what was sent goes on, and deadlines still pass.

    Not thread-safe: one driver owns it.

    Raises:
        ValueError: for an ageing or a weight that is not above 0.
    """

    def __init__(
        self,
        *,
        ageing: float | None = None,
        weights: Mapping[str, float] | None = None,
        sizes: SizeClasses | None = None,
    ) -> None:
        for name, value in (("ageing", ageing), *((f"the weight of {who!r}", w) for who, w in (weights or {}).items())):
            if value is not None and not 0.0 < value < math.inf:
                raise ValueError(f"{name} must be a number above 0, not {value!r}")
        self.ageing = ageing
        self.weights = dict(weights or {})
        self.sizes = sizes
        self.paused = False
        self._new_queue: Callable[[], FairQueue | SizedQueue] = FairQueue if sizes is None else sizes.queue
        self._pools: dict[Hashable, _Pool] = {}
        self._stirred: dict[_Pool, None] = {}  # in which something has changed since the last look
        self._ready: list[tuple[float, int, int, _Pool]] = []  # a heap: rank of its best call, entry, pool
        self._blocked: list[tuple[float, int, _Pool]] = []  # a heap: told to wait until then
        self._resting: list[tuple[float, int, QueuedRequest]] = []  # a heap: backing off until then
        self._expiry: list[tuple[float, int, QueuedRequest]] = []  # a heap: not worth sending after that
        self._entries = itertools.count()  # keeps the heaps from ever comparing two calls
        self._queued = 0
        self._dropped = 0  # since the last sweep

    def __len__(self) -> int:
        """Calls waiting, of all pools."""
        return self._queued

    @property
    def empty(self) -> bool:
        """Whether there is nothing at all to do: no call waits, and none that was dropped is still to be forgotten."""
        return not (self._queued or self._pools or self._resting or self._expiry)

    def __iter__(self) -> Iterator[QueuedRequest]:
        """Every waiting call, pool by pool, in no promised order."""
        resting = (request for _, _, request in self._resting)
        levels = (level for pool in self._pools.values() for level in pool.levels.values())
        for request in itertools.chain(resting, *levels):
            if request.state is State.QUEUED:
                yield request

    def add(self, request: QueuedRequest, *, first: bool = False) -> None:
        """Take in a new call, behind its equals; `first` puts it before them (a call made from inside another)."""
        if request.state is not State.NEW:
            return  # it was given up on its way here
        pool, equals = self._place(request)
        request.state = State.QUEUED
        self._queued += 1
        better = equals.insert(request) if first else equals.append(request)
        best = pool.blocked or pool.ready
        if best is None or (request.priority, not better) < (best.priority, True):
            pool.blocked = None  # perhaps better than the one that waits: it is asked about at once
            self._stirred[pool] = None
        if request.expires_at is not None:
            self._watch(request)

    def put_back(self, request: QueuedRequest, not_before: float) -> None:
        """Take a call in again that was sent: it keeps its place, and rests until that moment."""
        request.move(State.QUEUED)
        heapq.heappush(self._resting, (not_before, next(self._entries), request))
        self._queued += 1
        if request.expires_at is not None:
            self._watch(request)

    def next(self, now: float) -> Candidate | Wait:
        """Answer the call that should go now, or when to ask again."""
        until = self._wake_resting(now) if self._resting else math.inf
        if self._expiry:
            until = min(until, self._next_expiry())
        if self.paused:
            return Wait(until)
        if self.ageing is not None:
            self._stirred.update(dict.fromkeys(self._pools.values()))
        until = min(until, self._wake_blocked(now))
        while self._stirred or self._ready:
            if self._stirred:
                self._look_at(self._stirred.popitem()[0], now)
                continue
            pool, best = self._ready[0][3], self._ready[0][3].ready
            if best is not None and pool.entry == self._ready[0][2]:
                if best.state is State.QUEUED:
                    return Candidate(best)
                self._stir(pool)
            heapq.heappop(self._ready)
        return Wait(until)

    def _place(self, request: QueuedRequest) -> tuple[_Pool, FairQueue | SizedQueue]:
        """Where a call waits: its pool, and in it the queue of its priority."""
        pool = self._pools.get(request.pool)
        if pool is None:
            pool = self._pools[request.pool] = _Pool(request.pool)
        equals = pool.levels.get(request.priority)
        if equals is None:
            equals = pool.levels[request.priority] = self._new_queue()
        return pool, equals

    def _look_at(self, pool: _Pool, now: float) -> None:
        """Line a pool up with its best call, unless that has to wait; forget it when it has none."""
        head = pool.best(now, self.ageing)
        if head is None:
            pool.ready = pool.blocked = None
            self._pools.pop(pool.name, None)
        elif head is pool.blocked and pool.until > now:
            pool.ready = None
        elif head is not pool.ready or self.ageing is not None:
            pool.ready, pool.entry = head, next(self._entries)
            heapq.heappush(self._ready, (*_rank(head, now, self.ageing), pool.entry, pool))
            if len(self._ready) > SPARE + 2 * len(self._pools):
                self._ready = [entry for entry in self._ready if entry[3].ready and entry[3].entry == entry[2]]
                heapq.heapify(self._ready)

    def _wake_blocked(self, now: float) -> float:
        """Have the pools looked at whose wait is over; answer when the next one's is."""
        while self._blocked:
            until, _, pool = self._blocked[0]
            if pool.blocked is not None and pool.until == until:
                if until > now:
                    return until
                self._stirred[pool] = None
            heapq.heappop(self._blocked)
        return math.inf

    def peek(self, now: float) -> QueuedRequest | None:
        """The call that is next by its rank, whether or not it has to wait for budget; None when none waits."""
        heads = [head for pool in self._pools.values() if (head := pool.best(now, self.ageing)) is not None]
        return min(heads, key=lambda head: _rank(head, now, self.ageing), default=None)

    def started(self, request: QueuedRequest) -> None:
        """The candidate was sent: it leaves the queue, and its tenant has had its turn."""
        pool = self._pools[request.pool]
        pool.levels[request.priority].pop(self.weights.get(request.tenant, 1.0))
        self._stir(pool)
        request.move(State.SENDING)
        self._queued -= 1

    def deferred(self, request: QueuedRequest, until: float) -> None:
        """The candidate must wait for budget until then; others of its pool that are not better wait with it."""
        pool = self._pools[request.pool]
        pool.blocked, pool.until, pool.ready = request, until, None
        if until < math.inf:
            heapq.heappush(self._blocked, (until, next(self._entries), pool))
            if len(self._blocked) > SPARE + 2 * len(self._pools):
                self._blocked = [entry for entry in self._blocked if entry[2].blocked and entry[2].until == entry[0]]
                heapq.heapify(self._blocked)

    def release(self, pool: Hashable) -> None:
        """Something about this pool changed (a place came free, tokens came back): look at it again at once."""
        held = self._pools.get(pool)
        if held is not None and held.blocked is not None:
            self._stir(held)

    def _stir(self, pool: _Pool) -> None:
        pool.blocked = pool.ready = None
        self._stirred[pool] = None

    def drop(self, request: QueuedRequest, state: State = State.CANCELLED) -> bool:
        """Take a waiting call out, or one that is on its way here; False when it was sent, or has ended."""
        if request.state is State.NEW:
            request.move(state)
            return True
        if request.state is not State.QUEUED:
            return False
        request.move(state)  # its place is cleared when the line comes to it, or by a sweep
        pool = self._pools.get(request.pool)
        if pool is not None and request is pool.blocked:
            self._stir(pool)
        elif pool is not None and request is pool.ready:
            pool.ready = None
            self._stirred[pool] = None
        self._queued -= 1
        self._dropped += 1
        if self._dropped > SPARE + self._queued:
            self._sweep()
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

    def _watch(self, request: QueuedRequest) -> None:
        if len(self._expiry) > SPARE + 2 * self._queued:
            self._forget_expiry()
        heapq.heappush(self._expiry, (request.expires_at or 0.0, next(self._entries), request))

    def _wake_resting(self, now: float) -> float:
        """Give the calls that have rested their places again; answer when the next one will have."""
        while self._resting and self._resting[0][0] <= now:
            request = heapq.heappop(self._resting)[2]
            if request.state is State.QUEUED:
                pool, equals = self._place(request)
                equals.insert(request)
                self._stir(pool)
        return self._resting[0][0] if self._resting else math.inf

    def _next_expiry(self) -> float:
        while self._expiry and self._expiry[0][2].state is not State.QUEUED:
            heapq.heappop(self._expiry)
        return self._expiry[0][0] if self._expiry else math.inf

    def _sweep(self) -> None:
        """Forget the calls that were dropped; costs no more than dropping them did."""
        self._dropped = 0
        for pool in self._pools.values():
            for equals in pool.levels.values():
                equals.sweep()
        self._resting = [entry for entry in self._resting if entry[2].state is State.QUEUED]
        heapq.heapify(self._resting)
        self._forget_expiry()

    def _forget_expiry(self) -> None:
        """Forget the deadlines of calls that have ended or were put back with the same one."""
        waiting = {request.sequence: entry for entry in self._expiry if (request := entry[2]).state is State.QUEUED}
        self._expiry = list(waiting.values())
        heapq.heapify(self._expiry)
