"""The async doors: tasks wait in the queue of the process, inside the same limits as its threads."""

import asyncio
import gc
import threading
import time

import pytest

from ratelimited_llm import AsyncRateLimitedWorker, RequestExpired
from ratelimited_llm.anthropic import AsyncAnthropic
from ratelimited_llm.groq import AsyncGroq
from ratelimited_llm.openai import (
    AsyncAzureOpenAI,
    AsyncOpenAI,
    AuthenticationError,
    InternalServerError,
    OpenAI,
    RateLimitError,
)
from ratelimited_llm.simulator import Fault


def ask(client, text="hello", **more):
    body = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": text}], **more}
    return client.chat.completions.create(**body)


def message(client, text="hello"):
    return client.messages.create(model="claude-opus-4-6", max_tokens=20, messages=[{"role": "user", "content": text}])


def run(main):
    """Run a coroutine function on a loop of its own, and leave nothing behind."""
    try:
        return asyncio.run(main())
    finally:
        gc.collect()


def test_without_asyncios_loop_a_call_says_what_it_takes(simulator):
    """Under trio, say; nothing stays queued, and the client goes on."""
    client = AsyncOpenAI(base_url=simulator().base_url, api_key="sk-test")
    with pytest.raises(RuntimeError, match=r"asyncio.*trio"):
        ask(client).send(None)
    status = client.status()
    assert (status.failed, status.queued, status.in_flight) == (1, 0, 0)

    async def main():
        async with client:
            assert (await ask(client)).choices

    run(main)


@pytest.mark.parametrize(
    ("cls", "provider", "call"),
    [(AsyncOpenAI, "openai", ask), (AsyncGroq, "groq", ask), (AsyncAnthropic, "anthropic", message)],
    ids=["openai", "groq", "anthropic"],
)
def test_gathered_calls_are_answered_within_the_limits(simulator, cls, provider, call):
    provider = simulator(provider, rpm=120, latency=0.01)

    async def main():
        async with cls(base_url=provider.base_url, api_key="sk-test", rpm=120) as client:
            await asyncio.gather(*[call(client, str(number)) for number in range(122)])
            return client.status()

    status = run(main)
    assert (status.answered, status.queued, status.in_flight) == (122, 0, 0)
    assert provider.counters.refused == 0


def test_azure_is_awaited_too(simulator):
    provider = simulator("azure")

    async def main():
        async with AsyncAzureOpenAI(azure_endpoint=provider.base_url, api_key="k", api_version="2024-10-21") as client:
            return await ask(client)

    assert run(main).choices


def test_tasks_and_threads_share_one_budget(door, simulator):
    provider = simulator(rpm=60, latency=0.01)
    sync = door(OpenAI, provider)
    futures = [ask(sync, str(number)) for number in range(40)]

    async def main():
        async with AsyncOpenAI(base_url=provider.base_url, api_key="sk-test") as client:
            await asyncio.gather(*[ask(client, str(number)) for number in range(22)])

    run(main)
    assert all(future.choices for future in futures)
    assert provider.counters.refused == 0
    assert provider.counters.answered == 62  # two more than the limit holds at once


def test_an_urgent_task_goes_before_a_backlog_of_threads(door, simulator):
    provider = simulator(rpm=6_000, latency=0.01)
    sync = door(OpenAI, provider, min_interval=0.02, priority="low")
    futures = [ask(sync, str(number)) for number in range(60)]

    async def main():
        client = AsyncOpenAI(base_url=provider.base_url, api_key="sk-test", min_interval=0.02, priority="high")
        async with client:
            await ask(client)
        return sum(future.done() for future in futures)

    assert run(main) < 40


def test_a_stream_keeps_its_place_until_it_is_read(simulator):
    provider = simulator()

    async def main():
        async with AsyncOpenAI(base_url=provider.base_url, api_key="sk-test") as client:
            stream = await ask(client, stream=True, stream_options={"include_usage": True})
            during = client.status().in_flight
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
            return text, during, client.status()

    text, during, after = run(main)
    assert text
    assert during == 1
    assert after.in_flight == 0
    assert after.output_tokens > 0


def test_a_stream_that_is_closed_early_gives_its_place_back(simulator):
    provider = simulator(faults=[Fault("stall", at=(1,))])

    async def main():
        async with AsyncOpenAI(base_url=provider.base_url, api_key="sk-test", max_concurrency=1) as client:
            async with await ask(client, stream=True) as stream:
                async for _ in stream:
                    break
            return await ask(client)

    assert run(main).choices


