"""Calls that wait for another process, or another call, to get the answer: they are in the queue like all others."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
from concurrent.futures import wait
from pathlib import Path

import pytest
from forking import said_in_child
from talking import ask, text_of
from waiting import wait_until, wait_until_collected

from ratelimited_llm import RequestExpired
from ratelimited_llm.openai import OpenAI
from ratelimited_llm.simulator import Fault
from ratelimited_llm.stores.journal import call_key
from ratelimited_llm.stores.journal_keys import Occurrences

PACKAGE = Path(__file__).parents[2]
BODY = {"messages": [{"role": "user", "content": "x"}], "model": "m"}
KEYS = [call_key("openai@loopback", "/chat/completions", body) for body in (BODY, {**BODY, "stream": True})]
OTHER = """
import sys
from ratelimited_llm.stores.journal import Journal
journal = Journal(sys.argv[1])
for key in map(bytes.fromhex, sys.argv[2:]):
    journal.enlist(key, 0)
    claimed = journal.claim(key, 0)
print(claimed, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


@pytest.fixture
def other(path):
    """Another process that has the call in flight, as a stream and not, until it is killed."""
    command = [sys.executable, "-c", OTHER, str(path), *(key.hex() for key in KEYS)]
    env = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as child:
        assert "Claimed" in child.stdout.readline()
        yield child
        child.kill()


@pytest.fixture
def client(door, simulator, path):
    made = door(OpenAI, simulator(), journal=path)
    yield made
    made.cancel()
    made.close()
    journal = made._runtime.journal
    watching = journal._watch._thread
    journal.close()
    if watching is not None and watching.is_alive():
        watching.join(10)


@pytest.fixture
def pair(door, simulator, path):
    """A client whose provider takes a while, and a function that asks the same thing again as the next cell would."""
    made = door(OpenAI, simulator(latency=0.3), journal=path)
    first = ask(made, "x")

    def second(**options):
        made._runtime.journal._occurrences = Occurrences()
        return ask(made.with_options(**options) if options else made, "x")

    yield made, first, second
    made.close()
    made._runtime.journal.close()


def follows(client):
    """Wait until the call has met the other process."""
    wait_until(lambda: client._runtime.journal._watch._waiting)


# -- another process


def test_a_call_of_another_process_is_waited_for_in_the_queue(other, client):
    future = ask(client, "x")
    follows(client)
    status = client.status()
    assert (status.queued, status.in_flight) == (1, 0)
    assert not future.running()
    assert future.ratelimit.state == "queued"
    assert repr(future).startswith("<ResponseFuture queued")
    assert not client.wait(0.01)


def test_when_that_process_dies_the_call_is_sent_and_counted_as_perhaps_paid(other, client):
    future = ask(client, "x")
    follows(client)
    other.send_signal(signal.SIGTERM)
    assert text_of(future)
    status = client.status()
    assert (status.answered, status.replayed, status.perhaps_paid) == (1, 0, 1)


def test_a_stream_that_was_waited_for_and_is_forgotten_gives_its_place_back(other, client):
    future = ask(client, "x", stream=True)
    follows(client)
    other.kill()
    assert future.result(5) is not None
    del future

    wait_until_collected(lambda: client.status().in_flight == 0)


@pytest.mark.parametrize("how", ["the future", "the client"])
def test_it_can_be_cancelled(other, client, how):
    future = ask(client, "x")
    follows(client)
    assert future.cancel() if how == "the future" else client.cancel() == 1
    assert future.cancelled()
    assert client.wait(1)
    assert client.status().cancelled == 1


@pytest.mark.parametrize("option", ["deadline", "max_wait"])
@pytest.mark.parametrize("mode", ["future", "blocking"])
def test_it_waits_no_longer_than_its_time(other, client, option, mode):
    hurried = client.with_options(mode=mode, **{option: 0.1})
    with pytest.raises(RequestExpired, match=r"0\.1 s"):
        text_of(ask(hurried, "x"))
    status = client.status()
    assert (status.failed, status.queued, status.done) == (1, 0, 1)
    assert [error.text for error in status.errors] == ["RequestExpired"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_in_the_child_of_a_fork_it_has_ended(other, client):
    future = ask(client, "x")
    follows(client)
    assert "WorkerStopped" in said_in_child(lambda: repr(future.exception(1)))
    assert future.cancel()


def test_a_script_that_ends_waits_for_it(other, simulator, path):
    """It would be lost otherwise: nobody but this process knows that it is wanted."""
    provider = simulator(latency=0.01)
    script = """
import sys
from ratelimited_llm import OpenAI
client = OpenAI(journal=sys.argv[1])
future = client.chat.completions.create(messages=[{"role": "user", "content": "x"}], model="m")
future.add_done_callback(lambda future: print("answered", flush=True))
print("end", flush=True)
"""
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env={**os.environ, **provider.env(), "PYTHONPATH": str(PACKAGE)},
    )  # fmt: skip
    with child:
        assert child.stdout.readline() == "end\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.2)
        assert child.poll() is None
        other.kill()
        assert child.stdout.read() == "answered\n"
    assert provider.counters.requests == 1


# -- another call of the same process


def test_a_follower_in_the_same_process_expires_and_leaves_the_other_alone(pair):
    client, first, second = pair
    with pytest.raises(RequestExpired):
        second(deadline=0.05).result()
    assert first.choices
    status = client.status()
    assert (status.answered, status.failed, status.replayed, status.done) == (1, 1, 0, 2)


def test_a_follower_that_is_forgotten_is_no_harm(pair):
    client, first, second = pair
    second()
    gc.collect()
    assert first.choices
    assert client.wait(1)
    assert client.status().replayed == 1


def test_a_run_lasts_until_its_last_answer_even_if_that_is_of_the_journal(pair):
    """A run of nothing but answers from there was told to have ended when it began."""
    client, first, second = pair
    assert first.choices
    assert client.wait(1)
    ledger, clock = client._runtime.ledger, client._runtime.ledger.clock
    ledger.clock = lambda: clock() + 100.0
    assert second().choices
    assert client.status().elapsed > 99.0
    ledger.clock = clock


def test_closing_waits_for_followers(pair):
    client, first, second = pair
    follower = second()
    client.close()
    assert first.done()
    assert text_of(follower) == text_of(first)


def test_a_worker_that_is_shut_down_ends_its_followers(pair):
    client, first, second = pair
    follower = second()
    client._runtime.worker.shutdown(cancel_futures=True)
    wait([first, follower], timeout=2)
    assert follower.cancelled()
    assert first.choices


# -- streams in their readers' hands


@pytest.mark.parametrize("mode", ["future", "blocking"])
def test_a_cell_that_was_interrupted_in_a_stream_is_run_again_and_recorded(door, simulator, path, mode):
    """What it was interrupted in is kept by its traceback, and would never end."""
    provider = simulator(faults=[Fault("stall", seconds=0.3, at=(1,))])  # so that it comes in two pieces
    client = door(OpenAI, provider, journal=path, mode=mode)
    interrupted = ask(client, "x", stream=True)
    next(iter(interrupted))
    for _ in range(2):
        client._runtime.journal._occurrences = Occurrences()
        assert list(ask(client, "x", stream=True))
        assert provider.counters.requests == 2
    interrupted.close()
    client._runtime.journal.close()


def test_who_follows_a_stream_is_not_held_up_by_its_reader(door, simulator, path):
    client = door(OpenAI, simulator(latency=0.2), journal=path)
    first = ask(client, "x", stream=True)
    client._runtime.journal._occurrences = Occurrences()
    second = ask(client, "x", stream=True)
    assert [list(each.result(10)) != [] for each in (second, first)] == [True, True]
    client._runtime.journal.close()
