"""Exporters that hang, raise or are slow; scripts that end, forks, Ctrl-C: no call is slowed, lost or counted twice.

The scripts run in processes of their own, in real time; they assert what must hold, never how long it took.
"""

import os
import subprocess
import sys
import textwrap
import threading

import pytest
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from reading import ask, scrape, total

from ratelimited_llm import OpenAI, RateLimitedExecutor, queued
from ratelimited_llm.telemetry import span_thread

SCRIPT = """
import os, sys, threading, time
from opentelemetry import trace
from ratelimited_llm import RateLimitedExecutor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

class Exporter(SpanExporter):
    seconds = 0.0
    told = 0
    def export(self, spans):
        time.sleep(self.seconds)
        Exporter.told += len(spans)
        return SpanExportResult.SUCCESS
    def shutdown(self):
        print("told", self.told, flush=True)

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(Exporter()))
trace.set_tracer_provider(provider)
"""


def run(code):
    """Let a script run to its end; answers what it printed."""
    script = SCRIPT + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


class Hanging(SpanExporter):
    """A collector that does not answer until it is let go."""

    def __init__(self):
        self.go = threading.Event()
        self.began = threading.Event()

    def export(self, spans):
        self.began.set()
        self.go.wait(60)
        return SpanExportResult.SUCCESS


@pytest.fixture
def hanging(heard):
    """OpenTelemetry with an exporter that hangs in the thread that ends a span."""
    exporter = Hanging()
    heard.spans_provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter
    exporter.go.set()
    assert span_thread._thread_of_process.finish(60)


def test_calls_are_answered_while_an_exporter_hangs(simulator, door, hanging, heard):
    """Of every door and in every mode; their spans are told when it goes on, with the moments they ended at."""
    client = door(OpenAI, simulator())
    assert ask(client).choices
    assert hanging.began.wait(30)
    assert ask(client.with_options(mode="blocking")).choices
    assert list(ask(client, stream=True))
    with RateLimitedExecutor() as executor:
        assert executor.submit(int, "3").result() == 3
    heard.spans(1)
    hanging.go.set()
    first, *_, last = heard.spans(4)
    assert first.end_time < last.end_time


def test_what_a_hanging_exporter_does_not_take_is_dropped_and_said_once(hanging, heard, monkeypatch, caplog):
    """Memory is not for spans; the calls all the same are answered, and counted."""
    monkeypatch.setattr(span_thread, "MOST", 2)
    monkeypatch.setattr(span_thread._thread_of_process, "dropped", 0)
    with RateLimitedExecutor() as executor:
        executor.submit(int).result()
        assert hanging.began.wait(30)
        assert [executor.submit(int, "3").result() for _ in range(9)] == [3] * 9
    assert span_thread._thread_of_process.dropped == 7
    assert [record.event for record in caplog.records if hasattr(record, "event")] == ["spans_dropped"]
    assert total("requests_total", outcome="answered") == 10


def test_whatever_a_processor_raises_a_function_is_answered(heard):
    """At the span's begin or its end, and for any door: telemetry that is broken costs telemetry."""

    class Broken(SpanProcessor):
        def on_start(self, span, parent_context=None):
            raise RuntimeError("broken")

        def on_end(self, span):
            raise RuntimeError("broken")

    class Client:
        def invoke(self, text):
            return {"text": text}

    heard.spans_provider.add_span_processor(Broken())
    with RateLimitedExecutor() as executor:
        assert [executor.submit(int, "3").result() for _ in range(3)] == [3] * 3
    for mode in ("future", "blocking"):
        client = queued(Client(), mode=mode)
        assert client.invoke("x")["text"] == "x"
        client.close()
    assert total("requests_total", outcome="answered") == 5


def test_a_script_ends_though_its_exporter_hangs():
    """It waits two seconds for the last spans, and says nothing of an hour."""
    code = """
    Exporter.seconds = 3600.0
    executor = RateLimitedExecutor()
    print([executor.submit(int, "3").result() for _ in range(3)], flush=True)
    """
    assert run(code) == ["[3,", "3,", "3]", "told", "0"]


def test_the_last_spans_of_a_script_are_told_before_their_provider_is_shut_down():
    """Those of calls that the script leaves to the drain at its end, too, when no thread can be started any more."""
    code = """
    Exporter.seconds = 0.01
    executor = RateLimitedExecutor(max_concurrency=2)
    futures = [executor.submit(time.sleep, seconds) for seconds in [0.5] * 2 + [0.01] * 18]
    """
    assert run(code) == ["told", "20"]


def test_spans_that_no_thread_could_be_had_for_are_told_by_the_next_that_can(monkeypatch):
    """A process at its limit of threads owes them, and tells them in order."""
    spans, told = span_thread.SpanThread(), []

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as at_the_limit:
        at_the_limit.setattr(threading.Thread, "start", refuse)
        spans.prepare()
        spans.tell(lambda: told.append(1))
        assert not spans.finish()
    assert not told
    spans.tell(lambda: told.append(2))
    assert spans.finish(60)
    assert told == [1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_the_child_of_a_fork_counts_its_own_calls_only():
    """What waits and flies in the parent is the parent's; the child's spans are told by a thread of its own."""
    code = """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # threads and a fork: that is what this is about
    from ratelimited_llm.telemetry.registry import limits, totals
    def open_calls():
        found = totals().values()
        return sum(m.waiting for m in found), sum(m.flying for m in found), sum(m.answered for m in found)
    go = threading.Event()
    executor = RateLimitedExecutor(max_concurrency=1)
    executor.submit(int).result()
    waiting = [executor.submit(go.wait), executor.submit(int)]
    child = os.fork()
    if not child:
        before = open_calls()
        assert [left for _, left in limits().values()] == [1.0]
        executor.submit(int).result()
        executor.submit(int).result()
        print(*before, *open_calls(), flush=True)
        from ratelimited_llm.telemetry import span_thread
        assert span_thread._thread_of_process.finish(60)
        os._exit(0 if Exporter.told >= 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    print(*open_calls(), flush=True)
    go.set()
    executor.shutdown()
    print(*open_calls(), flush=True)
    """
    assert run(code) == ["0", "0", "0", "0", "0", "2", "1", "1", "1", "0", "0", "3", "told", "3"]


@pytest.mark.parametrize("mode", ["future", "blocking"])
def test_an_interrupt_inside_of_a_call_leaves_nothing_open(heard, mode):
    """Ctrl-C where it is sent: the caller gets it, the span ends, and no gauge stays up."""

    class Client:
        def invoke(self, text):
            raise KeyboardInterrupt

    client = queued(Client(), mode=mode)
    with pytest.raises(KeyboardInterrupt):
        _ = client.invoke("x").any_attribute
    client.close()
    (span,) = heard.spans(1)
    assert span.attributes["error.type"] == "KeyboardInterrupt"
    samples = scrape()
    assert total("requests_total", samples, outcome="cancelled") == 1
    assert not total("requests_in_flight", samples)
    assert not total("queue_pending_requests", samples)
