"""Typed uses of every public name, as users write them: checked by mypy, never run. By hand also by pyright:

pip install pyright && pyright --pythonpath "$(which python)" tests/typing
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, Future, as_completed, wait
from types import SimpleNamespace
from typing import Any, cast

import anthropic as plain_anthropic
import groq as plain_groq
import openai as plain_openai
import requests as plain_requests
from anthropic.types import Message
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ParsedChatCompletion
from openai.types.responses import Response
from typing_extensions import assert_type

from ratelimited_llm import (
    Anthropic,
    AsyncAnthropic,
    AsyncAzureOpenAI,
    AsyncGroq,
    AsyncOpenAI,
    AsyncRateLimitedWorker,
    AzureOpenAI,
    BudgetExceeded,
    CostLimitReached,
    Groq,
    Journal,
    JournalError,
    OpenAI,
    Priority,
    Processor,
    QueueFull,
    QueueManager,
    RateLimitedExecutor,
    RateLimitedLLMError,
    RateLimitedWorker,
    RateLimits,
    RequestExpired,
    ResponseFuture,
    SharedStoreLost,
    SizeClasses,
    WorkerStopped,
    anthropic,
    as_future,
    groq,
    openai,
    queued,
    report_usage,
    requests,
    simulator,
    telemetry,
    testing,
)

# -- calls of a client ------------------------------------------------------------------------------------------------


def a_queued_call_is_typed_as_its_response(client: OpenAI) -> str | None:
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
    assert_type(answer, ChatCompletion)
    assert_type(client.responses.create(model="m", input="?"), Response)
    assert_type(client.embeddings.create(model="m", input="?"), CreateEmbeddingResponse)
    return answer.choices[0].message.content


def a_stream_is_typed_as_the_sdks(client: OpenAI) -> list[str | None]:
    stream = client.chat.completions.create(model="m", messages=[], stream=True)
    assert_type(stream, plain_openai.Stream[ChatCompletionChunk])
    return [chunk.choices[0].delta.content for chunk in stream]


def an_answer_is_parsed_into_the_users_class(client: OpenAI) -> RateLimits | None:
    answer = client.chat.completions.parse(model="m", messages=[], response_format=RateLimits)
    assert_type(answer, ParsedChatCompletion[RateLimits])
    return answer.choices[0].message.parsed


def as_future_types_it_as_a_future(client: OpenAI) -> ChatCompletion:
    answer = client.chat.completions.create(model="m", messages=[])
    future = as_future(answer)
    assert_type(future, ResponseFuture[ChatCompletion])
    assert_type(as_future(future), ResponseFuture[ChatCompletion])
    ids: list[str] = []
    future.add_done_callback(lambda done: ids.append(done.result().id))
    for ready in as_completed([future], timeout=3.0):
        ids.append(ready.result().model)
    done, _ = wait([future], timeout=1.0)
    assert_type(done.pop().result(), ChatCompletion)
    error: BaseException | None = future.exception(timeout=1.0)
    held_by: str | None = future.ratelimit.held_by
    assert error is None, held_by
    return future.result(timeout=1.0)


# -- clients ----------------------------------------------------------------------------------------------------------


def a_door_takes_the_sdks_arguments_and_ours() -> OpenAI:
    client = OpenAI(api_key="k", rpm=500, journal="run.db", max_cost=5.0, prices={"m": (0.15, 0.6)}, progress=False)
    plain: plain_openai.OpenAI = client
    hurried = client.with_options(priority="high", tenant="acme", deadline=30.0, timeout=5.0)
    assert_type(hurried, OpenAI)
    assert_type(client.copy(mode="blocking"), OpenAI)
    with hurried as same:
        assert_type(same, OpenAI)
        eta: float | None = same.status().eta
        dropped: int = same.cancel() if eta is None else len(same.report())
    plain.close()
    return hurried if dropped else client


def many_answers_at_once(client: OpenAI, answers: list[ChatCompletion], more: list[Future[int]]) -> list[str]:
    assert_type(client.wait(timeout=1.0), bool)
    assert_type(client.gather(answers), list[ChatCompletion])
    assert_type(client.gather(more), list[int])
    assert_type(client.gather(more, str), list[str])
    assert_type(client.gather({"a": more[0]}), list[Any])
    assert_type(client.gather(answers, on_error="none", timeout=3.0), list[Any])
    assert_type(client.map(len, ["a", "b"], max_workers=8), list[int])
    assert_type(client.map(len, ["a", "b"], return_as="generator"), Iterator[int])
    label: list[str | None] = client.map(str, [1, 2], on_error="none")
    return client.gather(answers, lambda answer: answer.id) if label else []


def every_door_is_its_sdks_client(azure: AzureOpenAI, fast: Groq, careful: Anthropic) -> Message:
    clients: tuple[plain_openai.AzureOpenAI, plain_groq.Groq, plain_anthropic.Anthropic] = (azure, fast, careful)
    assert_type(azure.with_options(tenant="acme"), AzureOpenAI)
    assert_type(fast.with_options(tenant="acme"), Groq)
    clients[0].close()
    return careful.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "?"}])


async def tasks_await_the_sdks_answers(client: AsyncOpenAI, azure: AsyncAzureOpenAI, fast: AsyncGroq) -> str | None:
    assert_type(client.with_options(priority="low"), AsyncOpenAI)
    others: tuple[plain_openai.AsyncAzureOpenAI, plain_groq.AsyncGroq] = (azure, fast)
    stream = await client.chat.completions.create(model="m", messages=[], stream=True)
    async for chunk in stream:
        assert_type(chunk, ChatCompletionChunk)
    async with AsyncAnthropic(rpm=50) as careful:
        assert_type(careful, AsyncAnthropic)
        assert_type(await careful.messages.create(model="m", max_tokens=9, messages=[]), Message)
    await others[0].close()
    answer = await client.chat.completions.create(model="m", messages=[])
    return answer.choices[0].message.content


# -- modules in place of modules --------------------------------------------------------------------------------------


def the_door_is_its_sdks_module() -> str | None:
    openai.api_key = "k"
    try:
        answer = openai.chat.completions.create(model="m", messages=[])
        assert_type(answer, ChatCompletion)
        return answer.choices[0].message.content
    except openai.RateLimitError as error:
        return error.message
    finally:
        assert_type(openai.OpenAI(rpm=5), OpenAI)
        assert_type(openai.Client(rpm=5), OpenAI)
        assert_type(groq.Client(rpm=5), Groq)
        assert_type(anthropic.AsyncClient(rpm=5), AsyncAnthropic)


def errors_are_the_sdks(error: groq.RateLimitError | anthropic.RateLimitError) -> int:
    known: plain_groq.RateLimitError | plain_anthropic.RateLimitError = error
    return known.status_code


def requests_is_requests(url: str) -> Any:
    requests.configure(hosts=["llm.example.com"], rpm=60)
    session = requests.Session(rpm=60)
    plain: plain_requests.Session = session
    try:
        answer = requests.post(url, json={}, timeout=25)
        assert_type(answer, plain_requests.Response)
        assert_type(requests.get(url), plain_requests.Response)
        plain.close()
        return answer.json() if requests.status().eta is None else session.gather([answer])[0].json()
    except requests.exceptions.Timeout as error:
        return error.response


# -- functions, clients of others, ids --------------------------------------------------------------------------------


def the_executor_is_an_executor() -> int:
    executor = RateLimitedExecutor(rpm=60, tpm=30_000, tokens=100, max_concurrency=8)
    plain: Executor = executor
    assert_type(executor.submit(len, "four"), Future[int])
    assert_type(executor.map(len, ["four"]), Iterator[int])
    assert_type(executor.with_options(priority=Priority.HIGH), RateLimitedExecutor)
    report_usage(12)
    return plain.submit(len, "four").result()


async def a_worker_runs_coroutines(client: plain_openai.AsyncOpenAI) -> str:
    async def ask(text: str) -> str:
        return (await client.completions.create(model="m", prompt=text)).id

    worker = AsyncRateLimitedWorker(rpm=60, worker=RateLimitedWorker(max_queue=100, size_classes=SizeClasses()))
    assert_type(await worker.map(ask, ["a", "b"]), list[str])
    assert_type(await worker.map(ask, ["a"], return_exceptions=True), list[str | BaseException])
    return await worker.run(ask, "c", tokens=100)


def a_queue_keeps_the_clients_type(client: plain_openai.OpenAI) -> ChatCompletion:
    around = queued(client, rpm=60, retry_on=TimeoutError)
    assert_type(around, plain_openai.OpenAI)
    return around.chat.completions.create(model="m", messages=[])


class Echo(Processor):
    required_fields = ("text",)

    def process(self, payload: Any, *, timeout: float | None = None) -> str:
        return str(payload["text"])


async def a_manager_hands_out_ids(client: OpenAI) -> Any:
    with QueueManager(client=client, max_queue=100) as manager:
        known: str = manager.enqueue_request("chat/completions", {"messages": []}, priority="high", tenant="acme")
        state: str = manager.get_request_status(known)["status"]
        stopped: int = manager.cancel_request(known)
    async with QueueManager(processor=Echo(), limits=RateLimits(rpm=60)) as other:
        return await other.get_result_async(other.enqueue_request(state, {"text": str(stopped)}), timeout=1.0)


# -- values, errors, modules ------------------------------------------------------------------------------------------


def values_are_typed(journal: Journal) -> OpenAI:
    limits = RateLimits(rpm=500, tpm=30_000, burst=1)
    assert_type(limits.replace(rpm=1_000), RateLimits)
    assert Priority.parse("high") == Priority.HIGH
    return OpenAI(limits=limits, size_classes=SizeClasses(bounds=(1_000,), weights=(3, 1)), journal=journal)


def errors_carry_their_numbers(error: RateLimitedLLMError) -> float | None:
    match error:
        case QueueFull():
            return error.limit
        case BudgetExceeded():
            return error.requested
        case RequestExpired():
            return error.waited
        case CostLimitReached():
            return error.max_cost
        case WorkerStopped() | JournalError() | SharedStoreLost():
            return None
    return None if error.request_id is None else float(error.request_id)


def a_script_is_tried_without_a_provider() -> testing.Run:
    with simulator.Simulator("openai", rpm=60) as provider:
        assert_type(provider.base_url, str)
        assert_type(provider.counters.refused, int)
    body, content_type = telemetry.exposition()
    assert_type(body, bytes)
    assert content_type
    client = cast(Any, SimpleNamespace())
    assert_type(queued(client), Any)
    return testing.simulate(RateLimits(rpm=60), [testing.call(at=0.0, priority="high")])
