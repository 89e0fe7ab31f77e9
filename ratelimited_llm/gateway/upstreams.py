"""The providers behind a gateway: where they are, by whose key they are asked, and our clients for them."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections import OrderedDict
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..async_client import AsyncQueuedClient
from ..seam import SDKClient
from .connections import spread
from .errors import Refusal

if TYPE_CHECKING:
    from ..calls.queued_call import QueuedCall
    from .settings import Settings

__all__ = ["CONTENT_TYPE", "UPSTREAMS", "Upstream", "queued_call"]

COPIES = 256  # of a client, one for each way of queueing and each key
TIMEOUT = 600.0  # seconds of an attempt, as the openai and anthropic SDKs have it; clients give up as they wish
CONNECTIONS = 4096
# How a body that is bytes says what it is: the SDKs make a form of their own of whatever calls itself multipart.
CONTENT_TYPE = "x-ratelimited-content-type"
UNUSED_KEY = "sk-of-the-client"  # with --pass-through-keys; never sent

# Name, module, classes, and the variables for its key and base URL, which are the SDK's own.
UPSTREAMS = {
    "openai": ("openai", "OpenAI", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
    "groq": ("groq", "Groq", "GROQ_API_KEY", "GROQ_BASE_URL"),
    "anthropic": ("anthropic", "Anthropic", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    "azure": ("openai", "AzureOpenAI", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT"),
}
_PUBLIC = {
    "openai": "https://api.openai.com/v1", "groq": "https://api.groq.com", "anthropic": "https://api.anthropic.com",
    "azure": "",
}  # fmt: skip

_noted: ContextVar[list[Any] | None] = ContextVar("ratelimited_llm_gateway_call", default=None)


def queued_call() -> list[Any]:
    """Where the call is noted that this task makes next, if it is queued: an empty list until then."""
    note: list[Any] = []
    _noted.set(note)
    return note


class _Noting(AsyncQueuedClient[SDKClient]):
    """The part of an async door that is ours, which also says which queued call a request has become."""

    __slots__ = ()  # see Looking

    def _enqueue(self, call: QueuedCall) -> Any:
        note = _noted.get()
        if note is not None:
            note.append(call)
        return super()._enqueue(call)

    async def _prepare_request(self, request: Any) -> None:
        """The SDK's hook before a request goes out."""
        await super()._prepare_request(request)  # type: ignore[misc]
        kind = request.headers.pop(CONTENT_TYPE, None)
        if kind is not None:
            request.headers["content-type"] = kind


@lru_cache(maxsize=8)
def _door(module: str, name: str) -> Any:
    """The async door of a provider, with calls noted; built as the doors are, whose layout has to be the SDK's."""
    door = getattr(importlib.import_module(f"ratelimited_llm.{module}"), f"Async{name}")
    own = {"_provider_name": door._provider_name, "_endpoints": door._endpoints, "__module__": __name__}
    return type(f"Noted{name}", (_Noting, door._base), own)


class Upstream:
    """One provider, and the clients for it, made when the first request comes.

    Args:
        name: of `UPSTREAMS`.
        settings: of the gateway.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.module, self.door_name, key, url = UPSTREAMS[name]
        self._settings = settings
        self._url = settings.base_urls.get(name) or os.environ.get(url) or _PUBLIC[name]
        self._key = settings.api_keys.get(name) or os.environ.get(key)
        self._variable = key
        self._loop: asyncio.AbstractEventLoop | None = None
        self.client: Any = None  # the async one
        self.sync_client: Any = None  # of the queue manager
        self._copies: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    @property
    def configured(self) -> bool:
        """Whether requests can be sent there."""
        return bool(self._url) and (self._settings.pass_through_keys or bool(self._key))

    @property
    def shown_url(self) -> str:
        """The base URL, without a user or password that may be in it."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if self._url else ""

    @property
    def sdk(self) -> Any:
        """The SDK's module."""
        return sys.modules[self.module]

    def for_call(self, options: dict[str, Any], key: str | None) -> Any:
        """The client for calls that are queued like this.

        Args:
            options: of ours for calls, by name; checked.
            key: the client's own, that goes upstream; None for the gateway's.

        Raises:
            Refusal: there is no key, or the SDK is not installed.
        """
        client = self._made()
        if not options and key is None:
            return client
        place = (key, *sorted(options.items()))
        found = self._copies.get(place)
        if found is None:
            changes = dict(options) if key is None else {**options, "api_key": key}
            found = self._copies[place] = client.with_options(**changes)
            if len(self._copies) > COPIES:
                self._copies.popitem(last=False)
        else:
            self._copies.move_to_end(place)
        return found

    def _made(self) -> Any:
        loop = asyncio.get_running_loop()
        if self.client is None or self._loop is not loop:
            if not self.configured:
                raise Refusal(503, f"this gateway has no key for {self.name}: set {self._variable} where it is "
                              f"started", "not_configured", headers=(("x-should-retry", "false"),))  # fmt: skip
            self._copies.clear()
            self.client, self._loop = self._make_async(), loop
        return self.client

    def _make_async(self) -> Any:
        door = self._import(lambda: _door(self.module, self.door_name))
        httpx = sys.modules[self.sdk.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0]]
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=256, keepalive_expiry=30.0)
        http_client = self.sdk.DefaultAsyncHttpxClient(limits=limits, event_hooks={"response": [_read_error]})
        client = door(**self._arguments(), http_client=http_client)
        spread(http_client)  # afterwards: the door asks the client how wide it is
        return client

    def sync(self) -> Any:
        """A client for threads, with the same limits, for the queue manager.

        Raises:
            Refusal: there is no key, or the SDK is not installed.
        """
        if self.sync_client is None:
            if not self._key or not self._url:
                raise Refusal(503, f"this gateway has no key of its own for {self.name}", "not_configured")
            door = self._import(
                lambda: getattr(importlib.import_module(f"ratelimited_llm.{self.module}"), self.door_name)
            )
            self.sync_client = door(**self._arguments(), progress=False)
        return self.sync_client

    def _import(self, find: Any) -> Any:
        try:
            return find()
        except ImportError:
            raise Refusal(
                503, f'the gateway has no {self.module} package: pip install "ratelimited-llm[{self.module}]"',
                "not_configured", headers=(("x-should-retry", "false"),),
            ) from None  # fmt: skip

    def _arguments(self) -> dict[str, Any]:
        where = "azure_endpoint" if self.name == "azure" else "base_url"
        given: dict[str, Any] = {where: self._url, "api_key": self._key or UNUSED_KEY, "timeout": TIMEOUT}
        if self.name == "azure":
            given["api_version"] = os.environ.get("OPENAI_API_VERSION") or "2024-10-21"
        return {**given, **self._settings.client_options()}

    async def aclose(self) -> None:
        """Close the clients; safe a second time."""
        client, self.client = self.client, None
        self._copies.clear()
        if client is not None:
            await client.close()
        sync_client, self.sync_client = self.sync_client, None
        if sync_client is not None:
            await asyncio.to_thread(sync_client.close)


async def _read_error(response: Any) -> None:
    """Have the body of an error there when it is judged, also of a stream's."""
    if response.status_code >= 400:
        await response.aread()
