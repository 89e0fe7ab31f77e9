"""Jobs on dramatiq's queues in Redis: its broker, its messages, its acknowledgements, its heartbeats and its delays.

What is taken from dramatiq is what makes it durable. Its `Worker` is not: that gives each of its threads one job, and
we want the jobs of three queues in one scheduler, which knows the limits. So this file has a loop of its own over the
broker's commands. It asks for the highest class first, takes no more than it has places for, and none of the lower
classes while a higher one has more. All moments are of the server's clock, so that a machine whose own is wrong takes
nobody for dead. Messages are JSON, whatever encoder the process has set for dramatiq's own use.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from .address import QueueAddress
from .engines import CLASSES, Handler, Stop, Ticket
from .payload import LARGEST
from .redis_server import ServerClock, connect, lost, require

__all__ = ["DramatiqEngine"]

_log = logging.getLogger("ratelimited_llm.queue")
ACTOR = "ratelimited_llm.call"
BUSY, IDLE = 0.02, 0.25  # seconds between two looks: while there is something to do, and after a while without
AWAKE = 1.0  # seconds: that while
KEPT_AHEAD = 16  # jobs of a class that wait here for a permit, at least
AHEAD_SECONDS = 1.0  # or as many as were sent in so many seconds
DELAYED_AT_ONCE = 1_000
RETRY = 0.5  # seconds between two tries to reach a lost server


class DramatiqEngine:
    """See `QueueEngine`.

    Args:
        address: the queue; its name is the namespace of the broker.
    """

    def __init__(self, address: QueueAddress) -> None:
        require("dramatiq", "dramatiq")
        self.address = address
        self._client = connect(address)
        self._clock = ServerClock(self._client)
        self._broker = _broker(address, self._client, self._clock, heartbeat=60.0)

    def submit(self, job: Mapping[str, Any], rank: str, delay: float = 0.0) -> None:
        """See `QueueEngine`."""
        try:
            _enqueue(self._broker, self._clock, dict(job), rank, delay)
        except Exception as error:
            raise lost(self.address, error, "did not take a call") from error

    def consume(self, handler: Handler, *, concurrency: int, heartbeat: float, stop: Stop) -> None:
        """See `QueueEngine`."""
        client = connect(self.address)
        clock = ServerClock(client)
        try:
            _Loop(_broker(self.address, client, clock, heartbeat), clock, handler, concurrency, heartbeat, stop).run()
        finally:
            client.close()

    def close(self) -> None:
        """See `QueueEngine`."""
        self._client.close()


def _broker(address: QueueAddress, client: Any, clock: ServerClock, heartbeat: float) -> Any:
    """A broker of our own, with no middleware; the process's global one is not touched.

    Its upkeep, by which the jobs of dead workers come back, is left to the workers, who do it on purpose.
    """
    from dramatiq.brokers.redis import RedisBroker

    class Broker(RedisBroker):  # type: ignore[misc, unused-ignore]
        upkeep = False

        def _dispatch(self, command: str) -> Callable[..., Any]:
            def dispatch(queue_name: str, *args: Any) -> Any:
                now = int(clock.now() * 1000)
                said = [
                    command, now, queue_name, self.broker_id, self.heartbeat_timeout, self.dead_message_ttl,
                    int(self.upkeep), self._max_unpack_size(), *args,  # type: ignore[no-untyped-call, unused-ignore]
                ]  # fmt: skip
                return self.scripts["dispatch"](args=said, keys=[self.namespace])

            return dispatch

    return Broker(  # type: ignore[no-untyped-call, unused-ignore]
        client=client, middleware=[], namespace=address.key("dramatiq"), heartbeat_timeout=int(heartbeat * 1000)
    )


def _enqueue(broker: Any, clock: ServerClock, job: Any, rank: str, delay: float) -> None:
    from dramatiq import Message
    from dramatiq.common import dq_name
    from dramatiq.encoder import JSONEncoder

    number = str(uuid.uuid4())
    options: dict[str, Any] = {"redis_message_id": number}
    queue = rank
    if delay > 0:
        queue = dq_name(rank)
        options["eta"] = int((clock.now() + delay) * 1000)
    message: Any = Message(queue_name=queue, actor_name=ACTOR, args=(job,), kwargs={}, options=options)
    broker.do_enqueue(queue, number, JSONEncoder().encode(message.asdict()))


class _Ticket:
    """See `Ticket`."""

    __slots__ = ("_loop", "job", "number", "queue", "rank", "running")

    def __init__(self, loop: _Loop, queue: str, rank: str, number: str, job: Any) -> None:
        self._loop = loop
        self.queue = queue
        self.rank = rank
        self.number = number
        self.job = job
        self.running = False

    def done(self) -> None:
        self._loop.end(self, partial(self._loop.broker.do_ack, self.queue, self.number))

    def put_back(self, delay: float = 0.0) -> None:
        if delay <= 0:
            self._loop.end(self, partial(self._loop.broker.do_requeue, self.queue, self.number))
        else:
            self._loop.end(self, partial(self._later, delay))

    def _later(self, delay: float) -> None:
        # In this order: if we die between the two, it is there twice, and the second finds the answer of the first.
        _enqueue(self._loop.broker, self._loop.clock, self.job, self.rank, delay)
        self._loop.broker.do_ack(self.queue, self.number)

    def refuse(self) -> None:
        self._loop.end(self, partial(self._loop.broker.do_nack, self.queue, self.number))


class _Loop:
    """One worker's loop over the queues. Its thread takes; jobs end on any thread.

    Args:
        broker, clock, handler, concurrency, heartbeat, stop: see `DramatiqEngine.consume`.
    """

    def __init__(
        self, broker: Any, clock: ServerClock, handler: Handler, concurrency: int, heartbeat: float, stop: Stop
    ) -> None:
        self.broker = broker
        self.clock = clock
        self._handler = handler
        self._places = concurrency
        self._heartbeat = heartbeat
        self._stop = stop
        self._open: set[_Ticket] = set()
        self._late: deque[Callable[[], Any]] = deque()
        self._ended = threading.Event()
        self._delayed: list[tuple[float, int, str, str, Any]] = []
        self._numbers = itertools.count()
        self._kept_up = -heartbeat
        self._looked = -IDLE
        self._begun: dict[str, deque[float]] = {rank: deque() for rank in CLASSES}
        self._seen: set[Ticket] = set()  # of the open ones: those that are known to be sent

    def run(self) -> None:
        """Take jobs until told to stop, then wait for what is in flight."""
        retry_at, busy_until = 0.0, time.monotonic() + AWAKE
        while not self._stop.asked.is_set():
            self._handler.tick()
            took = False
            if time.monotonic() >= retry_at:
                try:
                    took = self._pass()
                except Exception as error:
                    _log.warning("queue_lost: %s; it is tried again", type(error).__name__)
                    retry_at = time.monotonic() + RETRY
            if took or self._open:
                busy_until = time.monotonic() + AWAKE
            if not took:
                self._ended.wait(BUSY if time.monotonic() < busy_until else IDLE)
                self._ended.clear()
        self._drain()

    def _drain(self) -> None:
        self._handler.give_back()
        until = time.monotonic() + self._stop.drain
        while self._open and time.monotonic() < until and not self._stop.now.is_set():
            self._handler.tick()
            with suppress(Exception):
                self._keep_up()
            self._ended.wait(BUSY)
            self._ended.clear()
        left = list(self._open)
        if left:
            _log.warning("drain_over: %d calls are in flight, and are given back", len(left))
        for ticket in left:
            ticket.put_back()
        with suppress(Exception):
            self._flush()
            for _, _, queue, number, _ in self._delayed:
                self.broker.do_requeue(queue, number)

    # -- one look at the queues ---------------------------------------------------------------------------------------

    def _pass(self) -> bool:
        """Take what there is room for; whether there was something."""
        self._flush()
        self._keep_up()
        self._due()
        free, waiting = self._count()
        took = 0
        for at, rank in enumerate(CLASSES):
            # What waits for a permit takes no place from a higher class. While there is none, there may be more of the
            # higher one, which a place that becomes free meanwhile is for: hence one count for the whole look.
            ahead = max(KEPT_AHEAD, len(self._begun[rank])) - waiting[rank]
            room = min(ahead, free - sum(waiting[each] for each in CLASSES[: at + 1]))
            if room > 0:
                got = self._fetch(rank, room)
                waiting[rank] += got
                took += got
        return took > 0

    def _count(self) -> tuple[int, dict[str, int]]:
        """Places that are free, and how many of each class wait here for a permit.

        Nothing waits here for a place, where another worker may have one free, and a lower class would be begun there
        meanwhile; and no more for a permit than will have one soon.
        """
        now, running = time.monotonic(), 0
        waiting = dict.fromkeys(CLASSES, 0)
        for ticket in self._handler.held:
            if not ticket.running:
                waiting[ticket.rank] += 1
                continue
            running += 1
            if ticket not in self._seen:
                self._seen.add(ticket)
                self._begun[ticket.rank].append(now)
        for begun in self._begun.values():
            while begun and begun[0] < now - AHEAD_SECONDS:
                begun.popleft()
        return self._places - running, waiting

    def _fetch(self, rank: str, most: int) -> int:
        tickets: list[_Ticket] = []
        fetched = self.broker.do_fetch(rank, most)
        for data in fetched:
            ticket = self._ticket(rank, data)
            if ticket is not None:
                tickets.append(ticket)
        self._open.update(tickets)
        self._handler.take(tickets)
        return len(fetched)

    def _ticket(self, rank: str, data: bytes | None) -> _Ticket | None:
        message = _decode(data)
        number = message.get("options", {}).get("redis_message_id") if message else None
        if message is None or not isinstance(number, str):
            _log.warning("no_message: what is not one of dramatiq's is left alone", extra={"event": "no_message"})
            return None
        args = message.get("args")
        return _Ticket(self, rank, rank, number, args[0] if isinstance(args, list) and len(args) == 1 else None)

    def _keep_up(self) -> None:
        """Say that this worker lives, and have the jobs of those that do not come back."""
        now = time.monotonic()
        if now - self._kept_up < min(self._heartbeat / 4, 2.0):
            return
        from dramatiq.common import dq_name

        self._kept_up = now
        self.broker.upkeep = True
        try:
            for rank in CLASSES:
                for queue in (rank, dq_name(rank)):
                    self.broker.do_qsize(queue)
        finally:
            self.broker.upkeep = False

    def _due(self) -> None:
        """Delayed jobs go into their queue when their time has come; until then they are held here."""
        from dramatiq.common import dq_name

        now = time.monotonic()
        if now - self._looked < IDLE:
            return
        self._looked, moment = now, self.clock.now() * 1000
        for rank in CLASSES:
            queue = dq_name(rank)
            for data in self.broker.do_fetch(queue, DELAYED_AT_ONCE) if len(self._delayed) < DELAYED_AT_ONCE else ():
                self._hold(queue, rank, data, moment)
        while self._delayed and self._delayed[0][0] <= moment:
            _, _, queue, number, job = self._delayed[0]
            _enqueue(self.broker, self.clock, job, queue.removesuffix(".DQ"), 0.0)
            self.broker.do_ack(queue, number)
            heapq.heappop(self._delayed)

    def _hold(self, queue: str, rank: str, data: bytes | None, moment: float) -> None:
        ticket = self._ticket(rank, data)
        if ticket is None:
            return
        eta = (_decode(data) or {}).get("options", {}).get("eta")
        if isinstance(eta, bool) or not isinstance(eta, (int, float)) or not eta < moment + 7 * 86_400_000:
            eta = moment  # nobody delays for longer
        heapq.heappush(self._delayed, (float(eta), next(self._numbers), queue, ticket.number, ticket.job))

    # -- from any thread ----------------------------------------------------------------------------------------------

    def end(self, ticket: _Ticket, step: Callable[[], Any]) -> None:
        """It has ended here: tell the broker, when it can be reached."""
        try:
            step()
        except Exception:
            self._late.append(step)
        self._open.discard(ticket)
        self._seen.discard(ticket)
        self._ended.set()

    def _flush(self) -> None:
        while self._late:
            self._late[0]()
            self._late.popleft()


def _decode(data: bytes | None) -> dict[str, Any] | None:
    from dramatiq.encoder import JSONEncoder

    if data is None or len(data) > 2 * LARGEST:
        return None
    try:
        message = JSONEncoder().decode(data)
    except Exception:  # its own error, or what JSON raises for what is nested without end
        return None
    return message if isinstance(message, dict) and isinstance(message.get("options", {}), dict) else None
