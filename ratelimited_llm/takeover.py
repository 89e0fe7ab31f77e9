"""Takes the SDKs over as they are imported: whoever makes an `openai.OpenAI` after that makes one of ours.

Nothing is imported that was not asked for. An import of `openai`, `groq` or `anthropic` runs as always; then the names
of its clients, and the module client of openai, are given the classes of our door, which are subclasses of the SDK's
own. So `from openai import OpenAI`, subclasses made later, and `isinstance(client, openai.OpenAI)` go on working.
`requests` is patched by its own door. A client of an SDK that has no door (one for another cloud, say) is left as it
is, which is said once, when it sends.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["take_over"]

SDKS = ("openai", "groq", "anthropic")
_log = logging.getLogger("ratelimited_llm")


def take_over() -> None:
    """Have every later import of an SDK bring our clients; what is imported already is changed now. Process-wide."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    for name in (*SDKS, "requests"):
        if name in sys.modules:
            _imported(sys.modules[name])


class _Finder:
    """Finds what the others find, and looks at the modules of the SDKs when they are there."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in SDKS and name != "requests":
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:  # a folder without __init__.py has none
                    spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """A loader that is the other one, but for a look at the module after it has run."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._real
        if module.__spec__ is not None:
            module.__spec__.loader = self._real
        self._real.exec_module(module)
        _imported(module)


def _imported(module: ModuleType) -> None:
    """A module of that name is there: give its clients to our door, if it is what it seems."""
    try:
        door = importlib.import_module(f"{__package__}.{module.__name__}")
        if module.__name__ == "requests":
            door.patch_requests()
            return
        _replace(module, door)
    except (ImportError, AttributeError) as error:  # a script of that name, or an SDK of another age
        _log.warning("%s is not paced: its clients are not as expected (%s)", module.__name__, error)
        return
    _watch(module, door)


def _replace(sdk: ModuleType, door: ModuleType) -> None:
    """Put the door's classes in the place of those that they were made of, under every name of the SDK's front."""
    ours = {}
    for cls in list(vars(door).values()):
        if issubclass(type(cls), type) and cls.__module__ == door.__name__:
            ours[_sdks_own(cls, sdk.__name__)] = cls
    for name, value in list(vars(sdk).items()):
        # Not isinstance: it asks the value too, and `openai.chat` would make the module client to answer.
        if issubclass(type(value), type) and value in ours:
            setattr(sdk, name, ours[value])


def _sdks_own(cls: type, sdk: str) -> type | None:
    """The first class of the SDK that a class of ours is made of."""
    return next((base for base in cls.__mro__ if base.__module__.partition(".")[0] == sdk), None)


def _watch(sdk: ModuleType, door: ModuleType) -> None:
    """Have a client that is not of the door say, at its first request, that it is not paced."""
    module = importlib.import_module(f"{sdk.__name__}._base_client")
    for base in (module.SyncAPIClient, module.AsyncAPIClient):
        plain = base.request
        if not hasattr(plain, "_ratelimited_llm_watched"):  # after importlib.reload() it is
            base.request = _watched(plain, sdk.__name__, door.__name__)


def _watched(plain: Any, sdk: str, door: str) -> Any:
    @functools.wraps(plain)
    def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        client: Any = type(self)
        _look_at(client, sdk, door)
        return plain(self, *args, **kwargs)

    request._ratelimited_llm_watched = True  # type: ignore[attr-defined]
    return request


@functools.cache
def _look_at(client: Any, sdk: str, door: str) -> None:
    # A subclass that somebody made of a class of ours is ours too.
    if not any(each.__module__ == door for each in client.__mro__):
        text = "%s.%s is not paced, as it has no door: its calls go out as they come"
        _log.warning(text, sdk, client.__name__, extra={"event": "not_paced"})
