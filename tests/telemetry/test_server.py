"""The metrics over HTTP: started by a line or by the environment, and gone without a trace."""

import logging
import os
import socket
import threading
import urllib.error
import urllib.request
import warnings

import pytest
from reading import ask

from ratelimited_llm import OpenAI, telemetry
from ratelimited_llm.telemetry import autostart, server


def fetch(url):
    """What a scraper gets."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def serving():
    """Our threads that serve metrics."""
    return [thread for thread in threading.enumerate() if thread.name == "ratelimited-llm-metrics"]


@pytest.fixture
def taken():
    """A port that somebody else has."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_metrics_are_served_until_stopped_on_one_thread_however_often_it_is_asked(simulator, door):
    """A cell that is run again finds its server; `stop` leaves no thread and no socket."""
    running = telemetry.start_metrics_server(0)
    assert telemetry.start_metrics_server(running.port) is running
    assert repr(running) == f"<MetricsServer http://127.0.0.1:{running.port}/metrics>"
    assert ask(door(OpenAI, simulator())).choices
    assert 'ratelimited_llm_requests_total{bucket="m"' in fetch(running.url)
    assert len(serving()) == 1
    telemetry.stop()
    assert serving() == []
    with pytest.raises(urllib.error.URLError):
        fetch(running.url)
    running.stop()  # again
    again = telemetry.start_metrics_server(running.port)
    assert "ratelimited_llm_limit" in fetch(again.url)


def test_the_environment_starts_it_with_the_first_client(simulator, door, monkeypatch):
    """RATELIMITED_LLM_METRICS_PORT, for scripts that nobody edits."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("RATELIMITED_LLM_METRICS_PORT", str(port))
    provider = simulator()
    for _ in range(3):
        door(OpenAI, provider)
    assert "ratelimited_llm_limit" in fetch(f"http://127.0.0.1:{port}/metrics")
    assert len(serving()) == 1


@pytest.mark.parametrize("port", ["taken", "http", "-1", "65536", "99999999999999999999"])
def test_a_port_that_cannot_be_had_is_said_once_and_stops_nothing(simulator, door, monkeypatch, caplog, taken, port):
    """Taken by another process, or no port at all: a warning, and the calls go on."""
    monkeypatch.setenv(autostart.PORT, str(taken) if port == "taken" else port)
    provider = simulator()
    with caplog.at_level(logging.WARNING, "ratelimited_llm.metrics"):
        for _ in range(3):
            assert ask(door(OpenAI, provider)).choices
    assert [record.event for record in caplog.records] == ["metrics_not_served"]
    assert serving() == []


@pytest.mark.parametrize(
    ("port", "error", "words"),
    [("9464", TypeError, "whole number"), (True, TypeError, "whole number"), (-1, ValueError, "0 to 65535")],
)
def test_nonsense_is_refused_where_it_is_said(port, error, words):
    """A port is a whole number up to 65535."""
    with pytest.raises(error, match=words):
        telemetry.start_metrics_server(port)


def test_a_taken_port_is_an_os_error(taken):
    """The line that asked for it hears of it, and no socket is left half open."""
    with pytest.raises(OSError, match=r"[Aa]ddress"):
        telemetry.start_metrics_server(taken)
    assert serving() == []


def test_without_prometheus_client_the_error_says_what_to_install(monkeypatch):
    """It is an extra."""
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client.core", None)
    with pytest.raises(ImportError, match=r"ratelimited-llm\[metrics\]"):
        telemetry.exposition()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_leaves_the_server_to_the_parent():
    """The child holds no socket of it, can stop nothing of the parent's, and may serve its own."""
    running = telemetry.start_metrics_server(0)
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads, which this is about
        child = os.fork()
    if not child:
        try:
            closed = running._server.socket.fileno() == -1
            telemetry.stop()
            mine = telemetry.start_metrics_server(0)
            os.write(write, f"{closed} {len(server._servers)} {'ratelimited_llm_limit' in fetch(mine.url)}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "True 1 True"
    os.waitpid(child, 0)
    assert "ratelimited_llm_limit" in fetch(running.url)
