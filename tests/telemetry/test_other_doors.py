"""Executors, coroutines, `queued()` and processors tell operators what the SDKs' doors tell, in the same words."""

import asyncio
import functools
import sys
import threading
from concurrent.futures import CancelledError, wait

import openai
import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from reading import MESSAGES, scrape, total

from ratelimited_llm import (
    AsyncRateLimitedWorker,
    Processor,
    QueueManager,
    RateLimitedExecutor,
    queued,
    report_usage,
)
from ratelimited_llm.core.feedback import Kind, Outcome
from ratelimited_llm.exceptions import RequestExpired
from ratelimited_llm.simulator import Fault

httpx = sys.modules[openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]]


class Refused(Exception):
    """What a client of somebody else's raises when a limit refuses."""

    status_code = 429


class Usage:
    """An answer that says what it used."""

    def __init__(self, prompt, output):
        self.usage = {"prompt_tokens": prompt, "completion_tokens": output}


def score(text):
    report_usage(input_tokens=7, output_tokens=5)
    return len(text)


class Scoring(Processor):
    """Answers with usage; the first request of each is refused."""

    provider = "acme"

    def __init__(self):
        self.seen = []
        self.refuse = 1

    async def process(self, payload):
        self.seen.append(trace.get_current_span().get_span_context())
        if payload["prompt"] == "bad":
            raise ValueError("you said: my secret prompt")
        if self.refuse:
            self.refuse -= 1
            raise Refused
        return Usage(3, 4)

    def classify_error(self, error):
        return Outcome(Kind.LIMITED, 0.01) if isinstance(error, Refused) else None


def nothing_is_open(samples):
    """Whether no call is said to wait or to be in flight."""
    return not total("queue_pending_requests", samples) and not total("requests_in_flight", samples)


# -- executors --------------------------------------------------------------------------------------------------------


def test_a_function_is_a_span_and_is_counted(heard):
    """A child of what its caller was doing, named for the function; usage as it reported, and nothing it was given."""
    with RateLimitedExecutor(rpm=6_000) as executor, heard.tracer.start_as_current_span("caller") as caller:
        assert executor.with_options(priority="high").submit(score, "my secret prompt").result() == 16
    (span,) = heard.spans(1)
    assert (span.name, span.kind) == (f"function {__name__}.score", SpanKind.CLIENT)
    assert span.parent == caller.get_span_context()
    attributes = dict(span.attributes)
    assert attributes.pop("ratelimited_llm.queue.wait_time") >= 0
    assert attributes == {
        "gen_ai.operation.name": "function",
        "gen_ai.provider.name": "other",
        "code.function.name": f"{__name__}.score",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 5,
    }
    samples = scrape()
    assert total("requests_total", samples, outcome="answered", priority="high", provider="other") == 1
    assert total("tokens_total", samples, type="input") == 7
    assert total("tokens_total", samples, type="output") == 5
    assert total("operation_duration_seconds_count", samples, operation="function") == 1
    assert total("queue_wait_seconds_count", samples, priority="high") == 1
    assert total("limit", samples, limit="rpm", provider="other") == 6_000
    assert nothing_is_open(samples)
    told = heard.metrics()
    assert {point.attributes["gen_ai.token.type"]: point.sum for point in told["gen_ai.client.token.usage"]} == {
        "input": 7, "output": 5,
    }  # fmt: skip
    assert "secret" not in repr(told) + repr(samples) + span.to_json()


def test_refusals_retries_and_failures_of_functions_are_told_apart(heard):
    """A refusal and a retry are events of the one span, and are counted; the last error is its error."""
    errors = [Refused(), TimeoutError(), KeyError("my secret prompt")]

    def fails():
        raise errors.pop(0)

    with RateLimitedExecutor(retry_on=TimeoutError) as executor, pytest.raises(KeyError):
        executor.submit(functools.partial(fails)).result()
    (span,) = heard.spans(1)
    assert [event.name for event in span.events] == ["ratelimited_llm.refused", "ratelimited_llm.retry"]
    assert (span.attributes["error.type"], span.status.status_code) == ("KeyError", StatusCode.ERROR)
    assert span.attributes["code.function.name"].endswith("fails")
    assert "secret" not in span.to_json()
    samples = scrape()
    assert total("rate_limited_total", samples) == 1
    assert total("retries_total", samples, reason="TimeoutError") == 1
    assert total("requests_total", samples, outcome="failed") == 1
    assert nothing_is_open(samples)


def test_a_last_failure_is_no_retry():
    """What is not tried again counts as failed, once."""

    def fails():
        raise TimeoutError

    with RateLimitedExecutor(retry_on=TimeoutError, max_retries=0) as executor, pytest.raises(TimeoutError):
        executor.submit(fails).result()
    samples = scrape()
    assert total("retries_total", samples) == 0
    assert total("requests_total", samples) == total("requests_total", samples, outcome="failed") == 1


