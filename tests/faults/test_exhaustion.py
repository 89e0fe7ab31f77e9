"""What runs out from the very first call on: threads, files, the disk, and somewhere to write to. In real time.

Each is a process of its own, which says what became of its calls as one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest imports files without their directory

from ratelimited_llm.simulator import Simulator
from ratelimited_llm.stores.journal import Journal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and mounts as Linux has them")

# What every process begins with: how to ask through each door, and how to say what came of it.
BEGIN = """
import asyncio, json, os, resource, sys, threading, time
sys.path.insert(0, FAULTS)
from ratelimited_llm import AsyncOpenAI, Groq, OpenAI, RateLimitedExecutor, requests
from ratelimited_llm.manager import QueueManager

URL, HERE = sys.argv[1], sys.argv[2]
OURS = {"progress": False, "max_retries": 0, "timeout": 20}

def question(text="hello"):
    return {"model": "m", "messages": [{"role": "user", "content": text}]}

def said(answer):
    return answer.choices[0].message.content

def outcome(ask):
    try:
        return ask()
    except Exception as error:
        return f"{type(error).__name__}: {error}"

class Doors:
    def __init__(self, **options):
        self.client = OpenAI(base_url=URL, api_key="sk-test", **OURS, **options)
        self.session = requests.Session(progress=False)
        self.executor = RateLimitedExecutor()
        self.manager = QueueManager(client=self.client)
        self.ways = {
            "future": lambda: said(self.client.chat.completions.create(**question()).result(20)),
            "blocking": lambda: said(
                self.client.with_options(mode="blocking").chat.completions.create(**question())
            ),
            "stream": lambda: "".join(
                each.choices[0].delta.content or "" for each in
                self.client.chat.completions.create(**question(), stream=True) if each.choices
            ),
            "task": lambda: asyncio.run(self.task()),
            "requests": lambda: self.session.post(URL + "/chat/completions", json=question(), timeout=20)
                .json()["choices"][0]["message"]["content"],
            "executor": lambda: self.executor.submit(str, "hello").result(20),
            "manager": lambda: said(self.manager.get_result(
                self.manager.enqueue_request("chat.completions", question()), 20)),
        }
    async def task(self):
        async with AsyncOpenAI(base_url=URL, api_key="sk-test", **OURS) as client:
            return said(await client.chat.completions.create(**question()))
    def all(self):
        return {name: outcome(way) for name, way in self.ways.items()}
    def close(self):
        self.manager.stop(); self.executor.shutdown(); self.client.close(); self.session.close()

def say(**what):
    os.write(1, json.dumps(what).encode() + b"\\n")
"""
DOORS = ["future", "blocking", "stream", "task", "requests", "executor", "manager"]
ANSWERED = dict.fromkeys(DOORS, "hello")


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with Simulator("openai", answer="echo", latency=0.005) as simulator:
        yield simulator


@pytest.fixture
def outcomes(provider: Simulator, warm_python: list[str]) -> Callable[[Path, str], list[Any]]:
    """Run a script after `BEGIN`, which may leave files here; answers what it said. It must end by itself, and well."""

    def run(here: Path, body: str) -> list[Any]:
        text = f"FAULTS = {str(Path(__file__).parent)!r}" + BEGIN + body
        ended = subprocess.run(
            [*warm_python, "-c", text, provider.base_url, str(here)], capture_output=True, timeout=100,
            env={**os.environ, "NO_PROXY": "127.0.0.1"}, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, (ended.returncode, ended.stdout[-2000:], ended.stderr[-2000:])
        return [json.loads(line) for line in ended.stdout.splitlines()]

    return run


# -- threads and files ------------------------------------------------------------------------------------------------

THREADS_AND_FILES = """
from middle import Middle, open_files
from ratelimited_llm.engine import engine, lifecycle

engine.MAIN_ENDS_ALL = False  # no worker's thread stands by, as on every other Python
doors = Doors(journal=HERE + "/run.db")
middle = Middle(doors, 1, [])
middle.no_threads()
say(**doors.all())
middle.undo()
say(**doors.all())

while any(worker.engine.senders.threads for worker in lifecycle._all()):
    for worker in lifecycle._all():
        worker.engine.senders.dismiss()
    time.sleep(0.01)
middle.no_threads()
say(**doors.all())
middle.undo()
doors.close()

doors = Doors()
doors.executor.submit(str).result(20)
RateLimitedExecutor(journal=HERE + "/run.db", key=str).shutdown()  # what is imported at first needs files, too
first = open_files()
middle.no_files()
say(journal=outcome(lambda: RateLimitedExecutor(journal=HERE + "/other.db", key=str)),
    **{name: outcome(way) for name, way in doors.ways.items() if name != "task"})
middle.undo()
say(**doors.all())
doors.close()
end = time.monotonic() + 10
while open_files() > first and time.monotonic() < end:
    time.sleep(0.01)
