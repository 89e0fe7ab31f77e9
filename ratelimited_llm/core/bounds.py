"""How many calls may wait: the caps of the whole queue and of one tenant's share."""

from __future__ import annotations

from collections import Counter

from ..exceptions import QueueFull

__all__ = ["Bounds"]


class Bounds:
    """Counts the waiting calls against their caps.

    Args:
        max_queue: calls that may wait at once; None for no cap.
        max_queue_per_tenant: the same for one tenant; None for no cap.

    Not thread-safe: whoever shares it holds a lock around it.
    """

    def __init__(self, max_queue: int | None = None, max_queue_per_tenant: int | None = None) -> None:
        self.max_queue = max_queue
        self.max_queue_per_tenant = max_queue_per_tenant
        self._waiting = 0
        self._per_tenant: Counter[str] = Counter()

    def enter(self, tenant: str) -> QueueFull | None:
        """Count one more waiting call, or answer (not raise) the error that says which cap is reached."""
        if self.max_queue is not None and self._waiting >= self.max_queue:
            return QueueFull(self.max_queue)
        cap = self.max_queue_per_tenant
        if cap is not None and self._per_tenant[tenant] >= cap:
            return QueueFull(cap, tenant=tenant)
        self.force(tenant)
        return None

    def force(self, tenant: str) -> None:
        """Count one more, cap or no cap."""
        self._waiting += 1
        self._per_tenant[tenant] += 1

    def leave(self, tenant: str) -> None:
        """Count one less: the call was sent for the first time, or dropped."""
        self._waiting -= 1
        self._per_tenant[tenant] -= 1
        if not self._per_tenant[tenant]:
            del self._per_tenant[tenant]