def test_what_waits_and_what_flies_is_told_while_it_does():
    """By priority; what is cancelled, expires, is refused at submit or ends with its executor leaves again."""
    go = threading.Event()
    executor = RateLimitedExecutor(max_concurrency=1, max_queue=3, on_full="raise")
    first = executor.submit(go.wait)
    kept = executor.with_options(priority="high").submit(int)
    cancelled = executor.submit(int)
    late = executor.with_options(deadline=0.01).submit(int)
    with pytest.raises(Exception, match="full"):
        executor.submit(int)
    with pytest.raises(RequestExpired):
        late.result(10)
    samples = scrape()
    assert total("requests_in_flight", samples) == 1
    assert total("queue_pending_requests", samples, priority="high") == 1
    assert total("queue_pending_requests", samples) == 2
    assert cancelled.cancel()
    assert total("queue_pending_requests") == 1
    dropped = executor.submit(int)
    executor.with_options(tag="x").shutdown(wait=False, cancel_futures=True)
    go.set()
    wait([first, kept, dropped], 10)
    executor.shutdown()
    samples = scrape()
    assert nothing_is_open(samples)
    assert total("requests_total", samples, outcome="cancelled") == 3
    assert total("requests_total", samples, outcome="failed") == 1
    assert total("requests_total", samples, outcome="answered") == 1


def test_a_result_out_of_the_journal_is_replayed_and_no_span(heard, tmp_path):
    """Nothing was asked of anybody."""
    for _ in range(2):
        with RateLimitedExecutor(journal=tmp_path / "run.db", key=lambda text: text) as executor:
            assert executor.submit(score, "a").result() == 1
        executor._memory.journal.close()
    heard.spans(1)
    samples = scrape()
    assert total("requests_total", samples, outcome="answered") == 1
    assert total("requests_total", samples, outcome="replayed") == 1
    assert nothing_is_open(samples)


def test_many_threads_count_exactly():
    """In real time: however calls end, each is counted once, and nothing is left open."""

    def some(number):
        if number % 5 == 0:
            raise ValueError
        return number

    with RateLimitedExecutor(max_concurrency=4) as executor:

        def submit():
            futures = [executor.submit(some, number) for number in range(200)]
            for future in futures[::3]:
                future.cancel()

        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    samples = scrape()
    assert total("requests_total", samples) == 800
    assert total("requests_total", samples, outcome="failed") > 0
    assert nothing_is_open(samples)


# -- coroutines -------------------------------------------------------------------------------------------------------


def test_coroutines_are_told_like_functions(heard):
    """Its span is the current one inside of it; one that was cancelled, sent or not, leaves nothing open."""
    inside = []

    async def ask(error=None):
        inside.append(trace.get_current_span().get_span_context())
        if error is not None:
            raise error
        return 9

    async def main():
        worker = AsyncRateLimitedWorker(max_concurrency=1, usage=int, retry_on=TimeoutError, max_retries=1)
        with heard.tracer.start_as_current_span("caller") as caller:
            assert await worker.run(ask) == 9
            assert trace.get_current_span() is caller
        with pytest.raises(TimeoutError):
            await worker.run(ask, TimeoutError())
        with pytest.raises(KeyError):
            await worker.run(ask, KeyError("my secret prompt"))
        running = asyncio.create_task(worker.run(asyncio.sleep, 60))
        waiting = asyncio.create_task(worker.run(asyncio.sleep, 60))
        await asyncio.sleep(0.01)
        for task in (waiting, running):
            task.cancel()
        await asyncio.wait([waiting, running])
        return caller

    caller = asyncio.run(main())
    spans = heard.spans(4)
    assert spans[0].parent == caller.get_span_context()
    assert [span.context for span in spans[:3]] == [inside[0], inside[1], inside[3]]
    assert [span.attributes.get("error.type") for span in spans] == [None, "TimeoutError", "KeyError", "CancelledError"]
    assert spans[0].attributes["gen_ai.usage.input_tokens"] == 9
    samples = scrape()
    assert total("requests_total", samples, outcome="answered") == 1
    assert total("requests_total", samples, outcome="failed") == 2
    assert total("requests_total", samples, outcome="cancelled") == 2
    assert total("retries_total", samples) == 1
    assert nothing_is_open(samples)


# -- queued() ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["future", "blocking"])
def test_calls_of_a_queued_client_are_told_as_those_of_the_door(simulator, heard, mode):
    """Provider, model, operation, usage and server; refusals and retries; what it sends is inside of its span."""
    seen = []

    def see(request):
        seen.append(trace.get_current_span().get_span_context())

    provider = simulator(rpm=6_000, faults=[Fault(status=429, at=(1,), headers={"retry-after-ms": "20"})])
    with httpx.Client(event_hooks={"request": [see]}) as http_client:
        plain = openai.OpenAI(api_key="sk-test", base_url=provider.base_url, max_retries=0, http_client=http_client)
        client = queued(plain, mode=mode)
        with heard.tracer.start_as_current_span("caller") as caller:
            answer = client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=5)
            usage = answer.usage
        client.close()
    (span,) = heard.spans(1)
    assert (span.name, span.parent) == ("chat m", caller.get_span_context())
    assert seen == [span.context] * 2
    assert [event.name for event in span.events] == ["ratelimited_llm.refused"]
    attributes = dict(span.attributes)
    del attributes["ratelimited_llm.queue.wait_time"]
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.request.max_tokens": 5,
        "gen_ai.response.model": "m",
        "gen_ai.response.id": answer.id,
        "gen_ai.response.finish_reasons": (answer.choices[0].finish_reason,),
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "server.address": "127.0.0.1",
        "server.port": provider.port,
    }
    samples = scrape()
    kind = {"provider": "openai", "model": "m", "bucket": "m"}
    assert total("requests_total", samples, outcome="answered", priority="normal", **kind) == 1
    assert total("tokens_total", samples, type="output", **kind) == usage.completion_tokens
    assert total("rate_limited_total", samples, **kind) == 1
    assert nothing_is_open(samples)
    assert "secret" not in repr(samples) + span.to_json()


