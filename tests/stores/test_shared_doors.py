"""Clients, executors and command lines that share a budget: with another process, an operator, and the next script."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import threading
import time
import weakref
from concurrent.futures import wait

import pytest
from waiting import wait_until

from ratelimited_llm import OpenAI, QueueManager, RateLimitedExecutor, budgets, queued
from ratelimited_llm.aio import AsyncRateLimitedWorker
from ratelimited_llm.cli import batch
from ratelimited_llm.cli.clients import ClientError, add_client_options, client_for
from ratelimited_llm.core.request import Cost
from ratelimited_llm.exceptions import SharedStoreLost
from ratelimited_llm.processors import Processor
from ratelimited_llm.stores.opening import open_store
from ratelimited_llm.stores.shared_budget import SharedBudget

ASK = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}


@pytest.fixture
def budget(tmp_path):
    """A file that nobody else knows."""
    return f"sqlite:///{tmp_path}/budget.db"


@pytest.fixture
def store(budget):
    """What an operator's command line opens."""
    store = open_store(budget)
    yield store
    store.control(paused=False)  # else a test that has failed leaves calls that wait for ever
    store.close()


def test_what_one_client_has_learned_another_process_knows(simulator, budget, store):
    """Limits and what is left of them; the key is nowhere in the file."""
    provider = simulator(rpm=600, tpm=60_000)
    with OpenAI(api_key="sk-very-secret", base_url=provider.base_url, budget=budget) as client:
        client.chat.completions.create(**ASK).choices[0]
        wait_until(lambda: {each.dimension for pool in store.pools() for each in pool.limits} == {"rpm", "tpm"})
        (pool,) = store.pools()
        assert "sk-very-secret" not in pool.name
    with open(budget.removeprefix("sqlite:///"), "rb") as file:
        assert b"sk-very-secret" not in file.read()
    other = SharedBudget(lambda: open_store(budget))  # another process has another one
    pool = client._account(client._runtime).pool(ASK["model"])
    waits = [other.reserve(pool, key, Cost(10, 10, 5, 5), time.monotonic()) for key in range(3)]
    assert max(waits) < 0.1, "the ramp, and not the first answer of an unknown provider"
    assert {each.dimension for each in other.survey(pool, time.monotonic()).standings} == {"rpm", "tpm"}
    other.close()


def test_an_operators_pause_and_its_end_reach_a_client_that_waits(simulator, budget, store):
    """Within the half second after which a paused pool is asked again."""
    provider = simulator(rpm=6_000)
    store.control(paused=True)
    with OpenAI(api_key="k", base_url=provider.base_url, budget=budget) as client:
        answer = client.chat.completions.create(**ASK)
        wait_until(lambda: [member.facts["queued"] for member in store.members()] == [1])
        told = store.members()[0].facts["priorities"], provider.counters.requests
        resumed = time.monotonic()
        store.control(paused=False)
        assert answer.choices
        assert time.monotonic() - resumed < 1.5
    assert told == ({"5": 1}, 0)


def test_cancelling_a_tag_reaches_every_kind_of_call(simulator, budget, store):
    """Of clients, executors, managers and tasks; calls without the tag go on."""
    provider = simulator()
    store.control(paused=True)

    class Echo(Processor):
        def process(self, payload):
            return payload

    async def tasks():
        worker = AsyncRateLimitedWorker(rpm=60, budget=budget)
        return await asyncio.wait_for(
            asyncio.gather(worker.run(asyncio.sleep, 0, tag="nightly"), return_exceptions=True), 10.0
        )

    client = OpenAI(api_key="k", base_url=provider.base_url, budget=budget, tag="nightly")
    executor = RateLimitedExecutor(rpm=60, budget=budget)
    manager = QueueManager(Echo(), rpm=60, budget=budget)
    futures = [client.chat.completions.create(**ASK), executor.with_options(tag="nightly").submit(int)]
    wrapped = queued(_plain(provider), budget=budget)
    futures.append(wrapped.with_options(tag="nightly").chat.completions.create(**ASK))
    kept = [client.with_options(tag="").chat.completions.create(**ASK), executor.submit(int)]
    request = manager.enqueue_request("x", {}, tag="nightly")
    result: list[object] = []
    thread = threading.Thread(target=lambda: result.extend(asyncio.run(tasks())))
    thread.start()
    wait_until(lambda: budgets.budget_for(budget).waiting() == 7)
    store.control(cancel="nightly")
    wait(futures, 8.0)
    thread.join(8.0)
    assert all(future.cancelled() or future.exception() is not None for future in futures)
    assert [type(each).__name__ for each in result] == ["CancelledError"]
    wait_until(lambda: manager.get_request_status(request)["status"] == "cancelled")
    assert not any(future.done() for future in kept)
    store.control(paused=False)
    wait(kept, 8.0)
    assert kept[1].result() == 0
    manager.stop()
    executor.shutdown()
    client.close()


