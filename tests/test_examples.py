"""Every example runs as its reader would run it: as a script of its own, against the simulator, without a key."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from ratelimited_llm.simulator import Simulator

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def test_there_are_examples() -> None:
    """The parametrized test below is not empty by accident."""
    assert len(SCRIPTS) >= 7


@pytest.mark.timeout(60)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_example_runs_without_a_key_and_nothing_is_refused(script: Path, warm_python: list[str]) -> None:
    """The script ends well, prints something, writes nothing to stderr, and no call of it was refused."""
    with Simulator("openai", rpm=6_000, tpm=2_000_000, latency=0.05) as provider:
        done = subprocess.run(
            [*warm_python, "-W", "error::ResourceWarning", str(script)],
            env={**os.environ, **provider.env()},
            capture_output=True,
            text=True,
            timeout=50,
        )
        counted = provider.counters
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert done.stderr == ""
    assert counted.refused == 0


def test_the_shipped_prompts_are_real_and_varied() -> None:
    """The demo's prompts: some hundred different texts, in several languages, from ten to some thousand tokens."""
    rows = [json.loads(line) for line in (EXAMPLES / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    sizes = [len(row["prompt"].encode()) / 4 for row in rows]
    assert len(rows) >= 100
    assert len({row["prompt"] for row in rows}) == len({row["id"] for row in rows}) == len(rows)
    assert len({row["lang"] for row in rows}) >= 8
    assert min(sizes) < 20
    assert max(sizes) > 2_000
