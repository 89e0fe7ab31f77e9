"""Real calls of real clients, as OpenTelemetry hears of them: the GenAI conventions, word by word."""

import asyncio
import subprocess
import sys
import time

import anthropic as plain_anthropic
import openai as plain
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from reading import MESSAGES, ask
from waiting import wait_until_collected

from ratelimited_llm import Anthropic, AsyncOpenAI, Groq, OpenAI, requests
from ratelimited_llm.requests import hosts
from ratelimited_llm.simulator import Fault
from ratelimited_llm.telemetry import listening, tracing

httpx = sys.modules[plain.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]]


def test_a_call_is_a_client_span_with_the_conventions_attributes(simulator, door, heard):
    """From dispatch to answer, a child of what its caller was doing when it submitted; its content is not in it."""
    provider = simulator(latency=0.01)
    client = door(OpenAI, provider, rpm=1_200, burst=1)
    with heard.tracer.start_as_current_span("caller") as caller:
        asked = time.time_ns()
        answers = [ask(client, max_tokens=5, temperature=0.5, seed=7) for _ in range(3)]
    answer = answers[-1]
    assert answer.choices
    span = heard.spans(3)[-1]
    assert (span.name, span.kind, span.status.status_code) == ("chat m", SpanKind.CLIENT, StatusCode.UNSET)
    assert span.parent == caller.get_span_context()
    attributes = dict(span.attributes)
    waited = attributes.pop("ratelimited_llm.queue.wait_time")
    assert waited == pytest.approx(answer.ratelimit.queued_s)
    assert asked + (waited - 0.001) * 1e9 <= span.start_time < span.end_time  # the wait is not in it; two clocks
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.request.max_tokens": 5,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.response.model": "m",
        "gen_ai.response.id": answer.id,
        "gen_ai.response.finish_reasons": (answer.choices[0].finish_reason,),
        "gen_ai.usage.input_tokens": answer.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": answer.usage.completion_tokens,
        "server.address": "127.0.0.1",
        "server.port": provider.port,
    }


def test_every_way_to_call_makes_one_span(simulator, door, heard):
    """Blocking, async, embeddings, raw requests, another provider: each is one span inside of its caller's."""
    provider, groq = simulator(), simulator("groq")
    client = door(OpenAI, provider)

    async def in_task():
        async with AsyncOpenAI(api_key="sk-test", base_url=provider.base_url) as async_client:
            assert (await ask(async_client, model="async")).choices

    hosts.add_hosts({provider.base_url: "openai"})
    try:
        with heard.tracer.start_as_current_span("caller") as caller, requests.Session() as session:
            assert ask(client.with_options(mode="blocking"), model="blocking").choices
            assert client.embeddings.create(model="small", input="x").data
            assert client.chat.completions.with_raw_response.create(model="unparsed", messages=MESSAGES).status_code
            assert door(Groq, groq).chat.completions.create(model="llama", messages=MESSAGES).choices
            body = {"model": "raw", "messages": MESSAGES}
            assert session.post(f"{provider.base_url}/chat/completions", json=body).json()["choices"]
            asyncio.run(in_task())
    finally:
        hosts.forget_hosts()
    spans = heard.spans(6)
    assert {span.name for span in spans} == {
        "chat blocking", "embeddings small", "chat unparsed", "chat llama", "chat raw", "chat async",
    }  # fmt: skip
    for span in spans:
        assert span.parent == caller.get_span_context(), span.name
        assert span.attributes.get("gen_ai.usage.input_tokens") or span.name == "chat unparsed"
        assert span.attributes["gen_ai.response.model"] == span.name.split()[1]


def test_a_stream_is_a_span_until_it_was_read(simulator, door, heard):
    """With the usage that its last chunk told, and the time to its first one."""
    client = door(OpenAI, simulator(per_token_latency=0.001, output_tokens=20))
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    (span,) = heard.spans(1)
    assert span.attributes["gen_ai.request.stream"] is True
    assert span.attributes["gen_ai.response.id"] == chunks[0].id
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert span.attributes["gen_ai.usage.output_tokens"] == chunks[-1].usage.completion_tokens == 20
    told = heard.metrics()
    (first,), (whole,) = told["gen_ai.client.operation.time_to_first_chunk"], told["gen_ai.client.operation.duration"]
    assert 0 < first.sum < whole.sum
    assert whole.sum == pytest.approx((span.end_time - span.start_time) / 1e9, abs=0.05)


