"""The real SDKs against the simulator on loopback, and whoever listens: Prometheus' parser, OpenTelemetry's SDK."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ratelimited_llm import telemetry
from ratelimited_llm.telemetry import autostart, listening, registry

sys.path.insert(0, str(Path(__file__).parent))  # for reading.py: pytest imports files without their directory


@pytest.fixture(scope="module", autouse=True)
def modules(short_rests):
    """No test waits for long after trouble."""


@pytest.fixture(autouse=True)
def clean(own_settings, monkeypatch):
    """Nobody has counted anything yet, and no server is left."""
    registry.forget()
    listening.forget()
    monkeypatch.setattr(autostart, "_asked", set())
    yield
    telemetry.stop()
    registry.forget()
    listening.forget()


class Heard:
    """What OpenTelemetry was told.

    Attributes:
        tracer: of the caller's own.
    """

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.spans_provider = TracerProvider()
        self.spans_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters_provider = MeterProvider([self.reader])
        self.tracer = self.spans_provider.get_tracer("caller")

    def spans(self, count=None, scope="ratelimited_llm"):
        """Those of one library that have ended, once there are so many: a stream's is told by another thread."""
        deadline = time.monotonic() + 5.0
        while True:
            found = [span for span in self.exporter.get_finished_spans() if span.instrumentation_scope.name == scope]
            if count is None or len(found) >= count or time.monotonic() > deadline:
                assert count in (None, len(found))
                return found
            time.sleep(0.002)

    def metrics(self):
        """The data points of our scope by the names of their metrics."""
        told = self.reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in (told.resource_metrics if told is not None else ())
            for scope in resource.scope_metrics
            if scope.scope.name == "ratelimited_llm"
            for metric in scope.metrics
        }

    def close(self):
        self.spans_provider.shutdown()
        self.meters_provider.shutdown()


@pytest.fixture
def heard(monkeypatch):
    """Configure OpenTelemetry as a program would, for one test: it allows that only once in a process."""
    listener = Heard()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", listener.spans_provider)
    monkeypatch.setattr(metrics._internal, "_METER_PROVIDER", listener.meters_provider)
    yield listener
    listener.close()
