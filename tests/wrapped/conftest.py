"""Clients of others against the simulator on loopback; nothing that a test opened is left open."""

from __future__ import annotations

import gc
import os

import openai
import pytest

from ratelimited_llm import pools
from ratelimited_llm.simulator import Simulator

FOREIGN = ("OPENAI_", "RATELIMITED_LLM_")


@pytest.fixture(scope="session", autouse=True)
def modules():
    """What is imported stays, and need not be looked through by every collection."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Settings of whoever runs the tests change nothing, and no test knows what another has learned."""
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    pools.forget()
    yield
    pools.forget()


@pytest.fixture
def simulator():
    """Start a provider: `simulator(rpm=30)`; every one is stopped at the end."""
    running = []

    def start(provider="openai", **options):
        running.append(Simulator(provider, **options).start())
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def plain(simulator):
    """Make a plain client of OpenAI's SDK, which retries nothing; every one is closed at the end."""
    made = []

    def make(provider, cls=openai.OpenAI, **options):
        options.setdefault("api_key", "sk-test-secret")
        options.setdefault("max_retries", 0)
        made.append(cls(base_url=provider.base_url, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()
