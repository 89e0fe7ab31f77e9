"""`ratelimited-llm serve` as a process: what it prints, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from serving_gateways import CHAT
from waiting import wait_until

from ratelimited_llm.cli import main

SLOW = {**CHAT, "messages": [{"role": "user", "content": '!{"kind": "stall", "seconds": 0.6}'}]}
STUCK = {**CHAT, "messages": [{"role": "user", "content": "!stall"}]}


@pytest.fixture
def serve(providers):
    """Start the command; answers the process and its URL."""
    running = []

    def start(*options, **more):
        environment = {**os.environ, **providers["openai"].env(), **more}
        command = [sys.executable, "-m", "ratelimited_llm", "serve", "--port", "0", *options]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        running.append(process)
        line = process.stderr.readline() + process.stderr.readline()
        return process, re.search(r"http://127\.0\.0\.1:\d+", line)[0], line

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stderr.close()


def post(url, body):
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return None


def beside(call, *args):
    ended = []
    thread = threading.Thread(target=lambda: ended.append(call(*args)))
    thread.start()
    return thread, ended


def stats(url):
    with urllib.request.urlopen(url + "/v1/queue/stats") as response:
        return json.load(response)


def ready(url):
    try:
        with urllib.request.urlopen(url + "/readyz") as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_it_says_where_and_sigterm_answers_what_is_open_first(serve):
    process, url, line = serve()
    assert f"OPENAI_BASE_URL={url}/v1 GROQ_BASE_URL={url} ANTHROPIC_BASE_URL={url}" in line
    assert f"{url}/dashboard" in line
    thread, ended = beside(post, url, SLOW)
    wait_until(lambda: stats(url)["in_flight"] == 1)
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: ready(url) == 503)  # it listens on, and says that it is about to end
    assert post(url, CHAT) == 503
    thread.join()
    assert ended == [200]
    assert process.wait(5) == 0
    assert process.stderr.read() == ""


def test_what_is_not_done_in_time_is_dropped_and_the_exit_is_still_clean(serve):
    process, url, _ = serve("--drain", "0.1")
    thread, ended = beside(post, url, STUCK)
    wait_until(lambda: stats(url)["in_flight"] == 1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
    thread.join()
    assert ended == [503]


def test_a_second_signal_ends_it_at_once(serve):
    process, url, _ = serve("--drain", "60")
    thread, _ = beside(post, url, STUCK)
    wait_until(lambda: stats(url)["in_flight"] == 1)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: ready(url) == 503)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    assert process.wait(5) == 128 + signal.SIGINT
    thread.join()


@pytest.mark.parametrize(
    ("options", "says"),
    [(["--host", "0.0.0.0"], "--token"), (["--rpm", "0"], "--rpm"), (["--port", "99999"], "port"),
     (["--drain", "-1"], "--drain")],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options, says, capsys):
    try:
        code = main(["serve", *options])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert says in capsys.readouterr().err


def test_a_port_in_use_is_an_error_in_words(gateway, capsys):
    assert main(["serve", "--port", str(gateway.socket_port)]) == 1
    assert "another --port" in capsys.readouterr().err
