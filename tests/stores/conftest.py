"""What the tests of the stores have in common: importable helpers, and a real server, started once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for contract.py and its like: pytest imports no files beside

from servers import KeyServer, server_binaries, valkey_server


@pytest.fixture(scope="session", params=server_binaries() or [pytest.param("", marks=pytest.mark.skip("no server"))])
def running(request):
    """One server of each kind that is installed."""
    with valkey_server(server_binaries()[request.param]) as server:
        yield server


@pytest.fixture
def server(running: KeyServer):
    """An empty one."""
    running.say("FLUSHALL")
    return running
