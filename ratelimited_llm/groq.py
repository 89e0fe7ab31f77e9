"""The door to Groq: the SDK's client, queued, and everything else of the SDK as it is.

from ratelimited_llm.groq import Groq, RateLimitError        # was: from groq import Groq, RateLimitError
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import groq as _groq
except ImportError as error:
    raise ImportError('the Groq door needs the groq package: pip install "ratelimited-llm[groq]"') from error

from .async_client import AsyncQueuedClient
from .client import QueuedClient
from .mirror import mirror


class Groq(QueuedClient[Any], _groq.Groq):
    """`groq.Groq`, queued; takes the SDK's arguments and those of `ratelimited_llm.OpenAI`."""

    _provider_name = "groq"
    _endpoints = ("/chat/completions", "/embeddings", "/audio/speech", "/audio/transcriptions", "/audio/translations")


class AsyncGroq(AsyncQueuedClient[Any], _groq.AsyncGroq):
    """`groq.AsyncGroq`, queued: `await` waits for the call's turn, then for its answer."""

    _provider_name = "groq"
    _endpoints = Groq._endpoints


Client = Groq
AsyncClient = AsyncGroq

mirror(__name__, _groq)

if TYPE_CHECKING:
    # After our own classes, as mypy keeps what it saw first; and these again, as pyright keeps the last import.
    from groq import *  # type: ignore[assignment]  # noqa: F403, I001
    from .groq import AsyncGroq as AsyncClient, Groq as Client  # noqa: F401
