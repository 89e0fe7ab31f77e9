"""Which requests spend rate limit, and whose: told from the method and the URL alone."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from ..providers import DIALECTS, Dialect, dialect_for

__all__ = ["Target", "add_hosts", "forget_hosts", "identity_of", "target_of"]

# The endings of the POSTs that spend rate limit; the longer ones first, since the first that fits is taken.
ENDPOINTS = (
    "/chat/completions", "/completions", "/responses", "/embeddings", "/moderations", "/images/generations",
    "/images/edits", "/images/variations", "/audio/speech", "/audio/transcriptions", "/audio/translations",
    "/messages", "/complete",
)  # fmt: skip
ANTHROPIC = ("/messages", "/complete")
# A server of the user's own may well have "/messages": on loopback, a path must look like an API's.
_API_PATH = re.compile(r"/(v\d\w*|openai)/")
_DEPLOYMENT = re.compile(r"(?P<base>.*/openai/)deployments/(?P<model>[^/]+)(?P<rest>/.+)")
_DEFAULT_PORTS = {"http": 80, "https": 443}

_configured: dict[str, str | None] = {}  # host, or host:port -> the dialect's name


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes, in the words of the client that would make it.

    Attributes:
        provider, base_url: as that client's, so that both have the same limits.
        path: of the URL, from the base URL on.
        model: where the URL names it (Azure's deployments); "" where the body does.
        dialect: how the provider talks.
    """

    provider: str
    base_url: str
    path: str
    model: str
    dialect: Dialect = field(repr=False)


def target_of(method: object, url: object) -> Target | None:
    """Say where a request goes; None when it spends no rate limit that is known here, whatever else it is."""
    if isinstance(url, bytes):
        url = url.decode("utf-8", "replace")
    if not isinstance(method, str) or method.upper() != "POST" or not isinstance(url, str):
        return None
    return _target(url.strip().partition("#")[0].partition("?")[0])  # there may be a key behind the "?"


@lru_cache(maxsize=1024)
def _target(url: str) -> Target | None:
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:  # requests will say so
        return None
    path = parts.path.rstrip("/")
    endpoint = next((each for each in ENDPOINTS if path.endswith(each)), None)
    if parts.scheme not in _DEFAULT_PORTS or not host or endpoint is None:
        return None
    known, name = _known(host, port)
    if not known:
        if not _is_loopback(host) or not (endpoint == ENDPOINTS[0] or _API_PATH.search(path)):
            return None
        name = "anthropic" if endpoint in ANTHROPIC else "azure" if _DEPLOYMENT.fullmatch(path) else None
    return _split(_origin(parts, host, port), path, endpoint, name)


def _known(host: str, port: int | None) -> tuple[bool, str | None]:
    """Whether a host is an LLM provider's, and the name of its dialect if it has one of its own."""
    at = host
    while at:
        for place in (f"{at}:{port}", at):
            if place in _configured:
                return True, _configured[place]
        at = at.partition(".")[2]
    dialect = dialect_for(None, host)
    return dialect.name in _HOSTED, dialect.name


_HOSTED = frozenset(DIALECTS) - {DIALECTS["compatible"].name}


def _is_loopback(host: str) -> bool:
    if host in ("localhost", "host.docker.internal", "0.0.0.0") or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _origin(parts: SplitResult, host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + ("" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}")


def _split(origin: str, path: str, endpoint: str, name: str | None) -> Target:
    """Divide the URL as the SDK of this provider does: what its client has for `base_url`, and the rest."""
    dialect = DIALECTS["compatible"] if name is None else DIALECTS[name]
    deployment = _DEPLOYMENT.fullmatch(path) if name == "azure" else None
    if deployment is not None:
        return Target("azure", _base(origin, deployment["base"]), deployment["rest"], deployment["model"], dialect)
    for provider, inside in (("groq", "/openai/v1/"), ("anthropic", "/v1/")):
        if name == provider and inside in path:
            at = path.index(inside)
            return Target(provider, _base(origin, path[:at]), path[at:], "", dialect)
    # The others are used through OpenAI's client.
    return Target("openai", _base(origin, path.removesuffix(endpoint)), endpoint, "", dialect)


def _base(origin: str, path: str) -> str:
    """A base URL as the SDKs write it: with a slash at its end, but for one that has no path."""
    path = path.rstrip("/")
    return f"{origin}{path}/" if path else origin


def identity_of(request: Any) -> str:
    """Whose limits a prepared request spends: the key and what else tells accounts apart, as its client has them."""
    headers, parts = request.headers, []
    for name in ("x-api-key", "api-key", "Authorization", "OpenAI-Organization", "OpenAI-Project"):
        value = headers.get(name)
        if value:
            text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
            parts.append(text[7:].strip() if text[:7].lower() == "bearer " else text.strip())
    if not parts and "key=" in request.url:  # Google's way
        parts.extend(parse_qs(urlsplit(request.url).query).get("key", ()))
    return "\n".join(parts)


def add_hosts(hosts: str | Iterable[str] | Mapping[str, str | None]) -> None:
    """Take these for LLM providers too.

    Args:
        hosts: names ("llm.example.com", with or without a port; their subdomains are meant too) or URLs; or a mapping
            from them to whose rules they follow ("openai", "groq", ...; None for OpenAI-compatible ones).

    Raises:
        ValueError: for what is no host, or an unknown provider, with the known ones.
    """
    if isinstance(hosts, str):
        hosts = [hosts]
    if not isinstance(hosts, Iterable):
        raise TypeError(f"hosts must be a name, several of them, or a mapping, not {hosts!r}")
    named = dict(hosts) if isinstance(hosts, Mapping) else dict.fromkeys(hosts)
    found = {}
    for text, provider in named.items():
        if provider is not None and provider not in DIALECTS:
            raise ValueError(
                f"hosts: unknown provider {provider!r} of {text!r}: use {', '.join(sorted(DIALECTS))}, or None"
            )
        found[_place(text)] = provider
    _configured.update(found)
    _target.cache_clear()


def _place(text: object) -> str:
    try:
        if not isinstance(text, str):
            raise ValueError
        text.encode()  # half a surrogate pair is in no name
        parts = urlsplit(text if "//" in text else f"//{text}")
        host, port = (parts.hostname or "").removeprefix("*.").rstrip("."), parts.port
        if not host or any(sign.isspace() for sign in host):
            raise ValueError
    except ValueError:
        raise ValueError(f'hosts must be names such as "llm.example.com" or "10.0.0.5:8000", not {text!r}') from None
    return host if port is None else f"{host}:{port}"


def forget_hosts() -> None:
    """Take nobody for an LLM provider but those known from the start."""
    _configured.clear()
    _target.cache_clear()
