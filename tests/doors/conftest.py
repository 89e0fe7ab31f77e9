"""The real SDKs against the simulator on loopback; whatever a test opens is closed, and nothing is left running."""

from __future__ import annotations

import gc
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for talking.py: pytest imports files without their directory

STAY = (
    "ratelimited-llm-worker-",
    "ratelimited-llm-sender-",
    "ratelimited-llm-progress",
)  # they end by themselves when nothing comes
PATIENCE = 5.0  # seconds that the others may take to notice that they are not needed any more


@pytest.fixture(scope="module", autouse=True)
def modules(short_rests):
    """No test waits for long after trouble."""


@pytest.fixture(autouse=True)
def clean(own_settings):
    """Whatever a test opened is closed when it ends, and no thread but those that end by themselves is left."""
    before = set(threading.enumerate())
    yield
    gc.collect()  # what was forgotten open is heard of here, in the test that did it
    end = time.monotonic() + PATIENCE
    while (left := ours(before)) and time.monotonic() < end:
        time.sleep(0.01)
    assert left == []


def ours(before):
    """The threads of ours that have come since, and have to go."""
    names = [thread.name for thread in set(threading.enumerate()) - before]
    return [name for name in names if name.startswith("ratelimited-llm-") and not name.startswith(STAY)]
