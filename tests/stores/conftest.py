"""What the tests of the stores have in common: importable helpers, and a real server, started once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# For contract.py and its like, and for servers.py: pytest imports files without their directory.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from servers import KeyServer, server_binaries, valkey_server  # noqa: E402


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
