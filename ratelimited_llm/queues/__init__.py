"""A durable queue that several processes and machines share, on an engine that exists.

    client = OpenAI(queue="dramatiq+redis://host/0")                # submits; holds no key
    ratelimited-llm worker --queue dramatiq+redis://host/0 ...      # sends, anywhere; the keys are in its environment

A call is written into the engine's queue as JSON, and its future rests in the submitting process like any other that is
answered elsewhere. A worker takes it, sends it inside its limits, keeps the answer in the same Redis under the call's
id, and only then says to the engine that it is done. So a call that is delivered twice, since a worker died, finds its
answer and costs nothing. One thread of the submitting process waits for all answers and has each replayed through the
SDK, errors included.

What is read from the queue or from the answers was perhaps written by somebody hostile: `payload` and `answers` check
it. Keys and base URLs never travel.
"""

from .address import QueueAddress
from .engines import CLASSES, Handler, QueueEngine, Stop, Ticket, class_of

__all__ = ["CLASSES", "Handler", "QueueAddress", "QueueEngine", "Stop", "Ticket", "class_of", "engine_for"]


def engine_for(address: QueueAddress) -> QueueEngine:
    """The engine of an address.

    Raises:
        ImportError: it is not installed; says what to install.
    """
    if address.engine == "celery":
        from .celery_engine import CeleryEngine

        return CeleryEngine(address)
    from .dramatiq_engine import DramatiqEngine

    return DramatiqEngine(address)
