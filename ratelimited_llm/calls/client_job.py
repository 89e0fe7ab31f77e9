"""What the jobs of clients' calls have in common, whoever waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.request import Cost

if TYPE_CHECKING:
    from .queued_call import QueuedCall

__all__ = ["ClientJob"]


class ClientJob:
    """Goes before a kind of `Job`: answers what the worker asks of a call, by the client's options and its ledger."""

    __slots__ = ()

    call: QueuedCall
    cost: Cost
    lane: Any  # None for a call that is made from inside another one
    worker: Any

    @property
    def on_interrupt(self) -> str | None:
        return self.call.runtime.on_interrupt

    @property
    def tag(self) -> str:
        return self.call.runtime.options.tag

    def hindered(self) -> bool:
        again = None if self.lane is None else self.worker.look_again  # a call in flight waits for a nested one
        return self.call.runtime.ledger.too_dear(self.call, self.cost, again)

    def reserved(self) -> None:
        self.call.runtime.ledger.sent(self.call, self.cost)
