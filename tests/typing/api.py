"""Typed uses of the public API: checked by mypy, never run."""

from __future__ import annotations

from concurrent.futures import Executor, Future, as_completed

from openai.types.chat import ChatCompletion

from ratelimited_llm import (
    AzureOpenAI,
    OpenAI,
    Priority,
    RateLimitedExecutor,
    RateLimits,
    ResponseFuture,
    as_future,
    report_usage,
)
from ratelimited_llm.testing import Run, call, simulate


def a_queued_call_is_typed_as_its_response(client: OpenAI) -> str | None:
    answer: ChatCompletion = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
    return answer.choices[0].message.content


def as_future_types_it_as_a_future(client: OpenAI) -> ChatCompletion:
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
    future: ResponseFuture[ChatCompletion] = as_future(answer)
    ids: list[str] = []
    future.add_done_callback(lambda done: ids.append(done.result().id))
    for ready in as_completed([future], timeout=3.0):
        ids.append(ready.result().model)
    return future.result(timeout=1.0)


def the_executor_is_an_executor() -> int:
    executor: Executor = RateLimitedExecutor(rpm=60, tpm=30_000, tokens=100, max_concurrency=8)
    future: Future[int] = executor.submit(len, "four")
    report_usage(12)
    return future.result()


def values_are_typed() -> Run:
    limits = RateLimits(rpm=500, tpm=30_000, burst=1)
    wider: RateLimits = limits.replace(rpm=1_000)
    assert Priority.parse("high") == Priority.HIGH
    return simulate(wider, [call(at=0.0, priority="high")])


def azure_too(client: AzureOpenAI) -> None:
    client.close()


def a_door_takes_the_sdks_arguments_and_ours() -> OpenAI:
    client = OpenAI(api_key="k", rpm=500, journal="run.db", max_cost=5.0, prices={"m": (0.15, 0.6)}, progress=False)
    hurried: OpenAI = client.with_options(priority="high", timeout=5.0)
    with hurried as same:
        eta: float | None = same.status().eta
        texts: list[str] = same.gather([same], lambda answer: str(answer), on_error="none")
        dropped: int = same.cancel() if eta is None else len(texts)
    return hurried if dropped else client


def a_future_says_how_it_fares(client: OpenAI) -> str | None:
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
    return as_future(answer).ratelimit.held_by
