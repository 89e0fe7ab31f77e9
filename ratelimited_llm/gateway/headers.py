"""Which headers go through a gateway, in both directions, and what its own ones say."""

from __future__ import annotations

from collections.abc import Iterable

from ..options import CallOptions
from .errors import Refusal

__all__ = ["call_options", "decoded", "for_client", "for_provider", "tag_of"]

PREFIX = "x-ratelimited-"
_OF_CONNECTION = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
# Of a request: whose key it is says the gateway, and what the inner SDK says of itself is its own affair.
_NOT_SENT = _OF_CONNECTION | {
    "host", "content-length", "accept-encoding", "authorization", "x-api-key", "api-key", "cookie", "expect", "origin",
    "referer", "forwarded", "via", "user-agent", "content-type",
}  # fmt: skip
# Whose account pays: with the client's own key that is for the client to say, else for the gateway.
_OF_ACCOUNT = frozenset({"openai-organization", "openai-project"})
# Of an answer: its bytes come decoded, and what binds a browser to the provider's host does not hold here.
_NOT_RELAYED = _OF_CONNECTION | {
    "content-length", "content-encoding", "server", "date", "set-cookie", "alt-svc", "strict-transport-security",
    "report-to", "nel", "content-security-policy",
}  # fmt: skip

Headers = list[tuple[bytes, bytes]]


def decoded(raw: Headers) -> dict[str, str]:
    """The headers of a request by their small names; of several with one name the last."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}


def for_provider(headers: dict[str, str], *, account: bool) -> dict[str, str]:
    """What of a client's headers goes on to the provider.

    Args:
        headers: of the client.
        account: whether those go too that say whose account pays.
    """
    kept = {}
    for name, value in headers.items():
        if name in _NOT_SENT or name.startswith((PREFIX, "sec-")) or "stainless" in name:
            continue
        if name in _OF_ACCOUNT and not account:
            continue
        kept[name] = value
    return kept


def for_client(items: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """What of a provider's headers goes on to the client."""
    return [
        (name.lower(), value)
        for name, value in items
        if name.lower() not in _NOT_RELAYED and not name.lower().startswith("access-control-")
    ]


def call_options(headers: dict[str, str]) -> dict[str, object]:
    """What the `x-ratelimited-` headers say about a call, by the names of `CallOptions`; checked.

    Raises:
        Refusal: a value makes no sense (400, with what it should be).
    """
    given: dict[str, object] = {}
    priority = headers.get(PREFIX + "priority", "").strip()
    if priority:
        given["priority"] = int(priority) if priority.isdigit() and len(priority) < 4 else priority
    tenant = headers.get(PREFIX + "client", "").strip()
    if len(tenant) > 200:
        raise Refusal(400, f"{PREFIX}client is a name of at most 200 characters", "bad_header")
    if tenant:
        given["tenant"] = tenant
    if headers.get(PREFIX + "deadline"):
        given["deadline"] = _seconds(headers[PREFIX + "deadline"])
    tag = tag_of(headers)
    if tag:
        given["tag"] = tag
    try:
        CallOptions(**given)  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise Refusal(400, f"{PREFIX}* headers: {error}", "bad_header") from None
    return given


def tag_of(headers: dict[str, str]) -> str:
    """What an operator may cancel it by; "" for nothing."""
    return headers.get(PREFIX + "tag", "").strip()


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise Refusal(400, f"{PREFIX}deadline is a number of seconds, not {text[:40]!r}", "bad_header") from None
    if not 0 < value < 1e9:
        raise Refusal(400, f"{PREFIX}deadline is a number of seconds above 0, not {text[:40]}", "bad_header")
    return value
