"""A local gateway: any client of OpenAI, Groq or Anthropic, in any language, is queued and paced by its base URL.

    ratelimited-llm serve --port 8089 --rpm 500
    OPENAI_BASE_URL=http://127.0.0.1:8089/v1  GROQ_BASE_URL=http://127.0.0.1:8089  ANTHROPIC_BASE_URL=...:8089

or inside a service: `app.mount("/llm", create_app(rpm=500))`. Needs the extra "server" (starlette, uvicorn).

settings    what it is told
app         the Starlette app
serving     a server for it, and its end
gateway     what stands behind the routes
routing     where a path leads
guard       who may use it
headers     which headers go through
upstreams   the providers and our clients for them
answers     answers as bytes, with usage for the books
relay       one request and its answer
outgoing    the request as the SDK is asked for it
connections many small pools instead of a large one
queue_api   requests by id, and what operators do
stats       what it tells about itself
dashboard   a page that shows it
history     what has happened in the last quarter of an hour
errors      answers on its own account
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import create_app
    from .serving import serve

__all__ = ["create_app", "serve"]

_HOMES = {"create_app": "app", "serve": "serving"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "anyio"):
            raise
        raise ImportError('the gateway needs its extra: pip install "ratelimited-llm[server]"') from error