def test_a_stream_that_is_left_or_forgotten_ends_its_span(simulator, door, heard):
    """Closed early or collected: it says nothing of usage, and estimates are never told."""
    client = door(OpenAI, simulator(output_tokens=50))
    with ask(client, stream=True) as stream:
        next(iter(stream))
    forgotten = ask(client, stream=True).result()
    next(iter(forgotten))
    del forgotten, stream
    wait_until_collected(lambda: client.status().in_flight == 0)
    for span in heard.spans(2):
        assert "gen_ai.usage.output_tokens" not in span.attributes
        assert span.status.status_code is StatusCode.UNSET
    assert "gen_ai.client.token.usage" not in heard.metrics()


def test_refusals_and_retries_are_events_of_the_one_span(simulator, door, heard):
    """However often it is sent, a call is one span."""
    faults = [Fault(status=429, at=(1,), headers={"retry-after-ms": "20"}), Fault(status=503, at=(2,))]
    client = door(OpenAI, simulator(faults=faults))
    for mode in ("future", "blocking"):
        assert ask(client.with_options(mode=mode)).choices
    first, second = heard.spans(2)
    assert [event.name for event in first.events] == ["ratelimited_llm.refused", "ratelimited_llm.retry"]
    assert first.events[0].attributes["ratelimited_llm.limit.type"]
    assert dict(first.events[1].attributes) == {"error.type": "503"}
    assert not second.events
    told = heard.metrics()
    assert [point.value for point in told["ratelimited_llm.throttled"]] == [1]
    assert [(point.value, point.attributes["error.type"]) for point in told["ratelimited_llm.retries"]] == [(1, "503")]


def test_a_failure_is_named_and_not_quoted(simulator, door, heard):
    """error.type and the status, on span and duration; no text of an error, which may quote the prompt."""
    client = door(OpenAI, simulator(faults=Fault(status=400, message="you said: my secret prompt")))
    with pytest.raises(plain.BadRequestError):
        ask(client).result()
    (span,) = heard.spans(1)
    assert span.attributes["error.type"] == "400"
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert not span.events
    (point,) = heard.metrics()["gen_ai.client.operation.duration"]
    assert point.attributes["error.type"] == "400"
    assert "secret" not in span.to_json()


def test_a_call_that_was_never_sent_is_no_span(simulator, door, heard):
    """Cancelled while it waited: nothing was asked of anybody."""
    client = door(OpenAI, simulator())
    client._runtime.worker.pause()
    future = ask(client)
    assert future.cancel()
    client._runtime.worker.resume()
    assert ask(client).choices
    heard.spans(1)


def test_what_the_sdk_sends_is_sent_inside_of_the_span(door, simulator, heard):
    """So the spans of an instrumented HTTP client are its children, on whichever thread it is sent."""
    seen = []

    def answer(request):
        seen.append(trace.get_current_span().get_span_context())
        body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": []}
        return httpx.Response(200, json=body)

    with httpx.Client(transport=httpx.MockTransport(answer)) as http_client:
        client = door(OpenAI, simulator(), http_client=http_client)
        with heard.tracer.start_as_current_span("caller") as caller:
            for mode in ("future", "blocking"):
                assert ask(client.with_options(mode=mode)).id
            assert trace.get_current_span() is caller
    assert seen == [span.context for span in heard.spans(2)]


@pytest.mark.skipif(not hasattr(plain_anthropic.Anthropic, "open_telemetry"), reason="it makes none")
def test_the_spans_that_anthropic_makes_itself_are_not_doubled(simulator, door, heard):
    """Its own is the one CLIENT span, a child of the caller's; ours tells of the queue."""
    client = door(Anthropic, simulator("anthropic"))
    for mode in ("future", "blocking"):
        with heard.tracer.start_as_current_span("caller") as caller:
            called = client.with_options(mode=mode).messages.create(model="claude", max_tokens=5, messages=MESSAGES)
            assert called.content
        (own,) = heard.spans(1, scope="com.anthropic.sdk.python")
        (queue,) = heard.spans(1)
        assert own.parent == queue.parent == caller.get_span_context()
        assert (own.kind, queue.kind, queue.name) == (SpanKind.CLIENT, SpanKind.INTERNAL, "ratelimited_llm.queue")
        assert queue.attributes["ratelimited_llm.queue.wait_time"] >= 0
        heard.exporter.clear()
    points = heard.metrics()["gen_ai.client.operation.duration"]
    assert [(point.count, point.attributes["gen_ai.provider.name"]) for point in points] == [(2, "anthropic")]


