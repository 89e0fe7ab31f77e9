"""A provider that does whatever a server, or a box on the way to it, has ever been seen to do; on a thread of its own.

What happens to a call is drawn from the seed, the call's tag (the text of its last message) and how often it has come,
so a run can be repeated whatever the order in which the calls arrive. Every reply that says anything carries the tag
of its request twice, "[17] 17": whoever is given the wrong one sees it, and whoever is given a part of it too.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import threading
from collections import Counter, defaultdict
from contextlib import suppress

from reply import Reply, good
from trouble import TROUBLE, TROUBLE_OF_STREAMS

__all__ = ["Connection", "Hostile"]

WIDTH_PATIENCE = 15.0  # seconds that those who come together wait for one another
HELD = 0.3  # seconds until a call is answered that is to be in flight when the process forks
LINGER = struct.pack("ii", 1, 0)  # a close that is a reset


class Hostile:
    """A running provider: `with Hostile(seed=3) as provider: ...`; its URL is `provider.url`.

    Args:
        seed: of everything that it does.
        trouble: the share of requests that get into trouble, 0 to 1.
        latency: seconds, least and most, from a request to its answer.

    Attributes:
        trouble: may be changed at any time.
        limit: requests a minute, as good answers tell; may be changed.
        down: whether every request breaks now, but for those of the child of a fork.
        seen, done: how often each tag has come, and how often each thing was done to it.
        narrow: of the questions that are answered together, the groups that never were; how many came, at most.
        kinds: what was done, by name; "answered" and "refused" among them.
    """

    def __init__(self, *, seed: int = 1, trouble: float = 0.4, latency: tuple[float, float] = (0.001, 0.02)) -> None:
        self.seed = seed
        self.trouble = trouble
        self.latency = latency
        self.limit = 60_000
        self.down = False
        self.seen: Counter[str] = Counter()
        self.done: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.narrow: dict[str, int] = {}
        self._together: defaultdict[str, list[asyncio.Event]] = defaultdict(list)
        self.kinds: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._connections: set[Connection] = set()
        self._thread = threading.Thread(target=self._run, name="hostile-provider", daemon=True)
        self._ready = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens; the SDKs' base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> int:
        """Requests that have come."""
        return sum(self.seen.values())

    def __enter__(self) -> Hostile:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        server = loop.run_until_complete(
            loop.create_server(lambda: Connection(self, self._connections), "127.0.0.1", 0, backlog=1024)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        try:
            loop.run_forever()
        finally:
            server.close()
            for connection in list(self._connections):
                connection.transport.abort()
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def fate(self, tag: str, times: int, stream: bool) -> tuple[str, random.Random]:
        """What is to happen to this request, and the chance that decides the rest."""
        chance = random.Random(f"{self.seed}/{tag}/{times}")
        if self.down and not tag.startswith("probe-child"):
            return "reset_before", chance
        if tag.startswith("probe-width"):
            return "together", chance
        if tag.startswith("probe") or chance.random() >= self.trouble:
            return "answered", chance
        return chance.choice(tuple(TROUBLE if not stream else {**TROUBLE, **TROUBLE_OF_STREAMS})), chance

    async def together(self, reply: Reply) -> None:
        """Answer when all of its group have come: "probe-width/openai/96/17" is one of 96."""
        _, group, width, _ = reply.tag.split("/")
        here = self._together[group]
        here.append(came := asyncio.Event())
        if len(here) >= int(width):  # one may come twice, over a connection that the rain has spoiled
            for each in here:
                each.set()
        try:
            await asyncio.wait_for(came.wait(), WIDTH_PATIENCE)
        except asyncio.TimeoutError:
            self.narrow[group] = max(self.narrow.get(group, 0), len(here))
        await good(reply)


class Connection(asyncio.Protocol):
    """Reads requests, one after the other, and does to each what it deserves."""

    transport: asyncio.Transport

    def __init__(self, provider: Hostile, all_of_them: set[Connection]) -> None:
        self.provider = provider
        self._all = all_of_them
        self._read = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.discard(self)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, found, rest = self._read.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self._read = rest[length:]
        self._task = asyncio.ensure_future(self._answer(lines[0].split()[1], rest[:length]))

    async def _answer(self, path: str, raw: bytes) -> None:
        provider, body = self.provider, json.loads(raw)
        tag, stream = str(body["messages"][-1]["content"]), bool(body.get("stream"))
        provider.seen[tag] += 1
        kind, chance = provider.fate(tag, provider.seen[tag], stream)
        provider.kinds[kind] += 1
        provider.done[tag][kind] += 1
        await asyncio.sleep(HELD if tag == "probe-inherited" else chance.uniform(*provider.latency))
        reply = Reply(self, tag, "messages" if path.endswith("/messages") else "chat", stream, chance)
        try:
            await {**TROUBLE, **TROUBLE_OF_STREAMS, "answered": good, "together": provider.together}[kind](reply)
        except ConnectionError:
            self.reset()

    def reset(self) -> None:
        with suppress(OSError):
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        self.transport.abort()
