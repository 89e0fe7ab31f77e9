"""The address of a shared queue: which engine, which server, and which of the queues on it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

__all__ = ["QueueAddress"]

ENGINES = ("dramatiq", "celery")
SERVERS = {"redis": "redis", "rediss": "rediss", "unix": "unix", "valkey": "redis", "valkeys": "rediss"}
EXAMPLE = "dramatiq+redis://host:6379/0"
KEEP = 86_400.0  # seconds: a script that is started again the next morning finds its answers
VISIBILITY = 1_800.0  # seconds: three times what the SDKs give one attempt
OURS = ("name", "keep", "visibility")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class QueueAddress:
    """What `queue=` says. Its repr and `shown` name no password.

    Attributes:
        engine: "dramatiq" or "celery".
        server: the URL of the server, as redis-py takes it; may hold a password.
        name: of the queue, so that several can be on one server ("?name=", default "llm").
        keep: seconds that answers are kept ("?keep=", default a day).
        visibility: seconds after which Celery takes a job for lost ("?visibility=", default half an hour; it should be
            above the longest call). Dramatiq has heartbeats for that.
        shown: the address without what is secret.
    """

    engine: str
    server: str = field(repr=False)
    name: str = "llm"
    keep: float = KEEP
    visibility: float = VISIBILITY
    shown: str = ""

    @classmethod
    def parse(cls, text: object) -> QueueAddress:
        """Read an address such as "dramatiq+redis://user:password@host:6379/0?name=nightly&keep=3600".

        Raises:
            TypeError, ValueError: it is none; no message quotes what could be a password.
        """
        if not isinstance(text, str):
            raise TypeError(f'queue= takes the address of a queue, such as "{EXAMPLE}", not {type(text).__name__}')
        scheme, _, rest = text.strip().partition("://")
        engine, _, server = scheme.lower().partition("+")
        if engine not in ENGINES or server not in SERVERS or not rest:
            raise ValueError(
                f'queue= must look like "{EXAMPLE}": an engine ({" or ".join(ENGINES)}), "+", and the URL of a Redis '
                "or Valkey server"
            )
        try:
            parts = urlsplit(f"{SERVERS[server]}://{rest}")
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise ValueError("the address in queue= has a host or port that cannot be read") from None
        options = parse_qsl(parts.query, keep_blank_values=True)
        name = next((value for key, value in options if key == "name"), "llm")
        if not _NAME.fullmatch(name):
            raise ValueError("the name= in queue= may have 1 to 64 letters, digits, - and _")
        left = urlencode([(key, value) for key, value in options if key not in OURS])
        url = urlunsplit((parts.scheme, parts.netloc, parts.path, left, ""))
        where = (host if port is None else f"{host}:{port}") + parts.path
        keep, visibility = _seconds(options, "keep", KEEP), _seconds(options, "visibility", VISIBILITY)
        return cls(engine, url, name, keep, visibility, f"{engine}+{server}://{where}")

    def key(self, kind: str, *parts: str) -> str:
        """The name of a key of ours on the server."""
        return ":".join(("rll", self.name, kind, *parts))


def _seconds(options: list[tuple[str, str]], name: str, otherwise: float) -> float:
    text = next((value for key, value in options if key == name), None)
    if text is None:
        return otherwise
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 1.0 <= seconds <= 365 * 86_400.0:
        raise ValueError(f"the {name}= in queue= is a number of seconds from 1 to 31536000")
    return seconds
