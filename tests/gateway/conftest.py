"""Gateways on loopback before simulated providers: one of each for a whole file, since a start takes a while."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ratelimited_llm.simulator import Simulator

sys.path.insert(0, str(Path(__file__).parent))  # for serving_gateways.py: pytest imports files without their directory

from serving_gateways import Running, fault_in_the_prompt

PROVIDERS = ("openai", "groq", "anthropic")


@pytest.fixture(scope="module", autouse=True)
def modules(short_rests):
    """Calls go again soon."""


@pytest.fixture(scope="module")
def providers():
    """A simulator of each provider; a prompt such as "!reset" asks it for that trouble."""
    running = {
        name: Simulator(name, answer="echo", latency=0.01, faults=fault_in_the_prompt).start() for name in PROVIDERS
    }
    yield running
    for one in running.values():
        one.stop()


@pytest.fixture
def serving(providers):
    """Start a gateway with options of its own: `serving(token="t")`; each is ended after the test."""
    started = []

    def start(**options):
        urls = {name: provider.base_url for name, provider in providers.items()}
        keys = dict.fromkeys(providers, "sk-of-the-gateway")
        started.append(Running(**{"base_urls": urls, "api_keys": keys, **options}))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture(scope="module")
def gateway(providers):
    """A gateway that is told nothing special."""
    urls = {name: provider.base_url for name, provider in providers.items()}
    running = Running(base_urls=urls, api_keys=dict.fromkeys(providers, "sk-of-the-gateway"))
    yield running
    running.stop()
