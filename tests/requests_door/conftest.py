"""Raw requests, against `responses` and against the simulator on loopback; nothing is left open or remembered."""

from __future__ import annotations

import gc
import random

import pytest
import responses as responses_library

from ratelimited_llm import requests, shared_workers
from ratelimited_llm.core import pause
from ratelimited_llm.requests import settings


def forget():
    for session in requests._shared:
        session.cancel()
        session.close()
    requests.unpatch_requests()
    requests._shared.clear()
    settings.forget()
    shared_workers.forget()


@pytest.fixture(autouse=True)
def clean(own_settings):
    """What was said to all sessions is forgotten, and a socket that was forgotten open is heard of in its own test."""
    forget()
    yield
    forget()
    gc.collect()


@pytest.fixture
def provider_options():
    return {"answer": "echo", "rpm": 60_000}  # where nothing is told, calls begin slowly


@pytest.fixture
def no_rest(monkeypatch):
    """A back-off has full jitter; here it is the shortest. In an outage the next call goes first almost at once."""
    monkeypatch.setattr(random, "random", lambda: 0.0)
    monkeypatch.setattr(pause, "LONGEST_PAUSE", 0.02)


@pytest.fixture
def responses():
    """What every HTTPAdapter is answered with."""
    with responses_library.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


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
