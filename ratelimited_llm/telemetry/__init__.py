"""What operators see: Prometheus metrics of all doors of this process, and OpenTelemetry spans and metrics.

    from ratelimited_llm import telemetry
    telemetry.start_metrics_server(9464)               # http://127.0.0.1:9464/metrics; or RATELIMITED_LLM_METRICS_PORT
    body, content_type = telemetry.exposition()        # the same, to be served by something that is there already

Prometheus needs `pip install "ratelimited-llm[metrics]"`. OpenTelemetry is found by itself when the program has
configured it; RATELIMITED_LLM_OTEL=0 keeps this package out of it.

meters          what is counted, for each kind of call
registry        the meters of all clients of the process
prometheus      how they are told to Prometheus
server          the HTTP server for its scraper
autostart       RATELIMITED_LLM_METRICS_PORT: that server without a line of code
listening       whether anybody listens through OpenTelemetry
tracing         one call as a span
genai           a call in the words of the GenAI conventions
instruments     the metrics that OpenTelemetry is told
span_thread     the thread that ends spans, so that no exporter holds up a call
reasons         what a failure is called

Clients' calls are counted by their ledger, those of every other door by a tally (`books`): both in the same meters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client.registry import CollectorRegistry

    from .server import MetricsServer

__all__ = ["exposition", "register", "start_metrics_server", "stop"]


def start_metrics_server(
    port: int, host: str = "127.0.0.1", registry: CollectorRegistry | None = None
) -> MetricsServer:
    """Serve the metrics of this process over HTTP, on a thread of its own, until `stop`.

    Asking again for an address that is served already answers the server that is there. Whoever reaches the address
    can read the metrics: they name models and limits, and no key, prompt or tenant.

    Args:
        port: of TCP; 0 for a free one, which is the `port` of the server that is returned.
        host: the address to listen at.
        registry: of prometheus_client, also for your own metrics; None for its default one.

    Raises:
        ImportError: prometheus-client is missing.
        TypeError, ValueError: for what is no port, host or registry.
        OSError: the address is taken, or not ours.
    """
    from .server import start

    return start(port, host, registry)


def stop() -> None:
    """End every metrics server of this process; blocks until their threads are gone. Metrics stay registered."""
    from .server import stop_all

    stop_all()


def register(registry: CollectorRegistry | None = None) -> None:
    """Have a registry of prometheus_client tell the metrics of all clients, from now on; again, it does nothing.

    Args:
        registry: None for the default one.

    Raises:
        ImportError: prometheus-client is missing.
        TypeError: for what is no registry.
    """
    from .prometheus import register

    register(registry)


def exposition(registry: CollectorRegistry | None = None) -> tuple[bytes, str]:
    """The metrics as Prometheus reads them now, and their content type; registers them first.

    Args:
        registry: whose metrics; None for the default one, which has the interpreter's and your own too.

    Raises:
        ImportError: prometheus-client is missing.
        TypeError: for what is no registry.
    """
    from .prometheus import exposition

    return exposition(registry)