def _plain(provider):
    import openai

    return openai.OpenAI(api_key="k", base_url=provider.base_url)


def test_calls_fail_at_once_without_the_store_where_that_is_wanted(simulator):
    """`on_budget_lost="raise"`; nothing is sent."""
    provider = simulator()
    client = OpenAI(
        api_key="k", base_url=provider.base_url, budget="redis://:s3cret@127.0.0.1:1/0", on_budget_lost="raise"
    )
    with client, pytest.raises(SharedStoreLost) as caught:
        client.chat.completions.create(**ASK).choices  # noqa: B018
    assert "s3cret" not in str(caught.value)
    assert provider.counters.requests == 0


def test_without_the_store_calls_are_answered_all_the_same(simulator):
    """By what this process learns by itself."""
    provider = simulator(rpm=600)
    with OpenAI(api_key="k", base_url=provider.base_url, budget="redis://127.0.0.1:1/0") as client:
        answers = [client.chat.completions.create(**ASK) for _ in range(5)]
        assert all(each.choices for each in answers)
    assert provider.counters.refused == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_the_child_of_a_fork_is_a_process_of_its_own(budget, store):
    """With a name of its own at the store, and without the parent's bookings and threads."""
    executor = RateLimitedExecutor(rpm=6_000, budget=budget)
    assert executor.submit(int).result() == 0
    wait_until(lambda: len(store.members()) == 1)
    child = os.fork()
    if not child:
        code = 1
        try:
            executor.submit(int).result(5.0)
            wait_until(lambda: len(open_store(budget).members()) == 2)
            budgets.close_budgets()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert executor.submit(int).result() == 0
    executor.shutdown()
    budgets.close_budgets()
    assert store.members() == []


def test_auto_remembers_for_the_next_script(simulator, tmp_path, monkeypatch):
    """Its first calls go together then."""
    monkeypatch.setenv("RATELIMITED_LLM_STATE", str(tmp_path))
    provider = simulator(rpm=600, latency=0.2)
    for _ in range(2):
        with OpenAI(api_key="k", base_url=provider.base_url, budget="auto") as client:
            answers = [client.chat.completions.create(**ASK) for _ in range(4)]
            assert all(each.choices for each in answers)
        budgets.forget_budgets()
    log = provider.log
    assert log[1].arrived >= log[0].finished, "the first script lets one go ahead"
    assert log[5].arrived < log[4].finished


def test_a_password_is_left_out_of_the_line_that_says_how_to_resume(monkeypatch):
    """That line ends up in logs."""
    url = "redis://:s3cret@127.0.0.1:1/0"
    for words in (["--budget", url], [f"--budget={url}"]):
        monkeypatch.setattr(sys, "argv", ["ratelimited-llm", "batch", "rows.jsonl", "-o", "out.jsonl", *words])
        line = batch._resume(argparse.Namespace(output="out.jsonl"))
        assert "s3cret" not in line
        assert "127.0.0.1:1" in line


def test_a_command_line_makes_a_client_that_shares(budget, monkeypatch):
    """`--budget` and `--tag`."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    parser = argparse.ArgumentParser()
    add_client_options(parser)
    client = client_for(parser.parse_args(["--budget", budget, "--tag", "nightly", "--base-url", "http://127.0.0.1:1"]))
    assert client._runtime.worker.budget is budgets.budget_for(budget)
    assert client._runtime.options.tag == "nightly"
    with pytest.raises(ClientError, match="sqlite"):
        client_for(parser.parse_args(["--budget", "disk"]))


def test_the_budget_of_an_executor_that_is_gone_is_gone(budget):
    """With its thread and its file; what was counted for operators stays, and holds nothing."""
    executor = RateLimitedExecutor(budget=budget, rpm=600)
    assert executor.submit(str, "x").result(10) == "x"
    gone = weakref.ref(executor._worker.budget)
    executor.shutdown()
    del executor
    end = time.monotonic() + 10.0
    while gone() is not None and time.monotonic() < end:  # a thread of it may still be on its way out
        gc.collect()
        time.sleep(0.01)
    assert gone() is None
