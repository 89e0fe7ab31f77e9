"""The door to Anthropic: the SDK's client, queued, and everything else of the SDK as it is.

from ratelimited_llm.anthropic import Anthropic        # was: from anthropic import Anthropic
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import anthropic as _anthropic
except ImportError as error:
    needed = 'the Anthropic door needs the anthropic package: pip install "ratelimited-llm[anthropic]"'
    raise ImportError(needed) from error

from .async_client import AsyncQueuedClient
from .client import QueuedClient
from .mirror import mirror


class Anthropic(QueuedClient[Any], _anthropic.Anthropic):
    """`anthropic.Anthropic`, queued; takes the SDK's arguments and those of `ratelimited_llm.OpenAI`."""

    _provider_name = "anthropic"
    _endpoints = ("/v1/messages", "/v1/complete")


class AsyncAnthropic(AsyncQueuedClient[Any], _anthropic.AsyncAnthropic):
    """`anthropic.AsyncAnthropic`, queued: `await` waits for the call's turn, then for its answer."""

    _provider_name = "anthropic"
    _endpoints = Anthropic._endpoints


Client = Anthropic
AsyncClient = AsyncAnthropic

mirror(__name__, _anthropic)

if TYPE_CHECKING:
    # After our own classes, as mypy keeps what it saw first; and these again, as pyright keeps the last import.
    from anthropic import *  # type: ignore[assignment]  # noqa: F403, I001
    from .anthropic import AsyncAnthropic as AsyncClient, Anthropic as Client  # noqa: F401
