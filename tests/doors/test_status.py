"""What `client.status()` and `future.ratelimit` say is true: during a run, and when everything has ended, however."""

import gc
import os
import random
import re
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait

import pytest
from forking import said_in_child
from talking import ask, text_of
from waiting import wait_until

from ratelimited_llm.books import survey
from ratelimited_llm.openai import OpenAI
from ratelimited_llm.simulator import Fault
from ratelimited_llm.stores.journal_keys import Occurrences

FAULTS = [
    Fault(status=429, probability=0.08), Fault(status=500, probability=0.08), Fault(status=400, probability=0.08),
    Fault("reset", probability=0.04), Fault("truncate", probability=0.04), Fault("malformed", probability=0.04),
]  # fmt: skip
PRICE = {"m": (1, 2), "n": (2, 4)}


def is_settled(client):
    """Nothing is open, nothing is held back for it, and every call ended in one way."""
    status, ledger = client.status(), client._runtime.ledger
    assert (status.queued, status.in_flight, ledger.open) == (0, 0, 0)
    assert status.done == status.submitted == status.total
    assert status.over
    assert status.eta == 0.0
    assert sum(model.answered for model in status.models) == status.answered
    assert sum(model.failed for model in status.models) == status.failed == sum(each.count for each in status.errors)
    assert sum(model.spent or 0.0 for model in status.models) == pytest.approx(status.spent)
    assert status.expected == pytest.approx(status.spent)
    assert ledger.spending.idle
    for book in ledger.pools.values():
        assert (book.waiting, book.flying, book.reserved, book.waiting_input, book.waiting_output) == (0, 0, 0, 0, 0)
    for pool in status.pools:
        assert (pool.queued, pool.in_flight, pool.eta) == (0, 0, 0.0)
    return status


# -- whatever happens, it adds up


def do_something(client, rng, number):
    """One call in one of many ways; answers its future, or None when it has ended."""
    model, text = rng.choice("mn"), f"question {rng.randrange(40)}"
    way = rng.choice(["future", "future", "future", "blocking", "read", "closed", "forgotten", "deadline", "cancelled"])
    if way == "deadline":
        return ask(client.with_options(deadline=rng.choice([0.001, 0.05])), text, model=model)
    if way == "blocking":
        try:
            ask(client.with_options(mode="blocking", max_retries=rng.randrange(2)), text, model=model)
        except Exception:
            return None
        return None
    future = ask(client, text, model=model, stream=way in ("read", "closed", "forgotten"))
    if way == "cancelled":
        future.cancel()
    elif way in ("read", "closed"):
        try:
            if way == "read":
                list(future)
            else:
                future.close()
        except Exception:
            return None
    return None if way == "forgotten" else future


def forgets_all(client):
    gc.collect()  # streams that nobody read
    return client.status().in_flight == 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("journalled", [False, True], ids=["plain", "journal"])
def test_after_any_mixture_of_ends_the_counts_add_up(door, simulator, tmp_path, seed, journalled):
    provider = simulator(latency=(0.0, 0.01), output_tokens=5, faults=FAULTS, seed=seed)
    options = {"journal": tmp_path / "run.db"} if journalled else {}
    client = door(OpenAI, provider, prices=PRICE, max_retries=1, rpm=100_000, max_concurrency=16, **options)

    def work(number):
        rng = random.Random(f"{seed} {number}")
        futures = []
        for each in range(15):
            if journalled and rng.random() < 0.2:
                client._runtime.journal._occurrences = Occurrences()  # the next execution of a cell: replays, followers
            futures.append(do_something(client, rng, each))
        return futures

    with ThreadPoolExecutor(4) as threads:
        futures = [future for made in threads.map(work, range(4)) for future in made if future is not None]
    client.cancel()
    wait(futures, timeout=10)
    for future in futures:
        if not future.cancelled() and future.exception() is None and hasattr(type(future), "__next__"):
            future.close()
    assert client.wait(5)
    wait_until(lambda: forgets_all(client))
    status = is_settled(client)
    assert status.submitted == 60
    assert status.answered > 0
    if journalled:
        client.close()
        client._runtime.journal.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_in_the_child_of_a_fork_the_parents_calls_are_over_and_its_own_count(door, simulator):
    provider = simulator(latency=0.1)
    client = door(OpenAI, provider, prices=PRICE, rpm=100_000)
    futures = [ask(client, str(number)) for number in range(5)]

    def check():
        assert client.wait(1)
        assert text_of(ask(client, "child"))
        status = client.status()
        return status.queued, status.in_flight, status.done - status.submitted, status.answered

    assert said_in_child(check) == "(0, 0, 0, 1)"
    wait(futures)
    assert client.wait(1)
    assert is_settled(client).answered == 5


# -- while it runs


def test_rates_limits_and_the_one_that_binds_are_told(door, simulator):
    provider = simulator(rpm=120, tpm=1_000_000, latency=0.0)
    client = door(OpenAI, provider, burst=1)
    futures = [ask(client, str(number)) for number in range(200)]
    futures[3].result()
    status = client.status()
    (pool,) = status.pools
    limits = {limit.dimension: limit for limit in pool.limits}
    assert (limits["rpm"].limit, limits["tpm"].limit) == (120, 1_000_000)
    assert [name for name in limits if limits[name].binds] == ["rpm"]
    assert {limit.source for limit in pool.limits} == {"learned"}
    assert all(0.0 <= limit.learned <= status.elapsed for limit in pool.limits)
    assert pool.requests_per_minute == limits["rpm"].used == len(provider.log)
    assert 0 < limits["tpm"].used < 1_000_000
    assert pool.queued == status.queued == 200 - status.done - status.in_flight
    assert status.eta > 0
    client.cancel()