say(left=open_files() - first)
"""


def test_without_a_thread_or_a_file_every_call_ends_with_what_to_do_and_the_next_one_is_served(outcomes, tmp_path):
    """No door hangs; where the worker's thread is the only one it answers late, one by one; no file is left open.

    A connection that cannot be made is the SDK's own error. An event loop needs files of its own, so tasks have none.
    """
    no_threads, again, one_thread, no_files, served, end = outcomes(tmp_path, THREADS_AND_FILES)
    assert list(no_threads) == DOORS
    assert {name for name, words in no_threads.items() if "ulimit -u" not in words} == set()
    assert again == one_thread == served == ANSWERED
    journal = no_files.pop("journal")
    assert journal.startswith("JournalError") and "other.db" in journal, journal  # noqa: PT018
    assert no_files.pop("executor") == "hello"
    assert {name: words.partition(":")[0] for name, words in no_files.items()} == {
        **dict.fromkeys(["future", "blocking", "stream", "manager"], "APIConnectionError"),
        "requests": "ConnectionError",
    }
    assert end["left"] <= 0


# -- the disk ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few pages, which can really be full."""
    disk, mount = tmp_path / "disk", ["mount", "-t", "tmpfs", "-o", "size=2m", "none"]
    disk.mkdir()
    mounted = subprocess.run([*mount, disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"only root can mount a small disk: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


SMALL_DISK = """
def fill():
    with open(HERE + "/filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 1024)
        except OSError as error:
            assert error.errno == 28, error  # ENOSPC
def make_client(name="run", **more):
    return OpenAI(base_url=URL, api_key="sk-test", rpm=6000, **OURS,
                  **{"budget": f"sqlite:///{HERE}/budget.db", "journal": HERE + f"/{name}.db", **more})
def begin(name):
    with make_client(name) as client:
        return ask(client, name)
def ask(client, name):
    ways = client, client.with_options(mode="blocking")
    ask = lambda number: said(ways[number % 2].chat.completions.create(**question(f"{name} {number} " + "x" * 5000)))
    return [outcome(lambda: ask(number))[:9] for number in range(4)]
"""
FULL = (
    SMALL_DISK
    + """
with make_client() as client:
    say(told=ask(client, "early"))
    fill()
    say(told=ask(client, "fully"))
    os.unlink(HERE + "/filler")
    time.sleep(0.3)  # the journal's rest between two tries
    say(told=ask(client, "later"))
fill()
say(journal=outcome(lambda: begin("other")))
with make_client(journal=None, budget=f"sqlite:///{HERE}/new.db") as client:
    say(told=ask(client, "alone"))
"""
)
READ_ONLY = (
    SMALL_DISK
    + """
say(journal=outcome(lambda: begin("third")))
with make_client(journal=None) as client:
    say(told=ask(client, "read-"))
"""
)


def test_a_disk_that_is_full_or_read_only_stops_no_answer_and_loses_none(outcomes, small_disk):
    """ENOSPC itself, for the journal and the shared budget. What could not be kept is kept when there is room again."""
    early, fully, later, on_full, alone = outcomes(small_disk, FULL)
    (small_disk / "filler").unlink()
    with Journal(small_disk / "run.db") as journal:
        assert journal.stats().answered == 12
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    on_read_only, read_only = outcomes(small_disk, READ_ONLY)
    for name, found in (("early", early), ("fully", fully), ("later", later), ("alone", alone), ("read-", read_only)):
        assert found["told"] == [f"{name} {number} x" for number in range(4)]
    for name, found in (("other", on_full), ("third", on_read_only)):
        answers = found["journal"]
        assert isinstance(answers, list) or (answers.startswith("JournalError") and f"{name}.db" in answers), answers


# -- somewhere to write -----------------------------------------------------------------------------------------------

NOWHERE_TO_WRITE = """
def broken_pipe():
    read, write = os.pipe()
    os.close(read)
    return write

with OpenAI(base_url=URL, api_key="sk-test", rpm=2400, burst=1, progress="bar", journal=HERE + "/run.db") as client:
    for name, end in (("a full device", os.open("/dev/full", os.O_WRONLY)), ("a broken pipe", broken_pipe())):
        os.dup2(end, 2)
        answers = [client.chat.completions.create(**question(f"{name} {number}")) for number in range(24)]
        time.sleep(0.3)
        say(told=[said(each) for each in answers])
    os.close(2)
    answers = [client.chat.completions.create(**question(f"nothing {number}")) for number in range(24)]
    say(told=[said(each) for each in answers])
client = OpenAI(base_url=URL, api_key="sk-test", rpm=600, burst=1)
for number in range(14):  # left to be drained at the end, of which a word is said after a second
    client.chat.completions.create(**question(f"drained {number}"))
"""


def test_progress_and_logs_that_nobody_can_read_cost_no_answer(outcomes, provider, tmp_path):
    """Nor does the script end otherwise than it would have."""
    before = len(provider.log)
    told = outcomes(tmp_path, NOWHERE_TO_WRITE)
    for name, found in zip(("a full device", "a broken pipe", "nothing"), told, strict=True):
        assert found["told"] == [f"{name} {number}" for number in range(24)]
    assert sum(each.tag.startswith("drained") for each in provider.log[before:]) == 14
