"""How people spell a budget, and how it may be shown again.

- "memory": this process alone (the default).
- "auto": the same, and what was learned is remembered for the next script.
- "sqlite": every process of this user on this machine, by a file in the user's state directory.
- "sqlite:///path": the same, by this file.
- "redis://host:port/0": every process that uses this Redis or Valkey ("valkey://", "rediss://", "unix:///socket").
"""

from __future__ import annotations

import importlib.util
import os
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

__all__ = ["checked_budget", "hidden"]

FORMS = (
    '"memory", "auto", "sqlite", "sqlite:///path", "redis://host:6379/0", "valkey://host:6379/0" or '
    '"unix:///path/to/socket"'
)
SERVERS = ("redis", "rediss", "valkey", "valkeys", "unix")
VARIABLE = "RATELIMITED_LLM_BUDGET"


def checked_budget(given: object, *, from_environment: bool = True) -> str:
    """A `budget=` in its usual spelling; what is not given is read from `RATELIMITED_LLM_BUDGET`.

    Args:
        given: as people write it; None for what the environment says, or else "memory".
        from_environment: whether the environment counts.

    Raises:
        TypeError: it is no string.
        ValueError: it is none of the known forms; it is not repeated when it may hold a password.
        ImportError: it needs the `redis` package, which is missing.
    """
    where = ""
    if given is None and from_environment and os.environ.get(VARIABLE):
        given, where = os.environ[VARIABLE], f" in {VARIABLE}"
    elif given is None:
        given = "memory"
    if not isinstance(given, str):
        raise TypeError(f"budget must be a string: {FORMS}; not {type(given).__name__}")
    text = given.strip()
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator and scheme in ("memory", "auto", "sqlite"):
        return scheme
    if separator and scheme == "sqlite":
        path = rest[1:] if rest.startswith("/") else ""
        if not path:
            raise ValueError(
                f"budget={text!r} names no file: write sqlite:///relative/path or sqlite:////absolute/path"
            )
        return "sqlite:///" + os.path.abspath(os.path.expanduser(path))
    if separator and scheme in SERVERS:
        return _checked_server(scheme, text, where)
    raise ValueError(f"unknown budget {hidden(text)!r}{where}: use {FORMS}")


def _checked_server(scheme: str, text: str, where: str) -> str:
    url = urlsplit(text)
    try:
        port = url.port
    except ValueError:
        port = -1
    place = url.path if scheme == "unix" else url.hostname
    if not place or port == -1:
        raise ValueError(f"unknown budget {hidden(text)!r}{where}: use {FORMS}")
    if importlib.util.find_spec("redis") is None:
        raise ImportError(f'budget="{scheme}://..." needs the redis package: pip install "ratelimited-llm[redis]"')
    return scheme + text[len(scheme) :]


def hidden(spec: str) -> str:
    """A `budget=` as it may be shown: without user, password and query."""
    if "://" not in spec:
        return spec if "@" not in spec else "..."
    with suppress(ValueError):
        url = urlsplit(spec)
        place = url.netloc.rpartition("@")[2]
        return urlunsplit((url.scheme, f"***@{place}" if "@" in url.netloc else place, url.path, "", ""))
    return spec.partition("://")[0] + "://..."
