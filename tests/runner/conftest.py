"""Scripts in a folder of their own, run by plain Python and by ours."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FOREIGN = ("OPENAI_", "GROQ_", "ANTHROPIC_", "RATELIMITED_LLM_", "PYTHON")


@pytest.fixture
def run(tmp_path):
    """`run("script.py", "arg", us=True)`: what a child printed, in a folder where the test may have written files."""

    def run(*arguments, us=True, **environment):
        ours = ["-m", "ratelimited_llm"] if us else []
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        return subprocess.run(
            [sys.executable, *ours, *arguments],
            capture_output=True, text=True, timeout=50, cwd=tmp_path, env={**kept, **environment},
        )  # fmt: skip

    return run


@pytest.fixture
def same(run):
    """Run it both ways, and see that exit code and both outputs are the same, to the letter; answers ours."""

    def same(*arguments, **environment):
        plain, ours = run(*arguments, us=False, **environment), run(*arguments, **environment)
        assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, plain.stdout, plain.stderr)
        return ours

    return same
