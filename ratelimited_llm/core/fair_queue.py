"""Fair turns: the waiting calls of one priority of one pool, one line for each tenant.

Start-time fair queueing (Goyal, Vin and Cheng 1996): who has had least, by cost over weight, goes next; with equal
costs it is plain round robin. A tenant that was away gets no credit for it, and one that left in debt finds it again.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator

from .request import QueuedRequest, State

__all__ = ["FairQueue"]

FEW = 64  # tenants whose debts are kept without asking whether they still matter


class FairQueue:
    """Who is next among equals. Calls that are not QUEUED any more are passed over."""

    __slots__ = ("_lines", "_most", "_order", "_returned", "_served", "_virtual")

    def __init__(self) -> None:
        self._returned: list[tuple[int, QueuedRequest]] = []  # a heap: put back, so before everybody
        self._lines: dict[str, deque[QueuedRequest]] = {}
        self._order: list[tuple[float, int, str]] = []  # a heap of (start tag, a sequence, tenant)
        self._served: dict[str, float] = {}  # finish tags: cost / weight of what a tenant was given
        self._virtual = 0.0  # the start tag of the call that went last
        self._most = FEW  # debts that may be kept before the paid ones are looked for

    def append(self, request: QueuedRequest) -> bool:
        """Take in a new call behind those of its tenant; True when its tenant was not here."""
        line = self._lines.get(request.tenant)
        if line is not None:
            line.append(request)
            return False
        self._lines[request.tenant] = deque((request,))
        start = max(self._virtual, self._served.get(request.tenant, 0.0))
        heapq.heappush(self._order, (start, request.sequence, request.tenant))
        return True

    def insert(self, request: QueuedRequest) -> bool:
        """Take in a call before all that came after it, and before everybody who was never sent; answers True."""
        heapq.heappush(self._returned, (request.sequence, request))
        return True

    def head(self) -> QueuedRequest | None:
        """The next call; forgets the ended ones that it meets."""
        while self._returned:
            if self._returned[0][1].state is State.QUEUED:
                return self._returned[0][1]
            heapq.heappop(self._returned)
        while self._order:
            tenant = self._order[0][2]
            line = self._lines[tenant]
            while line and line[0].state is not State.QUEUED:
                line.popleft()
            if line:
                return line[0]
            heapq.heappop(self._order)
            del self._lines[tenant]
        return None

    def pop(self, weight: float) -> None:
        """Remove what `head` answered and charge its tenant for it."""
        if self._returned:
            heapq.heappop(self._returned)  # charged when it was first sent
            return
        self._virtual, _, tenant = self._order[0]
        line = self._lines[tenant]
        request = line.popleft()
        finish = self._served[tenant] = self._virtual + (request.cost.expected + 1) / weight
        if line:
            heapq.heapreplace(self._order, (finish, line[0].sequence, tenant))
        else:
            heapq.heappop(self._order)
            del self._lines[tenant]
        if len(self._served) > self._most:
            self._served = {name: tag for name, tag in self._served.items() if tag > self._virtual}
            self._most = FEW + 2 * len(self._served)

    def sweep(self) -> None:
        """Forget the calls that have ended; lines that get empty are cleared by `head`."""
        self._returned = [entry for entry in self._returned if entry[1].state is State.QUEUED]
        heapq.heapify(self._returned)
        for tenant, line in self._lines.items():
            self._lines[tenant] = deque(request for request in line if request.state is State.QUEUED)

    def __iter__(self) -> Iterator[QueuedRequest]:
        yield from (request for _, request in self._returned)
        for line in self._lines.values():
            yield from line
