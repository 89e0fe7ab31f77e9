"""A few of the kills of `kills.py`, which kills a hundred times."""

import random
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest imports files without their directory
from kills import Campaign

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills as POSIX does")


@pytest.mark.parametrize("streams", [False, True], ids=["answers", "streams"])
def test_what_a_killed_run_has_told_is_in_its_journal_and_the_next_run_sends_the_rest(tmp_path, monkeypatch, streams):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    campaign = Campaign(tmp_path, streams=streams, calls=40, rng=random.Random(3), longest=0.2)
    found = campaign.run(2)
    assert found.wrong == []
    assert found.kills == 2
