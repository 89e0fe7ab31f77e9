"""One line of a batch becomes one call of a client, and its answer stays the provider's JSON."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from .lines import Line

__all__ = ["Answer", "Calls"]


class Answer:
    """The provider's JSON, and what came with it."""

    __slots__ = ("body", "request_id", "status")

    def __init__(self, body: Any, status: int, request_id: str | None) -> None:
        self.body = body
        self.status = status
        self.request_id = request_id

    def __getattr__(self, name: str) -> Any:
        # What counts tokens and money reads `usage` and `model`, as of any answer.
        if name[:1] != "_" and isinstance(self.body, dict) and name in self.body:
            return self.body[name]
        raise AttributeError(name)


class Calls:
    """Sends lines through a client.

    Args:
        client: a door; the path of an endpoint is its provider's.

    Raises:
        TypeError: it is none.
    """

    def __init__(self, client: Any) -> None:
        if not hasattr(client, "_runtime"):
            raise TypeError(f"a batch needs a client of this package, not {type(client).__name__} of another")
        # In blocking mode each call would wait for its answer.
        self._client = client.with_options(mode="future")
        self._cast_to = _answer_class(type(client)._sdk.BaseModel)
        key = getattr(client, "api_key", None)
        self.secret: str | None = key if isinstance(key, str) else None  # which no row may show
        self._prefix = {"groq": "/openai/v1", "anthropic": "/v1"}.get(type(client)._provider_name, "")

    def send(self, line: Line) -> Any:
        """Submit it: the future of its `Answer`, or the answer itself when the queue is switched off.

        Raises:
            ValueError: this client has no such endpoint, or the body cannot be sent.
            Exception: what the client refuses it with.
        """
        path = self._prefix + line.url.removeprefix("/v1")
        if not path.endswith(self._client._endpoints):
            raise ValueError(f"{self._client._provider_name} has no endpoint {line.url}")
        return self._client.post(path, cast_to=self._cast_to, body=line.body)


@lru_cache(maxsize=16)
def _answer_class(model: type) -> type:
    """A class that an SDK accepts as the type of an answer, and that leaves the JSON as it is.

    Building the SDK's own types costs more than all else about a small answer, and they lose how fields were spelled.
    """

    def build(cls: type, *, response: Any, data: Any) -> Answer:
        headers = response.headers
        return Answer(data, response.status_code, headers.get("x-request-id") or headers.get("request-id"))

    return type(model)("Answer", (model,), {"build": classmethod(build), "__module__": __name__})
