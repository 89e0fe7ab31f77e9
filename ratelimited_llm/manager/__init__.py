"""QueueManager: the queue for services, where a request has an id, a status, a callback and a result that is kept.

service          the manager itself: enqueue, cancel, results, start and stop
inspection       its questions: one request, the queue, numbers over everything
processing       requests that a `Processor` sends
client_requests  requests that go through a client of ours
records          the requests that are known, and for how long
figures          counts over all of them
callbacks        how somebody is told of an end
background       the event loop of async processors and callbacks
answers          what the methods answer: values that may be awaited, or not
"""

from __future__ import annotations

from .answers import RequestId
from .service import QueueManager

__all__ = ["QueueManager", "RequestId"]
