"""The door to Anthropic: the SDK's client, queued, and everything else of the SDK as it is.

from ratelimited_llm.anthropic import Anthropic        # was: from anthropic import Anthropic
"""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    import anthropic as _anthropic
except ImportError as error:
    needed = 'the Anthropic door needs the anthropic package: pip install "ratelimited-llm[anthropic]"'
    raise ImportError(needed) from error

from .client import QueuedClient
from .mirror import mirror

if TYPE_CHECKING:
    from anthropic import *  # noqa: F403


class Anthropic(QueuedClient, _anthropic.Anthropic):  # type: ignore[no-redef,type-arg]
    """`anthropic.Anthropic`, queued; takes the SDK's arguments and those of `ratelimited_llm.OpenAI`."""

    _provider_name = "anthropic"
    _endpoints = ("/v1/messages", "/v1/complete")


Client = Anthropic  # type: ignore[misc]

mirror(__name__, _anthropic)