def test_a_cancelled_task_is_not_sent_and_what_it_had_is_given_back(simulator):
    provider = simulator(latency=0.2)

    async def main():
        async with AsyncOpenAI(base_url=provider.base_url, api_key="sk-test", max_concurrency=2) as client:
            tasks = [asyncio.ensure_future(ask(client, str(number))) for number in range(6)]
            while not provider.counters.in_flight:
                await asyncio.sleep(0.001)
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(end) for end in ends] == [asyncio.CancelledError] * 6
            assert (await ask(client)).choices  # the two places are free again
            return client.status()

    status = run(main)
    assert (status.queued, status.in_flight, status.cancelled, status.answered) == (0, 0, 6, 1)
    assert provider.counters.requests <= 3


def test_a_timeout_of_asyncio_ends_the_wait_in_the_queue(simulator):
    provider = simulator()

    async def main():
        async with AsyncOpenAI(base_url=provider.base_url, api_key="sk-test", rpm=60, burst=1) as client:
            await ask(client)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(ask(client), 0.05)
            return client.status()

    assert run(main).cancelled == 1
    assert provider.counters.requests == 1


def test_errors_are_the_sdks_own(simulator):
    provider = simulator(faults=[Fault(status=401, at=(1,)), Fault("exhausted", at=(2, 3))])

    async def main():
        async with AsyncOpenAI(base_url=provider.base_url, api_key="sk-test") as client:
            with pytest.raises(AuthenticationError):
                await ask(client)
            with pytest.raises(RateLimitError):  # no waiting helps against that
                await ask(client)
            with pytest.raises(RateLimitError):
                await ask(client, stream=True)

    run(main)
    assert provider.counters.requests == 3


def test_refusals_are_waited_out_and_failures_retried(simulator):
    faults = [Fault(status=429, headers={"retry-after-ms": "20"}, at=(1,)), Fault(status=500, at=(2, 3, 4, 5, 6))]
    provider = simulator(faults=faults)

    async def main():
        async with AsyncOpenAI(base_url=provider.base_url, api_key="sk-test", max_retries=1) as client:
            with pytest.raises(InternalServerError):
                await ask(client)
            return client.status()

    status = run(main)
    assert (status.refused, status.failed) == (1, 1)
    assert provider.counters.requests == 3  # one refusal, one attempt, one retry


def test_a_deadline_ends_the_wait(simulator):
    provider = simulator()

    async def main():
        async with AsyncOpenAI(base_url=provider.base_url, api_key="sk-test", rpm=60, burst=1) as client:
            await ask(client)
            with pytest.raises(RequestExpired):
                await ask(client.with_options(deadline=0.05))

    run(main)


