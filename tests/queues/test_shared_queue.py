"""A client with `queue=`: its calls are sent by a worker elsewhere, and are otherwise as without it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError, as_completed

import anthropic
import groq
import openai
import pytest
from forking import said_in_child
from servers import valkey_server
from waiting import wait_until
from working import KNOWN, ask, job, text_of

from ratelimited_llm.anthropic import Anthropic
from ratelimited_llm.exceptions import BudgetExceeded, RequestExpired, SharedStoreLost
from ratelimited_llm.groq import Groq
from ratelimited_llm.manager import QueueManager
from ratelimited_llm.openai import AsyncOpenAI, AzureOpenAI, OpenAI
from ratelimited_llm.queues import submitting
from ratelimited_llm.queues.answers import Unsendable
from ratelimited_llm.queues.payload import InvalidJob
from ratelimited_llm.queues.submitting import remote_queue


def sender(cls, provider, **options):
    """The client of a worker: the key is its own."""
    where = {"azure_endpoint": provider.base_url} if "Azure" in cls.__name__ else {"base_url": provider.base_url}
    return cls(api_key="sk-worker", queue=False, **{**KNOWN, **where, **options})


@pytest.fixture
def provider(simulator):
    return simulator(answer="echo", api_key="sk-worker")


@pytest.fixture
def client(address, door, worker, provider):
    """A client that submits, and a worker that sends."""
    worker(address, sender(OpenAI, provider))
    return door(OpenAI, address)


def test_calls_become_futures_that_are_their_responses_and_the_key_is_the_workers(client, provider):
    """The provider only takes the worker's key; isinstance, callbacks, as_completed, status: as without a queue."""
    answers = [ask(client, f"n{number}") for number in range(20)]
    assert all(isinstance(answer, openai.types.chat.ChatCompletion) for answer in answers)
    called = []
    answers[0].add_done_callback(called.append)
    assert sorted(text_of(answer.result()) for answer in as_completed(answers)) == sorted(f"n{n}" for n in range(20))
    assert called == [answers[0]]
    assert answers[0].usage.total_tokens > 0
    assert answers[0]._request_id
    assert answers[3].ratelimit.attempts == 1
    assert not answers[3].ratelimit.replayed
    status = client.status()
    assert (status.answered, status.failed, status.queued) == (20, 0, 0)
    assert status.output_tokens == sum(answer.usage.completion_tokens for answer in answers)
    assert provider.counters.answered == 20


def test_equal_calls_are_answered_each_on_its_own(client, provider):
    """Five samples are five answers."""
    samples = [ask(client, "same") for _ in range(5)]
    assert len({text_of(sample) and sample.id for sample in samples}) == 5
    assert provider.counters.answered == 5


