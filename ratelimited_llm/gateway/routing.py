"""Where a path of the gateway leads: which provider, and which path there.

OPENAI_BASE_URL=http://host/v1          /v1/chat/completions          openai
GROQ_BASE_URL=http://host               /openai/v1/chat/completions   groq
ANTHROPIC_BASE_URL=http://host          /v1/messages                  anthropic, as are other paths below /v1 when
                                                                      `anthropic-version` or `x-api-key` is there
AZURE_OPENAI_ENDPOINT=http://host       /openai/deployments/...       azure
with the provider's name before it      /openai/..., /groq/..., /anthropic/..., /azure/...
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

__all__ = ["Destination", "destination", "shape_of"]

_STEPS = re.compile(r"(^|/)\.\.?(/|$)|//|\\|[\x00-\x1f\x7f]")
_SAFE = "/:@!$&'()*+,;=~-._"


@dataclass(frozen=True)
class Destination:
    """A provider's name, and the path and query as its SDK's client is asked for them."""

    upstream: str
    path: str


def destination(path: str, query: str, headers: dict[str, str]) -> Destination | None:
    """Where a request goes; None when nothing of the gateway is there.

    Args:
        path: decoded, below the place where the gateway is mounted.
        query: as it came, without the question mark.
        headers: by their small names.
    """
    if _STEPS.search(path) or path.startswith("/v1/queue/"):
        return None  # it would lead elsewhere than it looks; or is the gateway's own, and no path of those it has
    found = _found(path, headers)
    if found is None or len(found[1]) < 2:
        return None
    quoted = quote(found[1], safe=_SAFE)
    return Destination(found[0], f"{quoted}?{query}" if query else quoted)


def _found(path: str, headers: dict[str, str]) -> tuple[str, str] | None:
    for name, prefix in (("groq", "/groq"), ("anthropic", "/anthropic"), ("azure", "/azure")):
        if path.startswith(prefix + "/"):
            return name, _rest(name, path.removeprefix(prefix))
    if path.startswith("/openai/v1/"):  # groq's SDK says so itself
        return "groq", path
    if path.startswith("/openai/deployments/"):
        return "azure", path.removeprefix("/openai")
    if path.startswith("/openai/"):
        return "openai", path.removeprefix("/openai")
    if path.startswith("/v1/"):
        name = "anthropic" if _anthropic(path, headers) else "openai"
        return name, path if name == "anthropic" else path.removeprefix("/v1")
    return None


def _rest(name: str, path: str) -> str:
    """The path as the SDK of a provider writes it, whichever part of it the base URL had."""
    if name == "groq" and not path.startswith("/openai/"):
        return "/openai" + path if path.startswith("/v1/") else "/openai/v1" + path
    if name == "azure":
        return path.removeprefix("/openai").removeprefix("/v1")
    return path


def _anthropic(path: str, headers: dict[str, str]) -> bool:
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return True
    return "anthropic-version" in headers or "x-api-key" in headers


def shape_of(path: str, headers: dict[str, str]) -> str:
    """Whose error objects the client reads: "anthropic", or "openai" for all others."""
    found = _found(path, headers)
    anthropic = found[0] == "anthropic" if found is not None else "anthropic-version" in headers
    return "anthropic" if anthropic else "openai"