def test_several_loops_share_one_queue(simulator):
    provider = simulator(rpm=60, latency=0.01)
    answered = []

    async def main():
        async with AsyncOpenAI(base_url=provider.base_url, api_key="sk-test") as client:
            answered.extend(await asyncio.gather(*[ask(client, str(number)) for number in range(20)]))

    threads = [threading.Thread(target=run, args=(main,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answered) == 60
    assert provider.counters.refused == 0


def test_a_loop_that_ends_with_calls_waiting_harms_nobody(door, simulator):
    provider = simulator()
    sync = door(OpenAI, provider, rpm=60, burst=1)

    async def main():
        client = AsyncOpenAI(base_url=provider.base_url, api_key="sk-test", rpm=60, burst=1)
        await ask(client)
        tasks = [asyncio.ensure_future(ask(client)) for _ in range(3)]
        while client.status().queued < 3:
            await asyncio.sleep(0.001)
        await client.close()
        return len(tasks)  # asyncio.run cancels them

    assert run(main) == 3
    assert sync._runtime.worker.wait(10.0)  # its thread has read what the tasks left
    assert sync._runtime.worker.queued == 0


def test_a_full_queue_blocks_the_task_and_not_the_loop(simulator):
    provider = simulator(latency=0.05)

    async def main():
        options = {"max_queue": 1, "max_concurrency": 1}
        async with AsyncOpenAI(base_url=provider.base_url, api_key="sk-test", **options) as client:
            ticks = 0

            async def tick():
                nonlocal ticks
                while True:
                    await asyncio.sleep(0.005)
                    ticks += 1

            ticker = asyncio.ensure_future(tick())
            await asyncio.gather(*[ask(client, str(number)) for number in range(6)])
            ticker.cancel()
            return ticks

    assert run(main) > 10


def test_a_task_that_is_cancelled_at_the_door_of_the_queue_leaves_nothing_in_it(simulator):
    """It is cancelled in each of its first steps, one of which enters a queue that has a cap."""
    provider = simulator()

    async def main():
        options = {"max_queue": 50, "max_concurrency": 2}
        async with AsyncOpenAI(base_url=provider.base_url, api_key="sk-test", **options) as client:
            await ask(client)
            for steps in range(20):
                task = asyncio.ensure_future(ask(client))
                for _ in range(steps % 5):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
            return await asyncio.wait_for(ask(client), 5.0)

    assert run(main).choices


def test_a_journal_serves_tasks_as_it_serves_threads(door, simulator, tmp_path):
    provider = simulator()

    async def main():
        async with AsyncOpenAI(base_url=provider.base_url, api_key="sk-test", journal=tmp_path / "run.db") as client:
            answers = await asyncio.gather(*[ask(client, str(number)) for number in range(10)])
            stream = await ask(client, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        client._runtime.journal.close()
        return [answer.choices[0].message.content for answer in answers], text

    first = run(main)
    assert run(main) == first
    assert provider.counters.requests == 11
    sync = door(OpenAI, provider, journal=tmp_path / "run.db")
    assert ask(sync, "3").choices[0].message.content == first[0][3]
    assert provider.counters.requests == 11
    sync.close()
    sync._runtime.journal.close()


def test_what_spends_no_limit_passes_straight_through(simulator):
    provider = simulator()

    async def main():
        async with AsyncOpenAI(base_url=provider.base_url, api_key="sk-test") as client:
            models = [model.id async for model in client.models.list()]
            return models, client.status().submitted

    models, submitted = run(main)
    assert models
    assert submitted == 0


# -- any coroutine function


def test_a_worker_runs_coroutine_functions_within_its_limits():
    started = []

    async def work(item):
        started.append(time.monotonic())
        await asyncio.sleep(0)
        return item * 2

    async def main():
        worker = AsyncRateLimitedWorker(min_interval=0.02)
        return await worker.map(work, range(6))

    began = time.monotonic()
    assert run(main) == [0, 2, 4, 6, 8, 10]
    assert [number for number, at in enumerate(started) if at < began + 0.02 * number] == []


def test_a_worker_retries_what_it_was_told_to_and_raises_the_rest():
    calls = []

    async def work():
        calls.append(None)
        if len(calls) < 3:
            raise ConnectionError("again")
        return "done"

    async def broken():
        raise KeyError("no")

    async def main():
        worker = AsyncRateLimitedWorker(rpm=6_000, retry_on=ConnectionError)
        assert await worker.run(work) == "done"
        with pytest.raises(KeyError):
            await worker.run(broken)
        assert await asyncio.to_thread(worker._worker.wait, 10)
        assert "queued=0 in_flight=0" in repr(worker)

    run(main)
    assert len(calls) == 3


@pytest.mark.parametrize("tokens", [-1, 1.5, True, "many"])
def test_a_worker_refuses_tokens_that_are_none(tokens):
    async def main():
        with pytest.raises(ValueError if tokens == -1 else TypeError, match="tokens"):
            await AsyncRateLimitedWorker(tpm=100).run(asyncio.sleep, 0, tokens=tokens)

    run(main)


def test_a_worker_that_was_closed_ends_its_thread_with_the_last_task(simulator):
    """The loop settles the last call itself; the thread hears of it all the same."""
    provider = simulator(latency=0.05)

    async def main():
        client = AsyncOpenAI(base_url=provider.base_url, api_key="sk-test", max_queue=5)
        worker = client._runtime.worker
        asked = asyncio.ensure_future(ask(client))
        while not worker.in_flight:
            await asyncio.sleep(0)
        worker.shutdown(wait=False)
        await asked
        await client.close()
        return worker

    worker = run(main)
    thread = worker.engine.thread
    if thread is not None:
        thread.join(5)
        assert not thread.is_alive()


def test_a_task_takes_its_turn_without_a_wait_when_nobody_waits(simulator):
    """The request of a task that nothing holds back leaves in the first step of the task."""
    provider = simulator(latency=0.05)

    async def main():
        async with AsyncOpenAI(base_url=provider.base_url, api_key="sk-test", rpm=600) as client:
            await ask(client)
            tasks = [asyncio.ensure_future(ask(client)) for _ in range(3)]
            await asyncio.sleep(0)
            before = client._runtime.worker.in_flight
            await asyncio.gather(*tasks)
            return before, client._runtime.worker.pending

    before, after = run(main)
    assert 1 <= before <= 3  # the ramp may space them
    assert after == 0
