"""QueuedClient: a door whose calls threads wait for; each becomes a future at once, or waits in its caller's thread."""

from __future__ import annotations

from typing import Any

from .calls.attempt import current_attempt
from .calls.queued_call import QueuedCall
from .calls.sdk_options import consumed_at_once
from .conveniences import Conveniences
from .engine.jobs import in_call
from .engine.plain_answers import wants_answers
from .engine.submission_site import helper_frame
from .seam import SDKClient, Seam

__all__ = ["QueuedClient"]


class QueuedClient(Seam[SDKClient], Conveniences[SDKClient]):
    """The part of a door that is ours; see the doors for what users get."""

    __slots__ = ()  # see Looking

    def _enqueue(self, call: QueuedCall) -> Any:
        """The call's future; or its answer, where whoever made the call can use nothing else."""
        if (
            self._runtime.options.mode == "blocking"
            or in_call()
            or wants_answers()
            or consumed_at_once(call.options, call.cast_to, call.stream)
            or helper_frame(self._sdk.__name__, 2)  # the SDK's own helper code was written for answers
        ):
            return call.in_own_thread()
        return call.as_future()

    def _build_request(self, options: Any, *, retries_taken: int = 0, **kwargs: Any) -> Any:
        request = super()._build_request(options, retries_taken=retries_taken, **kwargs)
        attempt = current_attempt()
        if attempt is not None:
            attempt.keep_in_time(request)
        return request

    def _sleep_for_retry(self, *, retries_taken: int, max_retries: int, options: Any, response: Any) -> None:
        attempt = current_attempt()
        if attempt is None:
            super()._sleep_for_retry(  # type: ignore[misc]
                retries_taken=retries_taken, max_retries=max_retries, options=options, response=response
            )
        else:
            attempt.sleep(self._failure(attempt, options, response))
