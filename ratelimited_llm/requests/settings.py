"""What users say about raw requests: for one session, or for all of the process."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from ..calls.transport import sensible_width
from ..core.retry import RetryPolicy
from ..forks import at_fork
from ..runtime import JOURNAL_NAMES, OWN_NAMES, Runtime
from .hosts import add_hosts, forget_hosts

__all__ = ["NAMES", "RequestsRuntime", "checked", "common_options", "forget", "set_common"]

NAMES = (OWN_NAMES - set(JOURNAL_NAMES)) | {"max_retries"}
WIDTH = 1024  # connections that are kept for one host, and calls in flight at most: urllib3 makes room for all at once

_lock = threading.Lock()
_common: dict[str, Any] = {}


class RequestsRuntime(Runtime):
    """What stands behind a session.

    Args:
        given: options of ours.

    Attributes:
        policy: how often a request is tried again.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        options = checked(given)
        retries = options.pop("max_retries", None)
        super().__init__("requests", {**options, "journal": False})
        self.policy = RetryPolicy() if retries is None else RetryPolicy(max_retries=retries)
        self.lane.width = connections()


def connections() -> int:
    """How many calls of one session can be in flight."""
    return min(WIDTH, sensible_width())


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """These options, as a copy, without those that are None.

    Raises:
        TypeError: for a name that is none of ours, or a wrong type.
        ValueError: for a number that makes no sense.
    """
    stranger = next((name for name in given if name not in NAMES), None)
    if stranger is not None:
        raise TypeError(f"unexpected argument {stranger!r}: the options are {', '.join(sorted(NAMES))}")
    retries = given.get("max_retries")
    if retries is not None:
        if isinstance(retries, bool) or not isinstance(retries, int):
            raise TypeError(f"max_retries must be a whole number, not {retries!r}")
        if retries < 0:
            raise ValueError(f"max_retries must be 0 or more, not {retries!r}")
    return {name: value for name, value in given.items() if value is not None}


def common_options() -> dict[str, Any]:
    """What was said about all sessions."""
    with _lock:
        return dict(_common)


def set_common(hosts: str | Iterable[str] | Mapping[str, str | None] | None, given: Mapping[str, Any]) -> None:
    """Say something about all sessions, on top of what was said before; None takes an option back.

    Raises:
        TypeError, ValueError: for what makes no sense; nothing is changed then.
    """
    checked(given)
    with _lock:
        wanted = {name: value for name, value in {**_common, **given}.items() if value is not None}
        RequestsRuntime(wanted)  # so that nonsense is heard of here
        if hosts is not None:
            add_hosts(hosts)
        _common.clear()
        _common.update(wanted)


def forget() -> None:
    """Forget all that was said, as after a new start of the process."""
    with _lock:
        _common.clear()
        forget_hosts()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()


at_fork(_after_fork_in_child)
