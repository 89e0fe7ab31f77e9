"""Ctrl-C in scripts and in a notebook's kernel that wait for a real SDK's calls. Real processes, in real time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2]
PATIENCE = 15.0
START = """
import os, sys, time
from ratelimited_llm import OpenAI
client = OpenAI(min_interval=0.02)
def ask(n): return client.chat.completions.create(model="m", messages=[{"role": "user", "content": str(n)}])
def many(n=300): return [ask(i) for i in range(n)]
def text(answer): return answer.choices[0].message.content
"""
SCRIPTS = {
    "in a with block": "with client:\n    answers = many()\n    print('waiting', flush=True)\n    text(answers[-1])",
    "in map": "print('waiting', flush=True)\nclient.map(lambda n: text(ask(n)), range(300))",
    # The drain itself says when it has begun: an interrupt a moment before is the interpreter's own.
    "while draining": """
        from ratelimited_llm.engine import lifecycle
        def tells(seconds, wait=lifecycle._wait):
            lifecycle._wait = wait
            print('waiting', flush=True)
            return wait(seconds)
        lifecycle._wait = tells
        many()
    """,
}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for a child")


@pytest.fixture
def start(simulator, warm_python):
    """Start a script beside a shell, as `python script.py; echo status`, and wait until some of its calls came."""
    children = []

    def run(script, **options):
        provider = simulator(answer="echo", **options)
        code = START + "print(os.getpid(), flush=True)\n" + textwrap.dedent(script)
        command = ["bash", "-c", '"$@"; echo "status $?"', "bash", *warm_python, "-W", "error", "-c", code]
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, **provider.env(), "PYTHONPATH": str(PACKAGE)},
        )  # fmt: skip
        watch = threading.Timer(PATIENCE, os.killpg, (child.pid, signal.SIGKILL))
        watch.start()
        children.append((child, watch))
        pid = int(child.stdout.readline())
        while len(provider.log) < 5 and child.poll() is None:
            time.sleep(0.005)
        return provider, child, pid

    yield run
    for child, watch in children:
        watch.cancel()
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        child.stderr.close()


def end(child, pid):
    """Interrupt it, and answer its last words, its output, and the seconds that it took."""
    struck = time.monotonic()
    os.kill(pid, signal.SIGINT)
    out, err = child.communicate()
    return err, out, time.monotonic() - struck


@pytest.mark.parametrize("where", SCRIPTS)
def test_ctrl_c_ends_a_script_within_seconds_and_tells_what_is_left(start, where):
    """With the status 130 that a shell knows; what is answered is kept, and what is queued is never sent."""
    provider, child, pid = start(SCRIPTS[where])
    assert child.stdout.readline() == "waiting\n"
    err, out, seconds = end(child, pid)
    assert out.splitlines()[-1] == "status 130"
    assert seconds < 10
    told = re.search(r"interrupted: (?:(\d+) answered, )?(\d+) cancelled, 0 abandoned", err)
    assert told, err
    sent = len(provider.log)
    unsent = 300 - sent
    # A thread of a map may have begun with an item and not yet made its call: that is neither sent nor cancelled.
    assert unsent - (2 if where == "in map" else 0) <= int(told[2]) <= unsent
    if told[1]:
        assert int(told[1]) == sent
    assert err.count("interrupted:") == 1
    assert err.count("Traceback") <= 1


def test_a_script_that_handles_ctrl_c_goes_on_with_its_client(start):
    """Nothing was cancelled behind its back."""
    script = """
        client.gather([])  # what it imports is there, and not interrupted
        answers = many(80)
        try:
            print("waiting", flush=True)
            client.gather(answers)
        except KeyboardInterrupt:
            print(text(ask("more")), text(answers[-1]), len(client.gather(answers)))
    """
    provider, child, pid = start(script)
    assert child.stdout.readline() == "waiting\n"
    err, out, _ = end(child, pid)
    assert (out, err) == ("more 79 80\nstatus 0\n", "")
    assert len(provider.log) == 81


def test_an_interrupted_cell_stops_waiting_and_the_queue_goes_on(simulator):
    """In a real kernel: the wait ends soon, one sentence says what is left, and the client works afterwards."""
    pytest.importorskip("ipykernel")
    manager = pytest.importorskip("jupyter_client.manager")
    provider = simulator(answer="echo")
    env = {**os.environ, **provider.env(), "PYTHONPATH": str(PACKAGE), "PYTHONWARNINGS": "ignore"}
    kernel, talk = manager.start_new_kernel(kernel_name="python3", env=env)
    try:
        assert cell(talk, START + "answers = many()") == ""
        mark = len(provider.log)
        seconds, said = interrupted_cell(talk, kernel, "client.gather(answers)", lambda: len(provider.log) > mark + 3)
        assert seconds < 5  # 0.1 to 0.5 s when nothing else runs
        assert re.search(r"\d+ requests still queued", said), said
        mark = len(provider.log)
        assert int(cell(talk, "print(client.cancel())")) > 0
        assert len(provider.log) >= mark
        assert cell(talk, "print(client.wait(), text(ask('more')))") == "True more\n"
    finally:
        talk.stop_channels()
        kernel.shutdown_kernel(now=True)
        kernel.cleanup_resources()


def cell(talk, code):
    """Run a cell; answers what it printed."""
    return _output(talk, talk.execute(code))


def interrupted_cell(talk, kernel, code, when):
    """Run a cell, interrupt it, and answer how long it took to end and what it printed."""
    sent = talk.execute(code)
    deadline = time.monotonic() + PATIENCE
    while not when():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    struck = time.monotonic()
    kernel.interrupt_kernel()
    said = _output(talk, sent)
    return time.monotonic() - struck, said


def _output(talk, sent):
    said = ""
    while True:
        message = talk.get_iopub_msg(timeout=PATIENCE)
        if message["parent_header"].get("msg_id") != sent:
            continue
        content = message["content"]
        if message["msg_type"] == "stream":
            said += content["text"]
        elif content.get("execution_state") == "idle":
            return said
