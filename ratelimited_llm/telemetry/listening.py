"""Whether anybody listens through OpenTelemetry, looked at now and then: nobody pays for what nobody hears.

A program that wants traces has imported the API to configure it. So it is never imported here on our own account,
and a process without it pays for one comparison a call.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from ..core.checks import says_no

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from .instruments import Instruments

__all__ = ["Listener", "forget", "listener"]

SWITCH = "RATELIMITED_LLM_OTEL"  # "0" keeps us out of it
NAMED = ("OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER")  # the API makes these itself when it is asked
LOOK_EVERY = 0.05  # seconds
SCOPE = "ratelimited_llm"

_log = logging.getLogger("ratelimited_llm.metrics")


class Listener:
    """Who listens.

    Attributes:
        tracer: makes spans; None when no provider of spans is configured.
        instruments: take metrics; None when no provider of metrics is.
    """

    __slots__ = ("instruments", "tracer")

    def __init__(self, tracer: Tracer | None, instruments: Instruments | None) -> None:
        self.tracer = tracer
        self.instruments = instruments


_next_look = 0.0
_listener: Listener | None = None
_providers: tuple[Any, Any] = (None, None)  # that `_listener` was made of
_instruments: tuple[Any, Instruments] | None = None  # of the latest provider of metrics


def listener() -> Listener | None:
    """Who listens, as of the last twentieth of a second; None for nobody."""
    global _next_look, _listener
    now = time.monotonic()
    if now >= _next_look:
        _next_look = now + LOOK_EVERY
        try:
            _listener = _look()
        except Exception:  # an API of another time: no trace is worth a call
            _log.debug("opentelemetry_unusable", exc_info=True)
            _listener = None
    return _listener


def forget() -> None:
    """Look again at the next call, whenever that is."""
    global _next_look
    _next_look = 0.0


def _look() -> Listener | None:
    global _providers
    if "opentelemetry.trace" not in sys.modules and not any(name in os.environ for name in NAMED):
        return None
    if says_no(os.environ.get(SWITCH, "")):
        return None
    from opentelemetry import metrics, trace

    spans, meters = _real(trace.get_tracer_provider()), _real(metrics.get_meter_provider())
    if spans is None and meters is None:
        return None
    if _listener is not None and _providers[0] is spans and _providers[1] is meters:
        return _listener
    from .. import __version__

    _providers = (spans, meters)
    return Listener(None if spans is None else spans.get_tracer(SCOPE, __version__), _instruments_of(meters))


def _real(provider: Any) -> Any:
    """A provider that does something: those of the API itself do not."""
    return None if type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics")) else provider


def _instruments_of(provider: Any) -> Instruments | None:
    """Made once for a provider, which would warn of a second set."""
    global _instruments
    if provider is None:
        return None
    if _instruments is None or _instruments[0] is not provider:
        from .. import __version__
        from .instruments import Instruments

        _instruments = provider, Instruments(provider.get_meter(SCOPE, __version__))
    return _instruments[1]
