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

    def request(self, cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None) -> Any:
        """Queue what spends rate limit, and send the rest as the SDK does."""
        send = super().request  # type: ignore[misc]
        call = self._queued(send, cast_to, options, stream, stream_cls)
        if call is None:
            return send(cast_to, options, stream=stream, stream_cls=stream_cls)
        if self._wants_answer(call):
            return call.in_own_thread()
        return call.as_future()

    def _wants_answer(self, call: QueuedCall) -> bool:
        """Whether who made the call gets the answer and no future."""
        if self._runtime.options.mode == "blocking" or in_call() or wants_answers():
            return True
        if consumed_at_once(call.options, call.cast_to, call.stream):
            return True
        # The SDK's own helper code was written for answers, and gets answers.
        return helper_frame(self._sdk.__name__, 2)

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
