"""Jobs on Celery's queues in Redis, with the settings that make it at-least-once, and JSON as all that it carries.

Acknowledged late, one message fetched per free place, rejected when a worker is lost, and seen again by others after a
visibility timeout that is above the longest call ("?visibility=" in the address, seconds). That timeout is Celery's
only way to notice a killed worker, so its jobs come back later than dramatiq's. Classes are queues that are asked in
their order; a place that a lower class has taken and that waits for a permit is free again when its patience is over.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from .address import QueueAddress
from .engines import CLASSES, Handler, Stop
from .redis_server import ANSWER, CONNECT, lost, require

__all__ = ["CeleryEngine"]

_log = logging.getLogger("ratelimited_llm.queue")
TASK = "ratelimited_llm.call"
TICK = 0.1  # seconds


class CeleryEngine:
    """See `QueueEngine`.

    Args:
        address: the queue.
    """

    def __init__(self, address: QueueAddress) -> None:
        require("celery", "celery")
        self.address = address
        self._lock = threading.Lock()
        self._made: tuple[int, Any] | None = None  # by which process: a fork's child makes its own

    def _app(self) -> Any:
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = (os.getpid(), _app(self.address, patient=False))
            return self._made[1]

    def submit(self, job: Mapping[str, Any], rank: str, delay: float = 0.0) -> None:
        """See `QueueEngine`."""
        try:
            _send(self._app(), job, rank, delay)
        except Exception as error:
            raise lost(self.address, error, "did not take a call") from error

    def consume(self, handler: Handler, *, concurrency: int, heartbeat: float, stop: Stop) -> None:
        """See `QueueEngine`; `heartbeat` has no meaning here, see above."""
        _Consumer(_app(self.address, patient=True), handler, concurrency, stop).run()

    def close(self) -> None:
        """See `QueueEngine`."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None and made[0] == os.getpid():
            with suppress(Exception):
                made[1].close()


def _app(address: QueueAddress, *, patient: bool) -> Any:
    """An app of our own. Who submits leaves the process's current one alone; a worker's becomes the default."""
    from celery import Celery  # type: ignore[import-untyped, unused-ignore]

    queue = require("kombu", "celery").Queue
    app: Any = Celery("ratelimited_llm", set_as_current=False, broker=address.server)
    app.conf.update(
        accept_content=["json"], task_serializer="json", result_serializer="json", event_serializer="json",
        result_backend=None, task_ignore_result=True, task_acks_late=True, task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1, worker_enable_remote_control=False, worker_hijack_root_logger=False,
        worker_send_task_events=False, broker_connection_retry_on_startup=True, broker_heartbeat=0,
        task_queues=[queue(name) for name in CLASSES], task_create_missing_queues=False, task_default_queue="normal",
        broker_connection_max_retries=None, worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_transport_options={
            "visibility_timeout": address.visibility, "queue_order_strategy": "priority",
            "global_keyprefix": address.key("celery:"), "socket_connect_timeout": CONNECT,
            "socket_timeout": None if patient else ANSWER, "retry_on_timeout": False, "max_retries": 0,
        },
    )  # fmt: skip
    return app


def _send(app: Any, job: Any, rank: str, delay: float) -> None:
    app.send_task(
        TASK, args=[dict(job)], queue=rank, serializer="json", retry=False, ignore_result=True,
        countdown=delay if delay > 0 else None,
    )  # fmt: skip


class _Ticket:
    """See `Ticket`; the thread that Celery has given the job waits for its end."""

    __slots__ = ("delay", "ended", "job", "rank", "running")

    def __init__(self, job: Any, rank: str) -> None:
        self.job = job
        self.rank = rank
        self.running = False
        self.delay: float | None = None
        self.ended = threading.Event()

    def done(self) -> None:
        self.ended.set()

    def put_back(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.ended.set()

    def refuse(self) -> None:
        self.ended.set()


class _Consumer:
    """One Celery worker with threads, in this process.

    Args:
        app, handler, concurrency, stop: see `CeleryEngine.consume`.
    """

    def __init__(self, app: Any, handler: Handler, concurrency: int, stop: Stop) -> None:
        self._app = app
        self._handler = handler
        self._concurrency = concurrency
        self._stop = stop
        self._taking = threading.Lock()  # a handler is called by one thread at a time
        self._open: set[_Ticket] = set()
        visibility = app.conf.broker_transport_options["visibility_timeout"]
        self._restores_every = min(10.0, max(1.0, visibility / 4))
        app.set_default()  # the threads of Celery's pool look there

        def call(task: Any, *args: Any) -> None:
            self._run_one(task, *args)

        app.task(call, name=TASK, bind=True, acks_late=True, shared=False)

    def run(self) -> None:
        """Work until told to stop, then wait for what is in flight."""
        from celery.worker import WorkController, state  # type: ignore[import-untyped, unused-ignore]

        worker = WorkController(
            app=self._app, pool="threads", concurrency=self._concurrency, loglevel="WARNING", queues=list(CLASSES),
            without_gossip=True, without_mingle=True, without_heartbeat=True,
        )  # fmt: skip
        thread = threading.Thread(target=worker.start, name="ratelimited-llm-celery", daemon=True)
        thread.start()
        looked = time.monotonic()
        while thread.is_alive() and not self._stop.asked.wait(TICK):
            with self._taking:
                self._handler.tick()
            if time.monotonic() - looked > self._restores_every:
                looked = time.monotonic()
                self._restore()
        died = not thread.is_alive()
        self._drain()
        state.should_stop = 0
        try:
            thread.join(5.0)
        finally:
            state.should_stop = None
            with suppress(Exception):
                self._app.close()
        if died:
            raise RuntimeError("Celery's worker has ended by itself; its log says why")

    def _restore(self) -> None:
        """Have the jobs of lost workers come back; by itself, kombu looks every hundred seconds only."""
        try:
            with self._app.connection_for_read() as connection:
                connection.default_channel.qos.restore_visible(num=1_000, interval=1)
        except Exception as error:  # the server is lost, or kombu has changed: it still looks by itself
            _log.debug("restore_failed: %s", type(error).__name__)

    def _drain(self) -> None:
        with self._taking:
            self._handler.give_back()
        until = time.monotonic() + self._stop.drain
        while self._open and time.monotonic() < until and not self._stop.now.wait(TICK):
            with self._taking:
                self._handler.tick()
        left = list(self._open)
        if left:
            _log.warning("drain_over: %d calls are in flight, and are given back", len(left))
        for ticket in left:
            ticket.put_back()

    def _run_one(self, task: Any, job: Any = None, *others: Any) -> None:
        """In one of Celery's threads: hand it over, wait for its end, and say so by returning."""
        from celery.exceptions import Reject  # type: ignore[import-untyped, unused-ignore]

        rank = (task.request.delivery_info or {}).get("routing_key")
        ticket = _Ticket(None if others else job, rank if rank in CLASSES else "normal")
        self._open.add(ticket)
        try:
            with self._taking:
                self._handler.take([ticket])
            ticket.ended.wait()
        finally:
            self._open.discard(ticket)
        if ticket.delay is None:
            return
        if ticket.delay > 0:
            with suppress(Exception):  # if it cannot be sent, it is requeued, which Celery tries when it can
                _send(self._app, ticket.job, ticket.rank, ticket.delay)
                return
        raise Reject("given back", requeue=True)