def test_streams_raw_answers_blocking_calls_and_parsed_ones_work_too(client):
    """A stream is replayed when it is whole; raw answers are the SDK's; blocking calls return plain objects."""
    chunks = list(ask(client, "one two three", stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two three"
    raw = client.chat.completions.with_raw_response.create(model="m", messages=[{"role": "user", "content": "raw"}])
    assert raw.status_code == 200
    assert text_of(raw.parse()) == "raw"
    plain = ask(client.with_options(mode="blocking"), "plain")
    assert type(plain) is openai.types.chat.ChatCompletion
    with client.chat.completions.with_streaming_response.create(
        model="m", messages=[{"role": "user", "content": "bytes"}]
    ) as response:
        assert json.loads(response.read())["choices"][0]["message"]["content"] == "bytes"
    assert client.embeddings.create(model="e", input=["a", "b"]).data[1].index == 1


def test_the_other_sdks_use_the_same_queue(address, door, worker, simulator):
    """One worker, three providers: each job goes to its own, with its own key and path."""
    providers = {
        Groq: simulator("groq", answer="echo"),
        Anthropic: simulator("anthropic", answer="echo"),
        AzureOpenAI: simulator("azure", answer="echo"),
    }
    versions = {"api_version": "2024-10-21"}
    worker(
        address,
        sender(Groq, providers[Groq]),
        sender(Anthropic, providers[Anthropic]),
        sender(AzureOpenAI, providers[AzureOpenAI], **versions),
    )
    asked = ask(door(Groq, address), "to groq")
    azure = ask(door(AzureOpenAI, address, **versions), "to azure")
    claude = door(Anthropic, address)
    message = claude.messages.create(model="c", max_tokens=50, messages=[{"role": "user", "content": "to anthropic"}])
    assert (text_of(asked), text_of(azure), message.content[0].text) == ("to groq", "to azure", "to anthropic")
    assert isinstance(message, anthropic.types.Message)
    assert isinstance(asked, groq.types.chat.ChatCompletion)
    beta = claude.beta.messages.create(
        model="c", max_tokens=50, messages=[{"role": "user", "content": "beta"}], betas=["output-128k-2025-02-19"]
    )
    assert beta.content[0].text == "beta"


def test_async_calls_wait_for_workers_too(address, worker, provider):
    """`await`, in the same queue."""
    import asyncio

    worker(address, sender(OpenAI, provider))

    async def main():
        async with AsyncOpenAI(api_key="sk-x", base_url="http://127.0.0.1:9", queue=address) as client:
            answers = await asyncio.gather(*(ask(client, f"n{number}") for number in range(5)))
            with pytest.raises(openai.BadRequestError):
                await ask(client, max_tokens=-1)
            return [text_of(answer) for answer in answers]

    assert asyncio.run(main()) == [f"n{number}" for number in range(5)]


def test_errors_come_back_as_the_sdks_own_with_status_and_body(client):
    """The provider's refusal of the call is the very class that the SDK would have raised."""
    answer = ask(client, max_tokens=-5)
    with pytest.raises(openai.BadRequestError) as caught:
        answer.result()
    assert caught.value.status_code == 400
    assert "max_tokens" in caught.value.body["message"]
    assert "working.py" in caught.value.__notes__[0]
    with pytest.raises(openai.BadRequestError):
        ask(client.with_options(mode="blocking"), max_tokens=-5)
    assert client.status().failed == 2


def test_a_provider_that_is_not_there_is_the_sdks_connection_error(address, door, worker):
    """After the worker's retries."""
    worker(address, OpenAI(api_key="k", base_url="http://127.0.0.1:9", queue=False, max_retries=0))
    with pytest.raises(openai.APIConnectionError):
        ask(door(OpenAI, address)).result(10)


def test_our_own_errors_come_back_as_ours(address, door, worker, provider):
    """A call that can never fit the worker's limits, and one whose time is over before anybody takes it."""
    client = door(OpenAI, address)
    late = ask(client.with_options(max_wait=0.01))
    worker(address, sender(OpenAI, provider, tpm=100))
    with pytest.raises(BudgetExceeded) as caught:
        ask(client, "x" * 10_000).result(10)
    assert (caught.value.dimension, caught.value.limit) == ("tpm", 100)
    with pytest.raises(RequestExpired) as expired:
        late.result(10)
    assert expired.value.allowed == 0.01
    assert provider.counters.requests == 0
    with pytest.raises(RequestExpired):
        ask(client.with_options(deadline=0.001), max_tokens=5).result(10)


def test_what_a_queue_does_not_carry_is_refused_at_the_call(client):
    """Files, headers that could hold a key, unknown queries, what is no JSON: at the call, in words."""
    with pytest.raises(InvalidJob, match="files"):
        client.audio.transcriptions.create(model="w", file=("a.wav", b"123"))
    for options in ({"extra_headers": {"Authorization": "Bearer x"}}, {"extra_query": {"a": "b"}}):
        with pytest.raises(InvalidJob):
            ask(client, **options)
    assert client.status().queued == 0
    with pytest.raises(TypeError, match="max_cost"):
        OpenAI(api_key="k", queue=client._runtime.remote.address.server, max_cost=1.0)
    assert text_of(ask(client, extra_body={"seed": 1})) == "hello"


def test_a_cancelled_call_is_not_sent(address, door, worker, provider):
    """While it waits in the queue: the worker hears of it before it sends."""
    client = door(OpenAI, address)
    first, second = ask(client, "cancelled"), ask(client, "kept")
    assert first.cancel()
    with pytest.raises(CancelledError):
        first.result()
    queue = client._runtime.remote
    wait_until(lambda: not queue._given_up)
    worker(address, sender(OpenAI, provider))
    assert text_of(second) == "kept"
    assert provider.counters.requests == 1


def test_high_goes_first_through_queue_and_worker(address, door, worker, simulator):
    """One place, ten low calls waiting, then a high one: it is the next."""
    provider = simulator(answer="echo", latency=0.03)
    client = door(OpenAI, address)
    low = [ask(client.with_options(priority="low"), f"low {number}") for number in range(10)]
    ended = []
    for each in low:
        each.add_done_callback(lambda future: ended.append("low"))
    working = worker(address, sender(OpenAI, provider, max_concurrency=1), concurrency=1)
    wait_until(lambda: working.service.answered >= 2)
    high = ask(client.with_options(priority="high"), "high")
    high.add_done_callback(lambda future: ended.append("high"))
    assert text_of(high) == "high"
    assert ended.index("high") <= 6
    assert [text_of(each) for each in low] == [f"low {number}" for number in range(10)]


def test_a_job_that_waits_too_long_for_a_permit_is_put_back_and_answered_later(address, door, worker, simulator):
    """It does not sleep in the engine: with a limit of 60 a minute and a patience of 0.2 s, it comes back."""
    provider = simulator(answer="echo")
    working = worker(address, sender(OpenAI, provider, rpm=60, burst=1), patience=0.2)
    client = door(OpenAI, address)
    assert [text_of(each) for each in [ask(client, "a"), ask(client, "b")]] == ["a", "b"]
    assert working.service.put_back >= 1
    assert provider.counters.requests == 2


def test_a_job_delivered_again_costs_nothing_when_it_was_answered(address, worker, provider):
    """Three deliveries of one job, and of a job that another worker is at: one request."""
    working = worker(address, sender(OpenAI, provider))
    twice = job()
    for _ in range(3):
        working.engine.submit(twice, "normal")
    wait_until(lambda: working.service.answered == 1)
    working.engine.submit(twice, "normal")
    wait_until(lambda: working.service.known >= 1)
    taken = job()
    working.answers.claim([taken["id"]], "another", 60.0)
    working.engine.submit(taken, "high")
    wait_until(lambda: len(working._client.keys("rll:llm:dramatiq:high.DQ.msgs")) == 1)
    assert provider.counters.requests == 1


def test_a_hostile_job_is_kept_aside_and_its_submitter_hears_of_it(address, worker, provider):
    """It is never sent, and the next one is."""
    working = worker(address, sender(OpenAI, provider))
    hostile = job(path="https://evil.example/v1")
    for bad in (hostile, "text", None, {"v": 1}, job(provider="openai", headers={"authorization": "x"})):
        working.engine.submit({"x": 1} if not isinstance(bad, dict) else bad, "normal")
    good = job()
    working.engine.submit(good, "normal")
    wait_until(lambda: working.service.answered == 1)
    assert working.service.refused == 5
    assert provider.counters.requests == 1
    assert b"refused" in working.answers.read([hostile["id"]])[0]


def test_an_answer_that_was_tampered_with_fails_its_call_only(client):
    """Whoever writes into the server can spoil answers, and not the process that reads them."""
    queue = client._runtime.remote
    calls = []
    keep = queue.engine.submit
    queue.engine.submit = lambda payload, rank: calls.append(payload)
    spoiled = ask(client)
    queue.engine.submit = keep
    queue._client.set(f"rll:llm:result:{calls[0]['id']}", b"\x80junk")
    queue._here.tell(calls[0]["id"], queue.submitter)
    queue._here.tell("\xff*" * 10, queue.submitter)
    with pytest.raises(Unsendable):
        spoiled.result(10)
    assert text_of(ask(client, "next")) == "next"


def test_a_script_that_is_started_again_finds_its_answers_by_its_journal(address, door, worker, provider, tmp_path):
    """The first run was killed while it waited: the second submits the same calls, and nothing is sent twice."""
    working = worker(address, sender(OpenAI, provider))
    first = door(OpenAI, address, journal=tmp_path / "run.db")
    queue = first._runtime.remote
    queue._fetch = lambda ids, said: []  # it never hears of its answers
    for _ in range(2):
        ask(first, "same")
    wait_until(lambda: working.service.answered == 2)
    first._runtime.journal.close()
    submitting._shared.clear()
    second = door(OpenAI, address, journal=tmp_path / "run.db")
    assert [text_of(each) for each in [ask(second, "same"), ask(second, "same")]] == ["same", "same"]
    third = ask(second, "same")
    assert text_of(third) == "same"
    assert provider.counters.requests == 3
    second._runtime.journal.close()
    submitting._shared.clear()
    again = door(OpenAI, address, journal=tmp_path / "run.db")
    assert text_of(ask(again, "same")) == "same"
    assert again.status().replayed == 1
    assert provider.counters.requests == 3


def test_a_queue_manager_works_on_it_unchanged(client):
    """Ids, status, results, callbacks."""
    heard = []
    with QueueManager(client=client) as manager:
        body = {"model": "m", "messages": [{"role": "user", "content": "managed"}]}
        number = manager.enqueue_request(
            "/v1/chat/completions", body, priority="high", callback=lambda *args: heard.append(args[0])
        )
        assert text_of(manager.get_result(number)) == "managed"
        assert manager.get_request_status(number)["status"] == "completed"
        wait_until(lambda: heard == [number])


def test_the_environment_can_name_the_queue(monkeypatch, address, worker, provider):
    """RATELIMITED_LLM_QUEUE; clients of one process and address share one waiting thread."""
    monkeypatch.setenv("RATELIMITED_LLM_QUEUE", address)
    worker(address, sender(OpenAI, provider))
    with OpenAI(api_key="k", base_url="http://127.0.0.1:9") as one, OpenAI(api_key="k") as two:
        assert one._runtime.remote is two._runtime.remote is remote_queue(address)
        assert text_of(ask(one, "by name")) == "by name"


# -- a server that is lost --------------------------------------------------------------------------------------------


def test_calls_survive_a_server_that_hangs_or_is_emptied(door, worker, provider, caplog):
    """Submitted calls go on waiting, said once; a new one fails within about a second; nothing is lost."""
    with valkey_server() as server:
        address = f"dramatiq+{server.url}"
        client = door(OpenAI, address)
        waiting = [ask(client, f"n{number}") for number in range(5)]
        queue = client._runtime.remote
        wait_until(lambda: queue._marked)
        server.stop(signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(SharedStoreLost):
            ask(client, "no")
        assert time.monotonic() - began < 1.5
        server.start()  # with nothing in it
        worker(address, sender(OpenAI, provider))
        assert [text_of(each) for each in waiting] == [f"n{number}" for number in range(5)]
        assert provider.counters.requests == 5
        events = [record.event for record in caplog.records if hasattr(record, "event")]
        assert events.count("queue_lost") == 1
        assert events.count("queue_emptied") == 1
        queue.close()


def test_an_answer_is_not_lost_while_the_server_is(door, worker, simulator):
    """A worker keeps what it could not store, and tries again."""
    provider = simulator(answer="echo", latency=0.4)
    with valkey_server() as server:
        address = f"dramatiq+{server.url}"
        working = worker(address, sender(OpenAI, provider))
        client = door(OpenAI, address)
        answer = ask(client, "kept")
        wait_until(lambda: provider.counters.in_flight == 1)
        server.pause()
        wait_until(lambda: provider.counters.answered == 1)
        server.resume()
        assert text_of(answer) == "kept"
        assert provider.counters.requests == 1
        working.stop()
        client._runtime.remote.close()


# -- real processes ---------------------------------------------------------------------------------------------------


def start_worker(address, provider, *options):
    """`ratelimited-llm worker` in a process of its own; returns when it says that it is there."""
    main = "import sys; from ratelimited_llm.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", main, "worker", "--queue", address, "--provider", "openai", "--rpm", "100k", *options],
        env={**os.environ, **provider.env(), "OPENAI_API_KEY": "sk-worker"},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr.readline().startswith("ratelimited-llm worker: openai for ")
    return process


@pytest.mark.timeout(60)
def test_a_killed_workers_job_is_answered_by_another_and_sigterm_drains(address, door, simulator):
    """kill -9 in mid-call: sent again by the other; SIGTERM in mid-call: finished first, and exit code 0."""
    provider = simulator(answer="echo", latency=0.6)
    client = door(OpenAI, address)
    first = start_worker(address, provider, "--heartbeat", "1")
    answer = ask(client, "survives")
    wait_until(lambda: provider.counters.in_flight == 1)
    first.kill()
    first.communicate()
    second = start_worker(address, provider, "--heartbeat", "1")
    assert text_of(answer) == "survives"
    assert provider.counters.requests == 2
    drained = ask(client, "drained")
    wait_until(lambda: provider.counters.in_flight == 1)
    second.terminate()
    _, said = second.communicate(timeout=20)
    assert second.returncode == 0, said
    assert "2 answered" in said
    assert text_of(drained) == "drained"
    assert "sk-" not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--queue", "redis://h"], "queue="), (["--queue", "dramatiq+redis://:hush@h/0"], "no provider"),
     (["--queue", "dramatiq+redis://h/0", "--provider", "groq"], "GROQ_API_KEY")],
)  # fmt: skip
def test_a_command_line_that_makes_no_sense_ends_with_2(options, said, capsys):
    """And says why, without a password."""
    from ratelimited_llm.cli import main

    assert main(["worker", *options]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "hush" not in told


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forks_child_waits_for_its_own_calls_only(client):
    """The parent's calls are answered in the parent; the child submits and waits by itself."""
    assert text_of(ask(client, "warm")) == "warm"
    mine = ask(client, "parent's")
    said = said_in_child(lambda: f"{type(mine.exception(5)).__name__} {text_of(ask(client, 'child'))}")
    assert said == "WorkerStopped child"
    assert text_of(mine) == "parent's"


def test_keys_of_the_wrong_type_hold_up_nobody(client, server):
    """Somebody has put other things under the names of our keys: answers still arrive."""
    queue = client._runtime.remote
    assert text_of(ask(client, "before")) == "before"
    queue._client.set(f"rll:llm:replies:{queue.submitter}", "no list", ex=60)
    assert text_of(ask(client, "after")) == "after"


def test_celery_carries_the_same_calls(server, door, worker, provider):
    """The second engine, from end to end: answers, errors, priorities, and a stop that leaves nothing behind."""
    address = f"celery+{server.url}"
    client = door(OpenAI, address)
    answers = [ask(client.with_options(priority=priority), priority) for priority in ("low", "high", "normal")]
    working = worker(address, sender(OpenAI, provider), drain=1.0)
    assert [text_of(answer) for answer in answers] == ["low", "high", "normal"]
    with pytest.raises(openai.BadRequestError):
        ask(client, max_tokens=-1).result(10)
    assert working.service.answered == 3
    assert provider.counters.requests == 4


@pytest.mark.timeout(120)
def test_the_jobs_of_a_submitter_that_was_killed_are_sent_all_the_same(address, door, worker, provider):
    """Without a journal nobody reads their answers, and who asks again pays again; a deadline drops what is late."""
    code = f"""
import time
from ratelimited_llm import OpenAI
client = OpenAI(api_key="sk-submitter", queue={address!r})
def ask(text, **options):
    return client.with_options(**options).chat.completions.create(
        model="m", messages=[{{"role": "user", "content": text}}])
futures = [ask("late", deadline=0.5), ask("kept"), ask("kept too")]
time.sleep(0.5)  # its deadline is over
print("submitted", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "submitted"
    process.kill()
    process.communicate()
    worker(address, sender(OpenAI, provider))
    wait_until(lambda: provider.counters.answered == 2)
    assert text_of(ask(door(OpenAI, address), "kept")) == "kept"
    assert sorted(record.tag for record in provider.log) == ["kept", "kept", "kept too"]