@pytest.mark.parametrize("mode", ["future", "blocking"])
def test_a_queued_client_of_anybody_is_told_by_the_name_of_its_package(mode):
    """Its failures are not quoted; a call that is given up while it waits is cancelled or failed, and left."""

    class Client:
        def invoke(self, text):
            if text == "bad":
                raise KeyError("my secret prompt")
            return {"usage_metadata": {"input_tokens": 3, "output_tokens": 2}}

    client = queued(Client(), mode=mode, max_concurrency=1)
    assert client.invoke("good")["usage_metadata"]
    with pytest.raises(KeyError):
        _ = client.invoke("bad").any_attribute
    client.close()
    samples = scrape()
    package = __name__.partition(".")[0]
    assert total("requests_total", samples, provider=package, outcome="answered") == 1
    assert total("requests_total", samples, provider=package, outcome="failed") == 1
    assert total("tokens_total", samples, provider=package) == 5
    assert nothing_is_open(samples)
    assert "secret" not in repr(samples)


def test_a_blocking_call_that_expires_in_the_queue_is_left():
    """Its caller gets RequestExpired, and a gauge that never falls would be a lie."""
    go, began = threading.Event(), threading.Event()

    class Client:
        def invoke(self, how):
            began.set()
            return how.wait(10)

    client = queued(Client(), mode="blocking", max_concurrency=1)
    thread = threading.Thread(target=client.invoke, args=(go,))
    thread.start()
    began.wait(10)
    with pytest.raises(RequestExpired):
        client.with_options(deadline=0.01).invoke(go)
    go.set()
    thread.join()
    client.close()
    samples = scrape()
    assert total("requests_total", samples, outcome="failed") == total("requests_total", samples, outcome="answered")
    assert nothing_is_open(samples)


# -- a manager's processor --------------------------------------------------------------------------------------------


def test_requests_of_a_processor_are_told(heard):
    """By its provider, the payload's model and the endpoint; async ones run inside of their span, too."""
    processor = Scoring()
    with QueueManager(processor, rpm=6_000) as manager:
        with heard.tracer.start_as_current_span("caller") as caller:
            good = manager.enqueue_request("chat.completions", {"model": "m", "prompt": "my secret prompt"})
            manager.get_result(good, timeout=30)
        bad = manager.enqueue_request("chat.completions", {"model": "m", "prompt": "bad"})
        with pytest.raises(ValueError, match="secret"):
            manager.get_result(bad, timeout=30)
    first, second = heard.spans(2)
    assert (first.name, first.parent) == ("chat m", caller.get_span_context())
    assert [event.name for event in first.events] == ["ratelimited_llm.refused"]
    assert processor.seen == [first.context, first.context, second.context]
    assert first.attributes["gen_ai.provider.name"] == "acme"
    assert first.attributes["gen_ai.usage.output_tokens"] == 4
    assert second.attributes["error.type"] == "ValueError"
    samples = scrape()
    kind = {"provider": "acme", "model": "m", "bucket": "all"}
    assert total("requests_total", samples, outcome="answered", **kind) == 1
    assert total("requests_total", samples, outcome="failed", **kind) == 1
    assert total("tokens_total", samples, type="input", **kind) == 3
    assert total("operation_duration_seconds_count", samples, operation="chat", **kind) == 1
    assert total("rate_limited_total", samples, **kind) == 1
    assert total("limit", samples, provider="acme", limit="rpm") == 6_000
    assert nothing_is_open(samples)
    assert good not in repr(samples)
    assert "secret" not in repr(samples) + first.to_json() + second.to_json()


def test_a_request_that_is_cancelled_while_its_manager_waits_is_no_span(heard):
    """Nor does it stay among those that wait."""
    manager = QueueManager(Scoring())
    manager.pause()
    number = manager.enqueue_request("/x", {"prompt": "x"})
    assert total("queue_pending_requests", provider="acme") == 1
    assert manager.cancel_request(number)
    with pytest.raises(CancelledError):
        manager.get_result(number, timeout=30)
    manager.stop()
    assert heard.spans(0) == []
    samples = scrape()
    assert total("requests_total", samples, outcome="cancelled") == 1
    assert nothing_is_open(samples)
