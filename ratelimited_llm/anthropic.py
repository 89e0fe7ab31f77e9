"""The door to Anthropic: the SDK's client, queued, and everything else of the SDK as it is.

    from ratelimited_llm.anthropic import Anthropic        # was: from anthropic import Anthropic
"""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    import anthropic as _anthropic
except ImportError as error:
    raise ImportError('the Anthropic door needs the anthropic package: pip install "ratelimited-llm[anthropic]"') from error

from .client import QueuedClient
from .mirror import mirror

if TYPE_CHECKING:
    from anthropic import *  # noqa: F403


class Anthropic(QueuedClient, _anthropic.Anthropic):
    """`anthropic.Anthropic`, queued; takes the SDK's arguments and those of `ratelimited_llm.OpenAI`."""

    _provider = "anthropic"
    _endpoints = ("/v1/messages", "/v1/complete")


Client = Anthropic

mirror(__name__, _anthropic)
