"""A child of a fork that checks something."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Callable

import pytest

__all__ = ["in_child", "said_in_child"]

PATIENCE = 10.0  # seconds


def in_child(check: Callable[[], object]) -> None:
    """Fork, have the child run a check, and fail if it does or hangs, with the child's stacks."""
    child = os.fork()
    if not child:
        code = 1
        faulthandler.register(signal.SIGUSR1, file=2)  # a dump after some time needs a thread, which no fork survives
        try:
            check()
            code = 0
        except BaseException as error:
            os.write(2, f"in the child: {error!r}\n".encode())
        finally:
            os._exit(code)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            assert status == 0
            return
        time.sleep(0.005)
    os.kill(child, signal.SIGUSR1)
    time.sleep(0.2)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child hung")


def said_in_child(check: Callable[[], object]) -> str:
    """Fork, and return what the check answers in the child, as text; errors come back as text too."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(int(PATIENCE))  # whatever happens, it is gone then
        try:
            said = str(check())
        except BaseException as error:
            said = repr(error)
        os.write(write, said.encode()[:4000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said
