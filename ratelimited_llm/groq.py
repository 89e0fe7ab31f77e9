"""The door to Groq: the SDK's client, queued, and everything else of the SDK as it is.

from ratelimited_llm.groq import Groq, RateLimitError        # was: from groq import Groq, RateLimitError
"""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    import groq as _groq
except ImportError as error:
    raise ImportError('the Groq door needs the groq package: pip install "ratelimited-llm[groq]"') from error

from .client import QueuedClient
from .mirror import mirror

if TYPE_CHECKING:
    from groq import *  # noqa: F403


class Groq(QueuedClient, _groq.Groq):  # type: ignore[no-redef,type-arg]
    """`groq.Groq`, queued; takes the SDK's arguments and those of `ratelimited_llm.OpenAI`."""

    _provider_name = "groq"
    _endpoints = ("/chat/completions", "/embeddings", "/audio/speech", "/audio/transcriptions", "/audio/translations")


Client = Groq  # type: ignore[misc]

mirror(__name__, _groq)
