"""A pytest plugin: runs an SDK's own test suite with our classes in place of the SDK's. No part of our own test run.

From the unpacked sdist of the SDK, with its test requirements installed, once plain and once for each mode:

    export PYTHONPATH=src:/path/to/ratelimited_llm:/path/to/ratelimited_llm/tests/integrations STAND_IN_FOR=openai
    STAND_IN_RESULTS=plain.json python -m pytest -p stand_in tests
    STAND_IN_RESULTS=blocking.json RATELIMITED_LLM_MODE=blocking \\
        python -m pytest -p in_place_of_sdk -p stand_in tests            # and with RATELIMITED_LLM_MODE=future
    python /path/to/ratelimited_llm/tests/integrations/stand_in.py plain.json blocking.json

The async clients are in place in each of the runs, and `stand_in` counts the tests that go through them in a line of
their own. They know no mode (to `await` is to wait), so their line of one run is enough. To run a part, name it after
`tests` as pytest is told it (`--ignore=tests/api_resources/admin`), and the same in each run.

In blocking mode, and of the async clients, all has to pass that passes plain; in future mode all but what expects
an error, or looks at what the server saw, before it touches the answer.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from ratelimited_llm.seam import Seam

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
        # Not isinstance: to ask `openai.chat` for its class makes the module client.
        if issubclass(type(value), type) and issubclass(value, Seam)
    )
    return f"ratelimited_llm in place of {', '.join(clients)}"
