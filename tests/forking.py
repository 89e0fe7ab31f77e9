"""A child of a fork that checks something."""

from __future__ import annotations

import faulthandler
import os
import time
from collections.abc import Callable

import pytest

__all__ = ["in_child"]

PATIENCE = 10.0  # seconds


def in_child(check: Callable[[], object]) -> None:
    """Fork, have the child run a check, and fail if it does or hangs, with the child's stacks."""
    child = os.fork()
    if not child:
        code = 1
        faulthandler.dump_traceback_later(0.9 * PATIENCE, file=2, exit=True)
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
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the child hung")
