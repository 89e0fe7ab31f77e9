"""The door to OpenAI: the SDK's clients, queued, and everything else of the SDK as it is.

from ratelimited_llm.openai import OpenAI        # was: from openai import OpenAI
from ratelimited_llm import openai               # was: import openai
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import openai as _openai
from openai import _legacy_response, _module_client, _response  # noqa: F401 - the raw classes are looked up there

from .async_client import AsyncQueuedClient
from .client import QueuedClient
from .mirror import mirror

_ENDPOINTS = (
    "/chat/completions",
    "/completions",
    "/responses",
    "/embeddings",
    "/moderations",
    "/images/generations",
    "/images/edits",
    "/images/variations",
    "/audio/speech",
    "/audio/transcriptions",
    "/audio/translations",
)


class OpenAI(QueuedClient[Any], _openai.OpenAI):
    """`openai.OpenAI`, queued: each call that spends rate limit returns at once a future that is also its response.

    Takes the SDK's arguments, and of its own, all optional:

    Args:
        rpm, tpm, rpd, tpd, itpm, otpm: limits per minute and day; what is not given is learned from the answers.
            (`max_requests_per_minute` and the like are read too.)
        max_concurrency, min_interval, burst: calls in flight, seconds between sends, requests that may go at once.
        share, safety_margin: the part of every limit that is this process's, and the part of that to leave unused.
        limits: all of these as one `RateLimits` value.
        mode: "future" (the default), or "blocking" to wait in the call and return the SDK's plain object.
        priority, tenant, deadline, max_wait: of every call; see `with_options`, which sets them for some.
        max_queue, max_queue_per_tenant, on_full: caps on what may wait, and "block" or "raise" when reached.
        ageing: seconds of waiting that improve a call's priority by one number; None for strict priority.
        weights: shares of the tenants that are not 1.0.
        size_classes: `SizeClasses` for turns by the size of calls; None for none.
        estimator: a function of the request body that answers its prompt tokens; None to estimate and learn.
        journal: path of the file that makes a run resumable (or a `Journal`); None for the one that
            `RATELIMITED_LLM_JOURNAL` names, if it does.
        journal_max_age: seconds after which an answer in it no longer counts; None for never.
        journal_store: "all" keeps requests too, "responses" only the answers.
        queue: the address of a shared queue, "dramatiq+redis://host/0" or "celery+redis://host/0", whose workers
            (`ratelimited-llm worker`) send the calls: keys, base URLs, limits and max_cost are theirs then. None for
            the one that `RATELIMITED_LLM_QUEUE` names, if it does; False for none.
        prices: US dollars per million tokens by model, {"gpt-4.1-mini": (0.40, 1.60)}; what is not there is looked up
            in genai-prices, if it is installed (the extra "cost").
        max_cost: US dollars that the calls of this client may cost; see `Spending` for what is promised. Calls that
            could pass it end with CostLimitReached.
        progress: "auto", "bar", "plain", "log", "notebook", or False for none: what is shown while the script waits.
        on_interrupt: what Ctrl-C does to the queue: "cancel", "keep", or None for what is usual (a script cancels it, a
            notebook keeps it).

    Raises:
        ValueError, TypeError: at once, for a limit or option that makes no sense.
        JournalError: the file is no journal, or cannot be made.
    """

    _provider_name = "openai"
    _endpoints = _ENDPOINTS


class AzureOpenAI(QueuedClient[Any], _openai.AzureOpenAI):
    """`openai.AzureOpenAI`, queued; see `OpenAI`."""

    _provider_name = "azure"
    _endpoints = _ENDPOINTS


class AsyncOpenAI(AsyncQueuedClient[Any], _openai.AsyncOpenAI):
    """`openai.AsyncOpenAI`, queued: `await` waits for the call's turn, then for its answer; arguments as `OpenAI`."""

    _provider_name = "openai"
    _endpoints = _ENDPOINTS


class AsyncAzureOpenAI(AsyncQueuedClient[Any], _openai.AsyncAzureOpenAI):
    """`openai.AsyncAzureOpenAI`, queued; see `AsyncOpenAI`."""

    _provider_name = "azure"
    _endpoints = _ENDPOINTS


Client = OpenAI
AsyncClient = AsyncOpenAI


# These two are OpenAI and AzureOpenAI of this module, as the SDK's are of the SDK's.
class _ModuleClient(OpenAI, _openai._ModuleClient):
    """The client behind `openai.chat.completions.create(...)`; reads the SDK module's settings as they are."""

    _provider_name = "openai"


class _AzureModuleClient(AzureOpenAI, _openai._AzureModuleClient):
    """The same when `openai.api_type` is "azure"."""

    _provider_name = "azure"


_module_lock = threading.Lock()
_made: list[Any] = []


def _client() -> Any:
    """The module-level client, made by the SDK's own rules but of our classes."""
    with _module_lock:
        if not _made:
            ours = {"_client": None, "_ModuleClient": _ModuleClient, "_AzureModuleClient": _AzureModuleClient}
            kept = {name: getattr(_openai, name) for name in ours}
            try:
                vars(_openai).update(ours)
                _made.append(_openai._load_client())
            finally:
                vars(_openai).update(kept)  # `import openai` elsewhere stays the plain one
        return _made[0]


def _resource(name: str) -> Any:
    return lambda: getattr(_client(), name)


mirror(
    __name__,
    _openai,
    {
        name: _resource(name)
        for name in vars(_module_client)
        if not name.startswith("_")
        and hasattr(_openai, name)
        and type(vars(_module_client)[name]).__name__.endswith("Proxy")
    },
)

if TYPE_CHECKING:
    # After our own classes, as mypy keeps what it saw first; and these again, as pyright keeps the last import.
    from openai import *  # type: ignore[assignment]  # noqa: F403, I001
    from openai import (  # the settings of the module client, and what it can be asked
        api_key as api_key,
        api_type as api_type,
        api_version as api_version,
        azure_ad_token as azure_ad_token,
        azure_ad_token_provider as azure_ad_token_provider,
        azure_endpoint as azure_endpoint,
        base_url as base_url,
        default_headers as default_headers,
        default_query as default_query,
        http_client as http_client,
        max_retries as max_retries,
        organization as organization,
        project as project,
        timeout as timeout,
        webhook_secret as webhook_secret,
    )
    from openai._module_client import *  # noqa: F403
    from .openai import AsyncOpenAI as AsyncClient, OpenAI as Client  # noqa: F401
