"""Raw requests, against `responses` and against the simulator on loopback; nothing is left open or remembered."""

from __future__ import annotations

import gc
import os
import random

import pytest
import responses as responses_library

from ratelimited_llm import pools, requests
from ratelimited_llm.requests import settings
from ratelimited_llm.simulator import Simulator

FOREIGN = ("OPENAI_", "RATELIMITED_LLM_", "REQUESTS_", "CURL_")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def forget():
    for session in requests._shared:
        session.cancel()
        session.close()
    requests.unpatch_requests()
    requests._shared.clear()
    settings.forget()
    pools.forget()


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
        if name.startswith(FOREIGN) or name.lower() in PROXIES:
            monkeypatch.delenv(name)
    forget()
    yield
    forget()


@pytest.fixture
def no_rest(monkeypatch):
    """A back-off has full jitter; here it is the shortest."""
    monkeypatch.setattr(random, "random", lambda: 0.0)


@pytest.fixture
def responses():
    """What every HTTPAdapter is answered with."""
    with responses_library.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def simulator():
    """Start a provider: `simulator("groq", rpm=30)`; every one is stopped at the end."""
    running = []

    def start(provider="openai", **options):
        options.setdefault("answer", "echo")
        options.setdefault("rpm", 60_000)  # where nothing is told, calls begin slowly
        running.append(Simulator(provider, **options).start())
        return running[-1]

    yield start
    for session in requests._shared:
        session.cancel()
        session.close()
    for one in running:
        one.stop()
    gc.collect()  # a socket that was forgotten open is heard of here, in the test that did it


@pytest.fixture
def session():
    """Make a session of ours: `session(rpm=500)`; every one is closed at the end."""
    made = []

    def make(**options):
        made.append(requests.Session(**options))
        return made[-1]

    yield make
    for each in made:
        if each._queue_runtime is not None:
            each.cancel()
        each.close()
