"""A few of the endings of `endings.py`, which strikes a hundred scripts of all kinds at any moment. In real time."""

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest imports files without their directory
from endings import Ending, ended

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="strikes as POSIX does"),
    pytest.mark.timeout(90),  # two or three seconds of work, on a machine that may be busy
]


@pytest.mark.parametrize("script", ["in threads, blocking", "called back", "a manager"])
def test_a_script_that_nobody_strikes_ends_with_all_its_calls_answered(tmp_path, warm_python, script):
    assert ended(Ending(script), tmp_path, tuple(warm_python)) == []


@pytest.mark.parametrize("strike", [signal.SIGINT, signal.SIGTERM])
def test_a_script_that_is_struck_is_gone_soon_after(tmp_path, warm_python, strike):
    assert ended(Ending("mapped", ((0.3, strike),)), tmp_path, tuple(warm_python)) == []
