"""A client's request as the SDK is asked for it: in its turn, whole or as a stream, or straight through."""

from __future__ import annotations

import json
import sys
from typing import Any

from .answers import kinds_for
from .errors import Refusal
from .headers import for_provider
from .upstreams import CONTENT_TYPE

__all__ = ["Outgoing"]


class Outgoing:
    """A request as the SDK's client is asked for it.

    Attributes:
        queues: whether it spends rate limit.
        streams: whether its answer comes in pieces.

    Raises:
        Refusal: the body is no JSON object where it has to be one (400).
    """

    def __init__(
        self, client: Any, method: str, path: str, headers: dict[str, str], body: bytes, pass_through: bool
    ) -> None:
        self._client = client
        self._method = method
        self._path = path
        bare = path.partition("?")[0].rstrip("/")
        self.queues = method == "post" and bare.endswith(client._endpoints)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        binary = not self.queues or kind.startswith("multipart/")
        told = {} if binary else _json(body)
        self.streams = told.get("stream") is True or bare.endswith("/audio/speech")
        self._headers = for_provider(headers, account=pass_through)
        if binary and body and kind:
            self._headers[CONTENT_TYPE] = headers["content-type"]
        self._body: dict[str, Any] = {"body": told} if told else {"content": body} if body else {}

    async def whole(self) -> Any:
        """Wait for its turn and for all of its answer; answers the SDK's httpx response."""
        kinds = kinds_for(self._client._sdk)
        answer = await self._client.post(
            self._path, cast_to=kinds.answer, options={"headers": self._headers}, **self._body
        )
        return answer.http_response

    async def stream(self) -> Any:
        """Wait for its turn; answers a stream of bytes."""
        kinds = kinds_for(self._client._sdk)
        headers = {**self._headers, "accept-encoding": "identity"}
        return await self._client.post(
            self._path, cast_to=object, stream=True, stream_cls=kinds.stream, options={"headers": headers}, **self._body
        )

    async def straight(self) -> Any:
        """Send it once, now; answers a stream of bytes."""
        sdk = self._client._sdk
        construct = sys.modules[f"{sdk.__name__}._models"].FinalRequestOptions.construct
        body = {} if self._method == "get" else self._body
        options = construct(method=self._method, url=self._path, headers=self._headers, max_retries=0, **body)
        return await self._client.request(object, options, stream=True, stream_cls=kinds_for(sdk).stream)


def _json(body: bytes) -> dict[str, Any]:
    """The body of a request that spends rate limit.

    Raises:
        Refusal: it is no JSON object (400).
    """
    try:
        told = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body of this request is no JSON", "bad_json") from None
    if not isinstance(told, dict):
        raise Refusal(400, "the body of this request is no JSON object", "bad_json")
    return told


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")
