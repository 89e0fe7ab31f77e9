"""Gateway: what stands behind the routes; clients, open requests, counts, queue managers, and the end."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

from ..books.call_records import ENDED, FLYING, STREAMING
from ..books.survey import outlook_for
from ..exceptions import QueueFull
from .guard import Guard
from .history import RecentHistory
from .stats import stats
from .upstreams import UPSTREAMS, Upstream

if TYPE_CHECKING:
    from ..manager import QueueManager
    from .settings import Settings

__all__ = ["Gateway", "Ticket"]

_STAGES = {FLYING: "sent", STREAMING: "stream", ENDED: "sent"}


class Ticket:
    """One open request over HTTP.

    Attributes:
        rank, tenant: how it is queued.
        note: its queued call, when there is one.
        tag: what an operator may cancel it by.
        task: who answers it.
    """

    __slots__ = ("note", "rank", "tag", "task", "tenant")

    def __init__(self, rank: int, tenant: str, tag: str, note: list[Any], task: asyncio.Task[Any] | None) -> None:
        self.rank = rank
        self.tenant = tenant
        self.tag = tag
        self.note = note
        self.task = task

    @property
    def where(self) -> str:
        """Where the request is: "queued", "sent" or "stream"."""
        return _STAGES.get(self.note[0].stage, "queued") if self.note else "queued"


class Gateway:
    """What a gateway is beside its routes; `app.state.gateway` of the app that `create_app` makes.

    Args:
        settings: what it was told.

    Attributes:
        guard: who may use it.
        upstreams: the providers by name.
        open: the requests that are being answered.
        counts, statuses: what there was of each kind, and of each HTTP status.
        draining: whether it is about to end, and takes nothing new.
        leftover: whether it was closed while requests by id were in flight, whose threads cannot be torn away.

    Used from one event loop; `status` from any thread.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.guard = Guard(settings.token, tuple(settings.hosts), pass_through=settings.pass_through_keys)
        self.upstreams = {name: Upstream(name, settings) for name in UPSTREAMS}
        self.open: set[Ticket] = set()
        self.counts: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.history = RecentHistory(self._refusals, self._depth)
        self.began = time.monotonic()
        self.draining = False
        self.leftover = False
        self._paused = False
        self._managers: dict[str, QueueManager] = {}
        self._idle: asyncio.Event | None = None

    def status(self) -> dict[str, Any]:
        """Everything about it as JSON; see `stats` for the fields."""
        return stats(self)

    @property
    def state(self) -> str:
        """ "running", "paused" or "draining"."""
        return "draining" if self.draining else "paused" if self._paused else "running"

    @property
    def ready(self) -> bool:
        """Whether it takes requests, and has somewhere to send them."""
        return not self.draining and any(upstream.configured for upstream in self.upstreams.values())

    # -- the clients --------------------------------------------------------------------------------------------------

    def clients(self) -> Iterator[tuple[Upstream, Any]]:
        """The clients that were made, with the upstream of each."""
        for upstream in self.upstreams.values():
            for client in (upstream.client, upstream.sync_client):
                if client is not None:
                    yield upstream, client

    def _refusals(self) -> int:
        return sum(client._runtime.ledger.refused for _, client in self.clients())

    def _depth(self) -> tuple[int, int]:
        ledgers = [client._runtime.ledger for _, client in self.clients()]
        return sum(ledger.waiting for ledger in ledgers), sum(ledger.flying for ledger in ledgers)

    @property
    def workers(self) -> list[Any]:
        """Whose queues the requests wait in: one of all clients, whose order is that of the queue managers, too."""
        workers = [client._runtime.worker for _, client in self.clients()]
        return list({id(worker): worker for worker in workers}.values())

    @property
    def queued(self) -> int:
        """Requests that wait, those of the queue managers included."""
        return sum(worker.queued for worker in self.workers)

    @property
    def budget_lost(self) -> bool:
        """Whether the store of a shared budget is out of reach."""
        return any(getattr(worker.budget, "lost", False) is True for worker in self.workers)

    # -- requests over HTTP -------------------------------------------------------------------------------------------

    def check_room(self, client: Any) -> None:
        """Whether one more may wait; counted here, and not by the worker's own cap, whose door is made for threads.

        Raises:
            QueueFull: as many wait as may, over HTTP and for queue managers together.
        """
        most = self.settings.max_queue
        if most is not None and client._runtime.worker.queued >= most:
            raise QueueFull(most)

    def enter(self, ticket: Ticket, client: Any) -> None:
        """Take in a request.

        Raises:
            QueueFull: as many wait as may.
        """
        self.check_room(client)
        self.counts["requests"] += 1
        self.history.now().requests += 1
        self.open.add(ticket)

    def leave(self, ticket: Ticket) -> None:
        """A request has ended; the last one of a drain wakes it."""
        self.open.discard(ticket)
        if not self.open and self._idle is not None:
            self._idle.set()

    def open_requests(self) -> Iterator[tuple[int, str, str]]:
        """Priority, tenant and whereabouts ("queued", "sent", "stream") of every open request."""
        for ticket in list(self.open):
            yield ticket.rank, ticket.tenant, ticket.where
        for manager in list(self._managers.values()):
            with manager._lock:
                records = list(manager._records.open.values())
            for record in records:
                yield record.rank, record.tenant, "queued" if record.status == "queued" else "sent"

    def room_in(self, client: Any) -> float | None:
        """Seconds until the next waiting call of a client goes, as far as its limits tell."""
        runtime = client._runtime
        waits = []
        for pool, book in list(runtime.ledger.pools.items()):
            if book.waiting:
                waits.append(outlook_for(runtime.ledger, pool, runtime.worker.survey(pool)).wait(1)[0])
        return min(waits, default=None)

    # -- operators ----------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Send nothing from now on, until `resume`; requests are taken in, and what was sent goes on."""
        self._paused = True
        self._hold()

    def resume(self) -> None:
        """End a pause: what waits is sent again."""
        self._paused = False
        for worker in self.workers:
            worker.resume()

    def _hold(self) -> None:
        """A client that is made during a pause is paused too."""
        if self._paused:
            for worker in self.workers:
                if not worker.paused:
                    worker.pause()

    def client_for(self, upstream: Upstream, options: dict[str, Any], key: str | None) -> Any:
        """The client for calls that are queued like this; see `Upstream.for_call`."""
        client = upstream.for_call(options, key)
        self._hold()
        return client

    def manager(self, name: str) -> QueueManager:
        """The queue manager of an upstream, made when it is first asked for.

        Raises:
            Refusal: the upstream has no key.
        """
        from ..manager import QueueManager

        found = self._managers.get(name)
        if found is None:
            client = self.upstreams[name].sync()
            found = self._managers[name] = QueueManager(client=client)
            found._sent_by.join_queue()  # type: ignore[union-attr]
            found.start()
            self._hold()
        return found

    @property
    def managers(self) -> dict[str, QueueManager]:
        """The queue managers that were made, by upstream."""
        return self._managers

    def cancel(self, tag: str) -> int:
        """Cancel the requests over HTTP that wait and carry this tag; answers how many."""
        tickets = {id(ticket.note[0]) for ticket in list(self.open) if ticket.tag == tag and ticket.note}
        return sum(
            int(worker.cancel_queued(lambda job: id(getattr(job, "call", None)) in tickets)) for worker in self.workers
        )

    # -- the end ------------------------------------------------------------------------------------------------------

    async def drain(self, seconds: float) -> bool:
        """Take nothing new, and wait for what is open, at most so long; True when all of it has ended."""
        self.draining = True
        if self._paused:
            self.resume()  # what waits could never end
        end = time.monotonic() + seconds
        if self.open:
            self._idle = asyncio.Event()
            try:
                await asyncio.wait_for(self._idle.wait(), max(0.0, end - time.monotonic()))
            except asyncio.TimeoutError:
                return False
        kept = self._kept()
        return not kept or not (await asyncio.to_thread(wait, kept, max(0.0, end - time.monotonic()))).not_done

    def _kept(self) -> list[Future[Any]]:
        """What the queue managers are at."""
        found = []
        for manager in list(self._managers.values()):
            with manager._lock:
                found += [record.future for record in manager._records.open.values() if record.future is not None]
        return found

    async def aclose(self) -> None:
        """Cancel what is open, and close the clients; safe a second time."""
        self.draining = True
        tasks = [ticket.task for ticket in list(self.open) if ticket.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for manager in self._managers.values():
            await asyncio.to_thread(manager.stop, False, True)
        self.leftover = self.leftover or not all(future.done() for future in self._kept())
        self._managers = {}
        for upstream in self.upstreams.values():
            await upstream.aclose()
