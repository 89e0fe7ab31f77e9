"""What every test has: its own settings and memory; clients and processes that are cheap to start; a provider."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import certifi
import pytest

from ratelimited_llm import shared_workers
from ratelimited_llm.calls import attempt
from ratelimited_llm.core import limiter, pause
from ratelimited_llm.engine import engine
from ratelimited_llm.simulator import Simulator

sys.path.insert(0, str(Path(__file__).parent))  # for servers.py and its like: pytest imports files without their folder

sys.dont_write_bytecode = False  # making the asserts of all tests talk takes ten seconds, in each process and each time

FOREIGN = ("OPENAI_", "AZURE_OPENAI_", "GROQ_", "ANTHROPIC_", "RATELIMITED_LLM_", "REQUESTS_", "CURL_")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started with `&` by a script: so would be what tests start
    signal.signal(signal.SIGINT, signal.default_int_handler)
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def pytest_xdist_auto_num_workers():
    """One process more than there are cores: a third of the time, tests wait for clocks, sockets and children."""
    return (os.cpu_count() or 1) + 1


LONGEST = {
    "test_campaign.py", "test_cli_batch.py", "test_examples.py", "test_exhaustion.py", "test_forecast.py",
    "test_forks.py", "test_headers.py", "test_interrupted_scripts.py", "test_kills.py", "test_notebooks.py",
    "test_policy.py", "test_shared_queue.py", "test_stuck_attempts.py", "test_takeover.py",
}  # fmt: skip


def pytest_collection_modifyitems(items):
    """Files that take ten seconds and more come first, so that no process is alone with one in the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def cheap_starts(tmp_path_factory):
    """Clients read one certificate instead of all that there are, and child processes keep what they have compiled.

    Reading certificates is nearly all of what a client costs to make, and compiling the package a third of what a
    child costs to start. Both are for the environment that tests hand on, too.
    """
    first = Path(certifi.where()).read_text(encoding="utf-8").partition("-----END CERTIFICATE-----")
    certificate = tmp_path_factory.mktemp("tls") / "one.pem"
    certificate.write_text("".join(first[:2]) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SSL_CERT_FILE", str(certificate))
        environment.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        yield


@pytest.fixture(scope="session")
def warm_python(cheap_starts):
    """The first words of a command that starts Python with OpenAI's SDK imported already: see warm.py."""
    if not hasattr(os, "fork"):
        yield [sys.executable]
        return
    script = str(Path(__file__).with_name("warm.py"))
    with tempfile.TemporaryDirectory(prefix="warm-") as folder:  # short: the address of a socket has 108 bytes at most
        address = os.path.join(folder, "python")
        with subprocess.Popen([sys.executable, script, address], stdout=subprocess.PIPE) as server:
            assert server.stdout.readline() == b"ready\n"
            yield [sys.executable, "-SE", script, address]
            server.terminate()


@pytest.fixture(autouse=True)
def own_settings(monkeypatch):
    """Settings of whoever runs the tests change nothing, and no test knows what another has learned."""
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name.lower() in PROXIES:
            monkeypatch.delenv(name)
    shared_workers.forget()
    yield
    shared_workers.forget()


@pytest.fixture(scope="session", autouse=True)
def nobody_stands_by():
    """A worker's thread starts with its first call, also on those Pythons where it stands by; not so in scripts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "MAIN_ENDS_ALL", False)
        yield


@pytest.fixture(scope="module", autouse=True)
def frozen():
    """What is there before a file of tests stays, and need not be looked through by every collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def short_rests():
    """After trouble that names no wait, calls go again soon: how soon is the subject of tests/core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attempt, "POLICY", replace(attempt.POLICY, initial=0.02))
        for module in (pause, limiter):
            patch.setattr(module, "FIRST_PAUSE", 0.02)
        yield


@pytest.fixture
def forks_are_meant():
    """Python 3.12 warns of every fork of a process with threads, which is what these tests are about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@pytest.fixture
def provider_options():
    """What every provider of a folder is started with, unless a test says otherwise."""
    return {}


@pytest.fixture
def simulator(provider_options):
    """Start a provider: `simulator("groq", rpm=30)`; every one is stopped at the end."""
    running = []

    def start(provider="openai", **options):
        running.append(Simulator(provider, **{**provider_options, **options}).start())
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def door(simulator):
    """Make a client of a door: `door(OpenAI, provider)`; every one is closed at the end, before its provider."""
    made = []

    def make(cls, provider=None, **options):
        options.setdefault("api_key", "sk-test")
        if provider is not None:
            name = "azure_endpoint" if "Azure" in cls.__name__ else "base_url"
            options.setdefault(name, provider.base_url)
        made.append(cls(**options))
        return made[-1]

    yield make
    for client in made:
        client.cancel()
        client.close()