@pytest.mark.skipif(not hasattr(plain_anthropic.Anthropic, "open_telemetry"), reason="it makes none")
def test_anthropic_calls_are_ours_to_tell_when_its_own_spans_are_off(simulator, door, heard, monkeypatch):
    """ANTHROPIC_OPEN_TELEMETRY=false: then they are spans like any other."""
    monkeypatch.setenv("ANTHROPIC_OPEN_TELEMETRY", "false")
    client = door(Anthropic, simulator("anthropic"))
    answer = client.messages.create(model="claude", max_tokens=5, messages=MESSAGES)
    assert answer.content
    with client.messages.stream(model="claude", max_tokens=5, messages=MESSAGES) as stream:
        text = stream.get_final_message()
    one, other = heard.spans(2)
    for span, message in ((one, answer), (other, text)):
        assert (span.name, span.kind) == ("chat claude", SpanKind.CLIENT)
        assert span.attributes["gen_ai.response.id"] == message.id
        assert span.attributes["gen_ai.response.finish_reasons"] == (message.stop_reason,)
        assert span.attributes["gen_ai.usage.output_tokens"] == message.usage.output_tokens


def test_metrics_have_the_conventions_names_units_and_buckets(simulator, door, heard):
    """And ours beside them; what cannot be known is not told."""
    client = door(OpenAI, simulator(rpm=6), prices={"m": (1.0, 1.0)})
    usage = ask(client).usage
    told = heard.metrics()
    (duration,) = told["gen_ai.client.operation.duration"]
    assert duration.explicit_bounds == (
        0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
    )  # fmt: skip
    tokens = {point.attributes["gen_ai.token.type"]: point for point in told["gen_ai.client.token.usage"]}
    assert {name: point.sum for name, point in tokens.items()} == {
        "input": usage.prompt_tokens, "output": usage.completion_tokens,
    }  # fmt: skip
    assert tokens["input"].explicit_bounds == tuple(4**power for power in range(14))
    assert told["ratelimited_llm.queue.wait_time"][0].attributes["priority"] == "normal"
    assert [point.value for point in told["ratelimited_llm.queue.pending_requests"]] == [0]
    assert [point.value for point in told["ratelimited_llm.requests.in_flight"]] == [0]
    assert {point.attributes["limit.type"]: point.value for point in told["ratelimited_llm.limit"]} == {"rpm": 6}
    assert told["ratelimited_llm.limit.remaining"][0].value < 6  # a call is ten seconds of it
    assert told["ratelimited_llm.cost"][0].value == pytest.approx(usage.total_tokens / 1e6)
    texts = repr(told) + "".join(span.to_json() for span in heard.spans())
    assert "secret" not in texts


def test_the_environment_keeps_it_out(simulator, door, heard, monkeypatch):
    """RATELIMITED_LLM_OTEL=0: no span and no metric of ours, for whoever has another instrumentation."""
    monkeypatch.setenv("RATELIMITED_LLM_OTEL", "0")
    assert ask(door(OpenAI, simulator())).choices
    assert heard.spans() == []
    assert heard.metrics() == {}


def test_whatever_a_span_processor_raises_the_call_is_answered(simulator, door, heard):
    """Telemetry that is broken costs telemetry."""

    class Broken(SpanProcessor):
        def on_start(self, span, parent_context=None):
            raise RuntimeError("broken")

        def on_end(self, span):
            raise RuntimeError("broken")

    heard.spans_provider.add_span_processor(Broken())
    client = door(OpenAI, simulator())
    for mode in ("future", "blocking"):
        assert ask(client.with_options(mode=mode)).choices
    assert list(ask(client, stream=True))


def test_nobody_who_does_not_listen_pays(simulator, door):
    """The API is installed and imported, and no provider is configured: a call has no trace at all."""
    assert tracing.new_trace() is None
    assert listening.listener() is None
    future = ask(door(OpenAI, simulator()))
    assert future._call is None or future._call.call.trace is None
    assert future.choices


def test_the_api_is_not_imported_for_nobody():
    """A process that does not use OpenTelemetry does not load it for us."""
    code = (
        "import sys, ratelimited_llm.runtime\nfrom ratelimited_llm.telemetry.tracing import new_trace\n"
        "print(new_trace(), 'opentelemetry' in sys.modules, 'prometheus_client' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["None", "False", "False"]
