"""A pytest plugin: runs an SDK's own test suite with our classes in place of the SDK's.

From a checkout of the SDK, with its test requirements installed, in a process of its own for each mode:

    PYTHONPATH=/path/to/ratelimited_llm:/path/to/ratelimited_llm/tests/doors \\
    RATELIMITED_LLM_MODE=blocking python -m pytest -p in_place_of_sdk tests

In blocking mode everything has to pass that passes without `-p`; in future mode (the default) all but what expects an
error, or looks at what the server saw, before it touches the answer. It is no part of our own test run.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from ratelimited_llm.client import QueuedClient

# Where users import the clients from. The SDKs' own modules (`openai._client`, ...) keep theirs, as they do in life:
# they compare with them by identity.
_PLACES = {"openai": ("openai", "openai.lib.azure"), "groq": ("groq",), "anthropic": ("anthropic",)}


def _door(sdk: str) -> ModuleType | None:
    try:
        return importlib.import_module(f"ratelimited_llm.{sdk}")
    except ImportError:  # a suite's environment has one SDK
        return None


def _put_in_place(sdk: str, door: ModuleType) -> None:
    ours = [cls for cls in vars(door).values() if isinstance(cls, type) and "_base" in vars(cls)]
    for place in map(importlib.import_module, _PLACES[sdk]):
        for cls in ours:
            for name in [name for name, value in vars(place).items() if value is cls._base]:
                setattr(place, name, cls)


for _sdk in _PLACES:
    _module = _door(_sdk)
    if _module is not None:
        _put_in_place(_sdk, _module)


def pytest_report_header() -> str:
    """Say in the head of the report what is tested."""
    clients = sorted(
        f"{place}.{name}"
        for place in (place for places in _PLACES.values() for place in places)
        for name, value in vars(sys.modules.get(place, ModuleType(""))).items()
        if isinstance(value, type) and issubclass(value, QueuedClient)
    )
    return f"ratelimited_llm in place of {', '.join(clients)}"
