"""An answer out of the journal, made into the SDK's own object again: the SDK processes it as if it had just come."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

from ..stores.journal import Recorded
from .snapshot import given_only

__all__ = ["recorded_answer", "replay"]

# httpx decodes the body, and the rest is about the connection that it came by.
_NOT_KEPT = frozenset({"content-encoding", "content-length", "transfer-encoding", "connection"})


def recorded_answer(response: Any, body: bytes, sent_at: float, *, as_sent: bool = False) -> Recorded:
    """What the journal keeps of an httpx response.

    Args:
        response: its status and headers.
        body: its content; as it came over the wire when `as_sent`, so that its encoding is kept too.
        sent_at: monotonic seconds when it was sent.
        as_sent: see `body`.
    """
    dropped = _NOT_KEPT - {"content-encoding"} if as_sent else _NOT_KEPT
    headers = tuple((name, value) for name, value in response.headers.multi_items() if name.lower() not in dropped)
    return Recorded(response.status_code, headers, body, time.monotonic() - sent_at)


def replay(client: Any, cast_to: Any, options: Any, stream: bool, stream_cls: Any, recorded: Recorded) -> Any:
    """What the SDK's `request()` would have returned for this answer; no attempt is made, and no middleware runs.

    Raises:
        Exception: the SDK cannot make sense of it (it is of another version, say).
    """
    override = getattr(client, "_maybe_override_cast_to", None)
    if override is not None:
        cast_to = override(cast_to, options)
    sent = options.model_copy() if hasattr(options, "model_copy") else options.copy()
    sent.json_data = given_only(options.json_data)
    request = client._build_request(sent)
    httpx = sys.modules[type(request).__module__.partition(".")[0]]
    response = httpx.Response(recorded.status, headers=list(recorded.headers), content=recorded.body, request=request)
    response.elapsed = timedelta(seconds=recorded.seconds)
    return client._process_response(
        cast_to=cast_to, options=options, response=response, stream=stream, stream_cls=stream_cls
    )
