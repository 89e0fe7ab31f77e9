"""Who may use a gateway: whoever has its token; without one, programs of this machine, and no web page of another.

A page in a browser can send requests to loopback. What gives it away is the Origin header of another host, or, when
its own name was made to point to loopback (DNS rebinding), the Host header.
"""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from .errors import Refusal

__all__ = ["Guard", "is_loopback", "own_page"]

TOKEN_HEADER = "x-ratelimited-token"


def is_loopback(host: str) -> bool:
    """Whether a host name or address, with or without port and brackets, is this machine's own loopback."""
    name = host.strip().lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets requests in.

    Args:
        token: what they have to show; None for nothing.
        hosts: names that they may come to, without a token, beside loopback; "*" for any.
        pass_through: whether the client's key is for the provider, so that the token has a header of its own.
    """

    def __init__(self, token: str | None, hosts: tuple[str, ...] = (), *, pass_through: bool = False) -> None:
        self._token = None if token is None else token.encode()
        self._hosts = frozenset(host.lower() for host in hosts)
        self._pass_through = pass_through

    def check(self, headers: dict[str, str]) -> None:
        """Refuse who may not come in.

        Raises:
            Refusal: 401 without the token, 403 from elsewhere; in words that show neither.
        """
        if self._token is not None:
            if not any(hmac.compare_digest(shown.encode(), self._token) for shown in self._shown(headers)):
                where = f"the header {TOKEN_HEADER}" if self._pass_through else "the api key of your client"
                raise Refusal(401, f"this gateway wants its token: send it as {where}", "invalid_api_key")
            return
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._known(host):
            raise Refusal(403, "this gateway answers to loopback names only: start it with --token", "forbidden_host")
        if origin is not None and not self._known(urlsplit(origin).netloc):
            raise Refusal(403, "no web page of another host may use this gateway", "forbidden_origin")

    def _shown(self, headers: dict[str, str]) -> list[str]:
        names = (TOKEN_HEADER,) if self._pass_through else (TOKEN_HEADER, "authorization", "x-api-key", "api-key")
        return [key_of(headers[name]) for name in names if name in headers]

    def _known(self, host: str) -> bool:
        return "*" in self._hosts or is_loopback(host) or host.lower().partition(":")[0] in self._hosts


def own_page(headers: dict[str, str]) -> None:
    """Refuse an order that a page of another site, or of another port of this machine, made a browser send.

    Raises:
        Refusal: 403.
    """
    origin = headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
    if foreign or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refusal(403, "orders are taken from the gateway's own page only", "forbidden_origin")


def key_of(value: str) -> str:
    """The key in a header, with or without the word Bearer."""
    scheme, _, rest = value.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else value.strip()
