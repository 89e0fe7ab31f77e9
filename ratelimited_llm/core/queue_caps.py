"""How many calls may wait: the caps of the whole queue and of one tenant's share."""

from __future__ import annotations

from ..exceptions import QueueFull

__all__ = ["QueueCaps"]


class QueueCaps:
    """Knows the waiting calls by number, and counts them against their caps; no call is counted or forgotten twice.

    Args:
        max_queue: calls that may wait at once; None for no cap.
        max_queue_per_tenant: the same for one tenant; None for no cap.

    Not thread-safe: whoever shares it holds a lock around it.
    """

    def __init__(self, max_queue: int | None = None, max_queue_per_tenant: int | None = None) -> None:
        self.max_queue = max_queue
        self.max_queue_per_tenant = max_queue_per_tenant
        self._waiting: set[int] = set()
        self._per_tenant: dict[str, set[int]] = {}

    def enter(self, sequence: int, tenant: str) -> QueueFull | None:
        """Count one more waiting call, or answer (not raise) the error that says which cap is reached."""
        if self.max_queue is not None and len(self._waiting) >= self.max_queue:
            return QueueFull(self.max_queue, request_id=sequence)
        cap = self.max_queue_per_tenant
        if cap is not None and len(self._per_tenant.get(tenant, ())) >= cap:
            return QueueFull(cap, tenant=tenant, request_id=sequence)
        self.force(sequence, tenant)
        return None

    def force(self, sequence: int, tenant: str) -> None:
        """Count one more waiting call although a cap may be reached."""
        self._waiting.add(sequence)
        self._per_tenant.setdefault(tenant, set()).add(sequence)

    def leave(self, sequence: int, tenant: str) -> bool:
        """It was sent for the first time, or dropped; False when it was not counted (any more)."""
        if sequence not in self._waiting:
            return False
        self._waiting.discard(sequence)
        share = self._per_tenant.get(tenant)
        if share is not None:
            share.discard(sequence)
            if not share:
                del self._per_tenant[tenant]
        return True
