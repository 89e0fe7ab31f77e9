"""The settings of whoever runs the tests change nothing, and no test knows what another has learned."""

from __future__ import annotations

import os

import pytest

from ratelimited_llm import pools

FOREIGN = ("OPENAI_", "RATELIMITED_LLM_")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name.lower() in PROXIES:
            monkeypatch.delenv(name)
    pools.forget()
    yield
    pools.forget()
