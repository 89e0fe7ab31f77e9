"""QueueManager: the queue for services, where a request has an id, a status, a callback and a result that is kept.

answers     what the methods answer: values that may be awaited, or not
records     the requests that are known, and for how long
callbacks   how somebody is told of an end
background  the event loop of async processors and callbacks
processing  requests that a `Processor` sends
through     requests that go through a client of ours
figures     numbers over all of them
service     the manager itself
"""

from __future__ import annotations

from .answers import RequestId
from .service import QueueManager

__all__ = ["QueueManager", "RequestId"]
