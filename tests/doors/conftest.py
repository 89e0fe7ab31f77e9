"""The real SDKs against the simulator on loopback; whatever a test opens is closed, and nothing is left running."""

from __future__ import annotations

import gc
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ratelimited_llm.calls import attempt
from ratelimited_llm.core import limiter, pause

sys.path.insert(0, str(Path(__file__).parent))  # for talking.py: pytest imports files without their directory

STAY = (
    "ratelimited-llm-worker-",
    "ratelimited-llm-sender-",
    "ratelimited-llm-progress",
)  # they end by themselves when nothing comes


@pytest.fixture(scope="module", autouse=True)
def modules(frozen):
    """Sockets and clients are looked for after each test, so collections have to be quick."""


@pytest.fixture(autouse=True)
def clean(own_settings):
    """Whatever a test opened is closed when it ends, and no thread but those that end by themselves is left."""
    before = set(threading.enumerate())
    yield
    gc.collect()  # what was forgotten open is heard of here, in the test that did it
    names = [thread.name for thread in set(threading.enumerate()) - before]
    assert [name for name in names if name.startswith("ratelimited-llm-") and not name.startswith(STAY)] == []


@pytest.fixture(autouse=True)
def short_rests(monkeypatch):
    """After trouble that names no wait, calls go again soon: how soon is the subject of tests/core."""
    monkeypatch.setattr(attempt, "POLICY", replace(attempt.POLICY, initial=0.02))
    for module in (pause, limiter):
        monkeypatch.setattr(module, "FIRST_PAUSE", 0.02)


@pytest.fixture
def door(simulator):
    """Make a client of a door: `door(OpenAI, provider)`; every one is closed at the end, before its provider."""
    made = []

    def make(cls, provider=None, **options):
        options.setdefault("api_key", "sk-test")
        if provider is not None:
            name = "azure_endpoint" if "Azure" in cls.__name__ else "base_url"
            options.setdefault(name, provider.base_url)
        made.append(cls(**options))
        return made[-1]

    yield make
    for client in made:
        client.cancel()
        client.close()
