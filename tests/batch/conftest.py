"""A provider on loopback, clients for it, and files of calls; whatever a test opens is closed."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ratelimited_llm import OpenAI
from ratelimited_llm.calls import attempt

sys.path.insert(0, str(Path(__file__).parent))  # for calling.py: pytest imports files without their directory

from calling import call


@pytest.fixture(autouse=True)
def clean(own_settings, monkeypatch):
    """Rests between attempts are short, and what a test forgot open is heard of in that test."""
    monkeypatch.setattr(attempt, "POLICY", replace(attempt.POLICY, initial=0.02))
    yield
    gc.collect()


@pytest.fixture
def provider_options():
    return {"latency": 0.0}


@pytest.fixture
def client_of():
    """Make a client of a provider: `client_of(provider, rpm=30)`; every one is closed at the end."""
    made = []

    def make(provider, cls=OpenAI, **options):
        options.setdefault("api_key", "sk-test-secret")
        made.append(cls(base_url=provider.base_url, **options))
        return made[-1]

    yield make
    for client in made:
        client.cancel()
        client.close()


class Files:
    """The files of one batch, in a directory of the test's own."""

    def __init__(self, folder):
        self.folder = folder
        self.input = folder / "in.jsonl"
        self.output = folder / "out.jsonl"
        self.errors = folder / "out.errors.jsonl"

    def write(self, *rows):
        """Make the input: dicts, or lines as they are."""
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        self.input.write_bytes(b"\n".join(lines) + b"\n")

    def calls(self, count, **more):
        self.write(*[call(number, **more) for number in range(count)])

    def rows(self, which=None):
        path = which or self.output
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def answered(self):
        return sorted(row["custom_id"] for row in self.rows())


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.fixture
def command(warm_python):
    """Start the command as a process of its own, against a provider; what still runs at the end is ended.

    With `cold=True` it can be killed, too.
    """
    running = []

    def start(provider, *words, cold=False, **options):
        env = {**os.environ, **(provider.env() if provider is not None else {})}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        python = [sys.executable] if cold else warm_python
        ours = ["-W", "error::ResourceWarning", "-m", "ratelimited_llm", "batch"]
        running.append(subprocess.Popen([*python, *ours, *map(str, words)], env=env, **pipes))
        return running[-1]

    yield start
    for child in running:
        if child.poll() is None:
            child.terminate()
        child.communicate()
