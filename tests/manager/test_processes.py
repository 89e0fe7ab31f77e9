"""How a manager ends with its process: drained, interrupted, paused, forked. Real child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import pytest
from parts import PATIENCE, AsyncEcho, Held

from ratelimited_llm.manager import QueueManager

PACKAGE = Path(__file__).parents[2]
START = """
import asyncio, os, sys, threading, time
from ratelimited_llm.manager import QueueManager
from ratelimited_llm.processors import Processor

class Slow(Processor):
    async def process(self, payload):
        await asyncio.sleep(0.05)
        return payload

def said(request_id, result, error):
    sys.stdout.write(f"{result} {type(error).__name__}\\n")
    sys.stdout.flush()
"""


def child(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", START + textwrap.dedent(script)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(PACKAGE)},
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, sorted(out.split("\n")[:-1]), err


def test_a_script_that_ends_processes_what_waits() -> None:
    """Async ones too, and their callbacks."""
    script = """
    manager = QueueManager(Slow(), max_concurrency=2)
    for number in range(5):
        manager.enqueue_request("/x", number, 1, said)
    """
    assert ended(child(script)) == (0, [f"{number} NoneType" for number in range(5)], "")


def test_a_script_that_ends_with_a_paused_manager_cancels_and_says_so() -> None:
    """It would wait for ever."""
    script = """
    manager = QueueManager(Slow())
    manager.pause()
    for number in range(3):
        manager.enqueue_request("/x", number, 1, said)
    """
    code, out, err = ended(child(script))
    assert (code, out) == (0, ["None CancelledError"] * 3)
    assert err == "ratelimited_llm: 3 requests cancelled that waited in a paused queue\n"


def test_ctrl_c_ends_a_script_with_a_with_block() -> None:
    """What waits is cancelled, what is in flight may end, and everybody hears of it."""
    script = """
    with QueueManager(Slow(), max_concurrency=1) as manager:
        for number in range(150):
            manager.enqueue_request("/x", number, 1, said)
        manager.get_result(manager.enqueue_request("/x", 150, 1))
    """
    process = child(script)
    assert process.stdout is not None
    while process.stdout.readline() != "2 NoneType\n":  # it waits for the last one, and has for a while
        pass
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert code in (1, -signal.SIGINT)
    assert "KeyboardInterrupt" in err
    assert "None CancelledError" in out


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_child_of_a_fork_has_an_empty_manager_that_works() -> None:
    """The parent's requests are the parent's, and so are their callbacks."""
    held, called = Held(), []
    with QueueManager({"held": held, "echo": AsyncEcho()}, max_concurrency=1) as manager:
        manager.get_result(manager.enqueue_request("echo", 0, 1), PATIENCE)  # the loop is there
        first = manager.enqueue_request("held", 1, 1, called.append)
        assert held.arrived.acquire(timeout=PATIENCE)
        second = manager.enqueue_request("held", 2, 1, called.append)
        with warnings.catch_warnings(), manager._lock:  # as if another thread held it
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if not pid:
            code = 1
            try:
                assert [manager.get_request_status(each)["status"] for each in (first, second)] == ["cancelled"] * 2
                assert manager.get_queue_length()["total"] == 0
                assert called == []
                request_id = manager.enqueue_request("echo", 3, 1)
                assert manager.get_result(request_id, PATIENCE)["echo"] == 3
                manager.stop()
                code = 0
            except BaseException as error:
                os.write(2, f"in the child: {error!r}\n".encode())
            finally:
                os._exit(code)
        assert _status(pid) == 0
        held.go.set()
    assert called == [1, 2]


def _status(pid: int) -> int:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pytest.fail("the child hung")
