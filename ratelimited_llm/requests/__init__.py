"""The door to raw HTTP: requests, with its POSTs to LLM providers queued, and everything else of it as it is.

    from ratelimited_llm import requests             # was: import requests
    answers = [requests.post(url, headers=headers, json=body, timeout=25) for body in bodies]   # returns at once
    for r in answers:
        if r.status_code == 200:                     # waits here
            print(r.json()["choices"][0]["message"]["content"])

Known providers are OpenAI, Azure, Groq, Anthropic, OpenRouter, Mistral, Together, Cerebras, DeepSeek, Gemini's
OpenAI-compatible API, and servers on loopback; `configure(hosts=...)` adds others.

queued_session  Session: `requests.Session`, queued
llm_adapter     adapters that wait their turn, for plain sessions, by `mount` or by patching
raw_calls       one raw request as a queued call
exchange        one attempt on the wire
live_answers    answers that are read while they come: their end, and their usage
hosts           which requests spend rate limit, and whose
settings        what users say about one session, or about all
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import requests as _requests

from ..books.status import Status
from ..forks import at_fork
from ..mirror import mirror
from ..options import disabled
from . import settings
from .hosts import target_of
from .llm_adapter import LLMAdapter, patch_requests, unpatch_requests
from .queued_session import Session

if TYPE_CHECKING:
    from requests import *  # type: ignore[assignment]  # noqa: F403, I001
    from requests import (
        adapters as adapters,
        api as api,
        auth as auth,
        certs as certs,
        compat as compat,
        cookies as cookies,
        exceptions as exceptions,
        hooks as hooks,
        models as models,
        sessions as sessions,
        status_codes as status_codes,
        structures as structures,
    )

    from .queued_session import Session as Session  # again: some type checkers keep what they saw last

_MODULES = (
    "adapters", "api", "auth", "certs", "compat", "cookies", "exceptions", "help", "hooks", "models", "packages",
    "sessions", "status_codes", "structures", "utils",
)  # fmt: skip

__all__ = [
    "LLMAdapter", "Session", "configure", "patch_requests", "post", "request", "session", "status", "unpatch_requests",
]  # fmt: skip

_lock = threading.Lock()
_shared: list[Session] = []


def post(url: Any, data: Any = None, json: Any = None, **kwargs: Any) -> _requests.Response:  # type: ignore[no-redef]
    """`requests.post`; to an LLM provider it returns at once a future that is its Response."""
    return request("post", url, data=data, json=json, **kwargs)


def request(method: Any, url: Any, **kwargs: Any) -> _requests.Response:  # type: ignore[no-redef]
    """`requests.request`; a POST to an LLM provider returns at once a future that is its Response."""
    if disabled() or target_of(method, url) is None:
        return _requests.request(method, url, **kwargs)
    return _session().request(method, url, **kwargs)


def session() -> Session:  # type: ignore[no-redef]
    """A `Session`, as of `requests.session()`."""
    return Session()


def configure(*, hosts: str | Iterable[str] | Mapping[str, str | None] | None = None, **options: Any) -> None:
    """Say how calls without a session of their own are queued, and what sessions begin with, from now on.

    Args:
        hosts: LLM providers beside the known ones: names ("llm.example.com", "10.0.0.5:8000"; subdomains included),
            or a mapping from them to whose rules they follow ("openai", "groq"...; None for OpenAI-compatible ones).
        **options: as of `Session`; None takes an earlier one back.

    Raises:
        TypeError, ValueError: for what makes no sense; nothing is changed then.
    """
    settings.set_common(hosts, options)
    with _lock:
        _shared.clear()  # its calls go on; the next one makes another


def status() -> Status:
    """What has become of the calls without a session of their own; a `Session` has its own `status()`."""
    return _session().status()


def _session() -> Session:
    """What the calls of this module go through: one session, for its connections, that keeps nothing else."""
    with _lock:
        if not _shared:
            made = Session()
            # Each such call has a session of its own in requests: none sees the cookies of another.
            made.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            _shared.append(made)
        return _shared[0]


# So that `from requests.exceptions import Timeout` may become `from ratelimited_llm.requests.exceptions import ...`.
for _name in _MODULES:
    _module = sys.modules.get(f"requests.{_name}")
    if _module is not None:
        sys.modules.setdefault(f"{__name__}.{_name}", _module)
del _name, _module


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()


at_fork(_after_fork_in_child)

mirror(__name__, _requests)
__all__ += [_name for _name in dir(_requests) if _name[:1] != "_" and _name not in __all__]
