"""AsyncQueuedClient: a door whose calls tasks wait for, in the same queue and budget as the process's other calls."""

from __future__ import annotations

from typing import Any

from .calls.async_turn import AsyncTurn
from .calls.attempt import current_attempt
from .calls.queued_call import QueuedCall
from .seam import SDKClient, Seam

__all__ = ["AsyncQueuedClient"]

_SDK_MADE = "AsyncHttpxClientWrapper"  # the class in all three SDKs of the client that nobody brought


class AsyncQueuedClient(Seam[SDKClient]):
    """The part of an async door that is ours: `await` waits for the call's turn, and then for its answer."""

    __slots__ = ()  # see Looking

    def _enqueue(self, call: QueuedCall) -> Any:
        """A coroutine that returns the call's answer, as the SDK's `request` is one."""
        return call.in_own_task(AsyncTurn)

    async def _sleep_for_retry(self, *, retries_taken: int, max_retries: int, options: Any, response: Any) -> None:
        attempt = current_attempt()
        if attempt is None:
            await super()._sleep_for_retry(  # type: ignore[misc]
                retries_taken=retries_taken, max_retries=max_retries, options=options, response=response
            )
        else:
            await attempt.sleep_async(self._failure(attempt, options, response))

    def _made(self) -> None:
        super()._made()
        http_client = self._client  # type: ignore[attr-defined]
        if type(http_client).__name__ == _SDK_MADE:
            hooks = http_client.event_hooks
            http_client.event_hooks = {**hooks, "response": [*hooks["response"], _read_error]}


async def _read_error(response: Any) -> None:
    """Have the body of an error there when the SDK's hooks, which cannot await, look at it; also of a stream's."""
    if response.status_code >= 400:
        await response.aread()
