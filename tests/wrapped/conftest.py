"""Clients of others against the simulator on loopback; nothing that a test opened is left open."""

from __future__ import annotations

import openai
import pytest


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
