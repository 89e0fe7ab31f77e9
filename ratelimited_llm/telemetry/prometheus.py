"""Every client's counts as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ..core.request import Priority
from .meters import Histogram, Labels, Meter, Meters
from .registry import limits, totals

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.registry import CollectorRegistry

__all__ = ["PREFIX", "Collector", "client_library", "exposition", "priority_name", "register"]

PREFIX = "ratelimited_llm_"
KIND = ("provider", "model", "bucket")
OUTCOMES = ("answered", "failed", "cancelled", "replayed")
MISSING = 'Prometheus metrics need prometheus-client: pip install "ratelimited-llm[metrics]"'


def client_library() -> Any:
    """prometheus_client, imported when it is needed.

    Raises:
        ImportError: it is missing; the message says how to get it.
    """
    try:
        import prometheus_client.core
    except ImportError as error:
        raise ImportError(MISSING) from error
    return prometheus_client


def priority_name(rank: int) -> str:
    """A priority as people write it: its name, or its number when it has none."""
    try:
        return Priority(rank).name.lower()
    except ValueError:
        return str(rank)


class Collector:
    """Tells what was counted whenever it is asked; keeps nothing."""

    def describe(self) -> Iterable[Metric]:
        """The names, so that a registry finds out what it has already."""
        return self._families(Meters(), {})

    def collect(self) -> Iterable[Metric]:
        """The numbers of this moment."""
        return self._families(totals(), limits())

    def _families(self, meters: Meters, stand: Any) -> Iterator[Metric]:
        by_priority = _grouped(meters, lambda labels: (*labels[:3], priority_name(labels.priority)))
        by_kind = _grouped(meters, lambda labels: labels[:3])
        by_operation = _grouped(meters, lambda labels: labels[:4])
        priority, operation = (*KIND, "priority"), (*KIND, "operation")
        yield _gauge(
            "queue_pending_requests", "Calls that wait in the queue.", priority,
            ((labels, meter.waiting) for labels, meter in by_priority.items()),
        )  # fmt: skip
        yield _histogram(
            "queue_wait_seconds", "Seconds from submit to the first dispatch.", priority,
            ((labels, meter.wait) for labels, meter in by_priority.items()),
        )  # fmt: skip
        yield _gauge(
            "requests_in_flight", "Calls that were sent and are not answered in full, open streams included.", KIND,
            ((labels, meter.flying) for labels, meter in by_kind.items()),
        )  # fmt: skip
        yield _counter(
            "requests", "Calls by how they ended; a stream is answered when it begins.", (*priority, "outcome"),
            (((*labels, name), getattr(meter, name)) for labels, meter in by_priority.items() for name in OUTCOMES),
        )  # fmt: skip
        yield from self._spent(by_kind)
        yield from self._trouble(by_kind)
        yield _histogram(
            "operation_duration_seconds",
            "Seconds from dispatch to the end of the answer, without the queue, of calls that were answered.",
            operation, ((labels, meter.duration) for labels, meter in by_operation.items()),
        )  # fmt: skip
        yield _histogram(
            "time_to_first_chunk_seconds", "Seconds from dispatch to the first chunk, of streams.", operation,
            ((labels, meter.first_chunk) for labels, meter in by_operation.items() if meter.first_chunk.count),
        )  # fmt: skip
        yield _gauge(
            "limit", "The whole of a limit, per its period.", ("provider", "bucket", "limit"),
            ((labels, whole) for labels, (whole, _) in stand.items()),
        )  # fmt: skip
        yield _gauge(
            "limit_remaining", "What could be spent of a limit at this moment.", ("provider", "bucket", "limit"),
            ((labels, left) for labels, (_, left) in stand.items()),
        )  # fmt: skip

    def _spent(self, by_kind: dict[tuple[Any, ...], Meter]) -> Iterator[Metric]:
        yield _counter(
            "tokens", "Model tokens that answers said they used.", (*KIND, "type"),
            (
                ((*labels, name), amount)
                for labels, meter in by_kind.items()
                for name, amount in (("input", meter.input_tokens), ("output", meter.output_tokens))
            ),
        )  # fmt: skip
        yield _counter(
            "cost_usd", "US dollars for the answers, by the prices that are known; estimated where usage was not told.",
            KIND, ((labels, meter.cost) for labels, meter in by_kind.items()),
        )  # fmt: skip

    def _trouble(self, by_kind: dict[tuple[Any, ...], Meter]) -> Iterator[Metric]:
        yield _counter(
            "rate_limited", "Refusals by a limit (429), by the limit; no call is lost by one.", (*KIND, "limit"),
            (((*labels, name), count) for labels, meter in by_kind.items() for name, count in meter.limited.items()),
        )  # fmt: skip
        yield _counter(
            "retries", "Attempts that failed and were no refusal, by their status or error.", (*KIND, "reason"),
            (((*labels, name), count) for labels, meter in by_kind.items() for name, count in meter.retries.items()),
        )  # fmt: skip


def _grouped(meters: Meters, key: Callable[[Labels], tuple[Any, ...]]) -> dict[tuple[Any, ...], Meter]:
    found: dict[tuple[Any, ...], Meter] = {}
    for labels, meter in meters.items():
        found.setdefault(key(labels), Meter()).join(meter)
    return found


Samples = Iterable[tuple[Iterable[Any], float]]


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    family = client_library().core.GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for values, amount in samples:
        family.add_metric(list(values), amount)
    return family  # type: ignore[no-any-return]


def _counter(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    family = client_library().core.CounterMetricFamily(PREFIX + name, text, labels=labels)
    for values, amount in samples:
        family.add_metric(list(values), amount)
    return family  # type: ignore[no-any-return]


def _histogram(
    name: str, text: str, labels: tuple[str, ...], samples: Iterable[tuple[Iterable[Any], Histogram]]
) -> Metric:
    family = client_library().core.HistogramMetricFamily(PREFIX + name, text, labels=labels)
    for values, histogram in samples:
        bounds = [*map(str, map(float, histogram.bounds)), "+Inf"]
        family.add_metric(list(values), list(zip(bounds, accumulate(histogram.counts), strict=True)), histogram.sum)
    return family  # type: ignore[no-any-return]


_collector = Collector()


def register(registry: CollectorRegistry | None = None) -> CollectorRegistry:
    """See `telemetry.register`; answers the registry."""
    found: Any = client_library().REGISTRY if registry is None else registry
    if not (hasattr(found, "register") and hasattr(found, "collect")):
        raise TypeError(f"registry must be a CollectorRegistry of prometheus_client, or None, not {registry!r}")
    with suppress(ValueError):  # it has these names: it was asked before, perhaps by an earlier import of this module
        found.register(_collector)
    return found  # type: ignore[no-any-return]


def exposition(registry: CollectorRegistry | None = None) -> tuple[bytes, str]:
    """See `telemetry.exposition`."""
    library = client_library()
    return library.generate_latest(register(registry)), library.CONTENT_TYPE_LATEST
