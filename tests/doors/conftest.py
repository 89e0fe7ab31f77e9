"""The real SDKs against the simulator on loopback; whatever a test opens is closed, and nothing is left running."""

from __future__ import annotations

import gc
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ratelimited_llm import attempt, pools
from ratelimited_llm.core import limiter, pause
from ratelimited_llm.simulator import Simulator

sys.path.insert(0, str(Path(__file__).parent))  # for talking.py: pytest imports files without their directory

FOREIGN = ("OPENAI_", "AZURE_OPENAI_", "GROQ_", "ANTHROPIC_", "RATELIMITED_LLM_")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
STAY = (
    "ratelimited-llm-worker-",
    "ratelimited-llm-sender-",
    "ratelimited-llm-progress",
)  # they end by themselves when nothing comes


@pytest.fixture(scope="module", autouse=True)
def modules():
    """What is there before a file of tests stays, and need not be looked through by every collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Settings of whoever runs the tests change nothing, and no test knows what another has learned."""
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name.lower() in PROXIES:
            monkeypatch.delenv(name)
    pools.forget()
    yield
    pools.forget()
    gc.collect()  # what was forgotten open is heard of here, in the test that did it
    names = [thread.name for thread in threading.enumerate()]
    assert [name for name in names if name.startswith("ratelimited-llm-") and not name.startswith(STAY)] == []


@pytest.fixture(autouse=True)
def short_rests(monkeypatch):
    """After trouble that names no wait, calls go again soon: how soon is the subject of tests/core."""
    monkeypatch.setattr(attempt, "POLICY", replace(attempt.POLICY, initial=0.02))
    for module in (pause, limiter):
        monkeypatch.setattr(module, "FIRST_PAUSE", 0.02)


@pytest.fixture
def simulator():
    """Start a provider: `simulator("groq", rpm=30)`; every one is stopped at the end."""
    running = []

    def start(provider="openai", **options):
        running.append(Simulator(provider, **options).start())
        return running[-1]

    yield start
    for one in running:
        one.stop()


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
