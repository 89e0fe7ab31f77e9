"""The metrics that OpenTelemetry is told: those of the GenAI conventions call by call, our own when it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..core.request import Usage
from .meters import DURATIONS, TOKENS, WAITS, Labels, Meter
from .prometheus import priority_name
from .registry import limits, totals

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.metrics import Meter as OTelMeter

__all__ = ["Instruments"]

HISTOGRAMS = (
    ("gen_ai.client.operation.duration", "s", DURATIONS, "From dispatch to the end of the answer, without the queue."),
    ("gen_ai.client.token.usage", "{token}", TOKENS, "Tokens that answers said they used."),
    ("gen_ai.client.operation.time_to_first_chunk", "s", DURATIONS, "From dispatch to the first chunk of a stream."),
    ("ratelimited_llm.queue.wait_time", "s", WAITS, "From submit to the first dispatch."),
)

Amounts = Iterable[tuple[float, dict[str, Any]]]


class Instruments:
    """What is recorded with one meter provider.

    Args:
        meter: of OpenTelemetry.
    """

    def __init__(self, meter: OTelMeter) -> None:
        self._duration, self._tokens, self._first_chunk, self._wait = (
            meter.create_histogram(name, unit, text, explicit_bucket_boundaries_advisory=bounds)
            for name, unit, bounds, text in HISTOGRAMS
        )
        _observe(meter)

    def waited(self, seconds: float, attributes: Mapping[str, Any]) -> None:
        """A call was dispatched for the first time."""
        self._wait.record(seconds, attributes)

    def began(self, seconds: float, attributes: Mapping[str, Any]) -> None:
        """The first chunk of a stream is there."""
        self._first_chunk.record(seconds, attributes)

    def ended(self, seconds: float, attributes: Mapping[str, Any], usage: Usage | None) -> None:
        """A call has ended, with `error.type` among the attributes when it failed."""
        self._duration.record(seconds, attributes)
        if usage is not None:  # the conventions forbid estimates
            self._tokens.record(usage.input_tokens, {**attributes, "gen_ai.token.type": "input"})
            self._tokens.record(usage.output_tokens, {**attributes, "gen_ai.token.type": "output"})


def _observe(meter: OTelMeter) -> None:
    """Have the registry's counts read whenever a reader collects."""
    for create, name, unit, text, read in (
        (meter.create_observable_up_down_counter, "queue.pending_requests", "{request}", "Calls that wait.", _pending),
        (meter.create_observable_up_down_counter, "requests.in_flight", "{request}", "Calls that were sent.", _flying),
        (meter.create_observable_counter, "throttled", "{refusal}", "Refusals by a limit (429).", _throttled),
        (meter.create_observable_counter, "retries", "{attempt}", "Attempts that failed otherwise.", _retries),
        (meter.create_observable_counter, "cost", "USD", "US dollars, as far as prices are known.", _cost),
        (meter.create_observable_gauge, "limit", "1", "The whole of a limit, per its period.", _limit),
        (meter.create_observable_gauge, "limit.remaining", "1", "What remains of a limit.", _remaining),
    ):
        create(f"ratelimited_llm.{name}", [_callback(read)], unit, text)


def _callback(read: Callable[[], Amounts]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def callback(options: CallbackOptions) -> Iterable[Observation]:
        from opentelemetry.metrics import Observation

        sums: dict[tuple[tuple[str, Any], ...], float] = {}
        for amount, attributes in read():  # one value for each set of attributes, or the last one would win
            key = tuple(attributes.items())
            sums[key] = sums.get(key, 0.0) + amount
        return [Observation(amount, dict(key)) for key, amount in sums.items()]

    return callback


def _kind(labels: Labels) -> dict[str, Any]:
    return {"gen_ai.provider.name": labels.provider, "gen_ai.request.model": labels.model}


def _each(told: Callable[[Meter], Amounts]) -> Iterator[tuple[float, dict[str, Any]]]:
    for labels, meter in totals().items():
        for amount, more in told(meter):
            yield amount, {**_kind(labels), **more}


def _pending() -> Amounts:
    for labels, meter in totals().items():
        yield meter.waiting, {**_kind(labels), "priority": priority_name(labels.priority)}


def _flying() -> Amounts:
    return _each(lambda meter: [(meter.flying, {})])


def _throttled() -> Amounts:
    return _each(lambda meter: [(count, {"limit.type": limit}) for limit, count in meter.limited.items()])


def _retries() -> Amounts:
    return _each(lambda meter: [(count, {"error.type": reason}) for reason, count in meter.retries.items()])


def _cost() -> Amounts:
    return _each(lambda meter: [(meter.cost, {})])


def _limit() -> Amounts:
    return [(whole, _whose(labels)) for labels, (whole, _) in limits().items()]


def _remaining() -> Amounts:
    return [(left, _whose(labels)) for labels, (_, left) in limits().items()]


def _whose(labels: Any) -> dict[str, Any]:
    return {"gen_ai.provider.name": labels.provider, "bucket": labels.bucket, "limit.type": labels.limit}