def test_the_eta_of_a_run_of_three_seconds_is_right_within_a_fifth_in_real_time(door, simulator):
    client = door(OpenAI, simulator(latency=0.05), rpm=1_200, burst=1)  # 20 a second
    began = time.monotonic()
    futures = [ask(client, str(number)) for number in range(60)]
    futures[10].result()
    told, at = client.status().eta, time.monotonic()
    eta_of_last = futures[-1].ratelimit.eta
    wait(futures)
    left = time.monotonic() - at
    assert 2.0 < time.monotonic() - began < 4.5
    assert told == pytest.approx(left, rel=0.2)
    assert eta_of_last == pytest.approx(left, rel=0.3)


def test_the_eta_counts_the_calls_that_a_batch_has_not_submitted_yet(door, simulator):
    """A batch hands in some thousands at a time; its end is that of all of its lines."""
    client = door(OpenAI, simulator(latency=0.05), rpm=600, burst=1)  # ten a second
    futures = [ask(client, str(number)) for number in range(20)]
    futures[0].result()
    soon = client.status().eta
    client._runtime.ledger.expect(620)
    assert soon < 5 < 55 < client.status().eta < 65
    client.cancel()
    assert client.wait(5)
    assert client.status().eta == 0.0


@pytest.mark.parametrize(
    ("told", "sent", "elapsed", "eta"),
    [(10.0, 300, 59.0, 10.0), (10.0, 300, 61.0, 200.0), (500.0, 300, 61.0, 500.0), (None, 300, 61.0, 200.0),
     (None, 300, 9.0, None), (10.0, 0, 61.0, 10.0)],
)  # fmt: skip
def test_the_eta_is_no_sooner_than_the_pace_of_the_last_minute_allows(told, sent, elapsed, eta):
    """A thousand calls are left; limits alone would promise what a busy machine does not keep."""

    class Outlook:
        def answered_in(self, calls):
            return told

    assert survey._eta(Outlook(), 1_000, sent, elapsed) == eta


def test_a_future_tells_how_its_call_fares_in_every_state(door, simulator):
    provider = simulator(latency=0.1, faults=[Fault(status=400, at=(3,))])
    client = door(OpenAI, provider, rpm=100_000, max_concurrency=1)
    first, second, third, fourth = (ask(client, str(number)) for number in range(4))
    wait_until(lambda: first.ratelimit.state == "running")
    running, queued = first.ratelimit, second.ratelimit
    assert (running.attempts, running.place, running.replayed) == (1, None, False)
    assert running.sent_s >= 0.0
    assert (queued.state, queued.sent_s, queued.attempts) == ("queued", None, 0)
    assert fourth.cancel()
    wait([first, second, third])
    done, failed, cancelled = second.ratelimit, third.ratelimit, fourth.ratelimit
    assert (done.state, failed.state, cancelled.state) == ("done", "failed", "cancelled")
    assert done.queued_s >= 0.09
    assert 0.09 < done.sent_s < 1.0
    assert (done.attempts, failed.attempts, cancelled.attempts) == (1, 1, 0)
    assert (done.place, done.eta, done.held_by) == (None, None, None)
    assert third.exception().status_code == 400


def test_refusals_and_retries_are_counted_and_told(door, simulator):
    provider = simulator(faults=[Fault(status=429, at=(1,), headers={"retry-after-ms": "10"}), Fault(at=(2,))])
    client = door(OpenAI, provider)
    future = ask(client, "x")
    assert future.choices
    status = client.status()
    assert (status.refused, status.retries, status.answered) == (1, 1, 1)
    assert future.ratelimit.attempts == 3


# -- thousands of pending futures


def test_thousands_of_pending_futures_are_shown_without_a_wait(door, simulator):
    client = door(OpenAI, simulator(latency=0.2), rpm=60, burst=1)
    futures = [ask(client, "x") for _ in range(1_500)]
    began = time.thread_time()
    shown = [repr(future) for future in futures]
    used = time.thread_time() - began
    assert used < 1.0  # some 0.05 s
    assert max(map(len, shown)) <= 50
    queued = [text for text in shown if "queued" in text]
    assert len(queued) > 1_400
    wait_until(lambda: futures[-1].ratelimit.place)  # a count serves for half a second, and may not know it yet
    assert re.fullmatch(r"<ResponseFuture queued 14\d\d/14\d\d ~\S+>", repr(futures[-1]))
    assert sum(future.done() for future in futures) < 100
    assert client.cancel() > 1_400
    with pytest.raises(CancelledError):
        futures[-1].result()


def test_a_status_is_told_quickly_while_thousands_wait(door, simulator):
    client = door(OpenAI, simulator(), rpm=60, burst=1)
    for _ in range(1_000):
        ask(client, "x")
    began = time.thread_time()
    for _ in range(20):
        client.status()
    assert time.thread_time() - began < 0.2
    client.cancel()


def test_status_may_be_asked_from_any_thread_at_any_time(door, simulator):
    client = door(OpenAI, simulator(), rpm=100_000)
    over, wrong = threading.Event(), []

    def look():
        while not over.is_set():
            status = client.status()
            if status.done + status.queued + status.in_flight != status.submitted:
                wrong.append(status)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait([ask(client, str(number)) for number in range(100)])
    over.set()
    for thread in threads:
        thread.join()
    assert wrong == []
