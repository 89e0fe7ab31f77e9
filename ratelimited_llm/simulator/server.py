"""The provider on loopback: the service behind a port, in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeVar

from .connection import Connection
from .enforcement import Admission, Allowance, Window
from .faults import Fault, Faults, Rule
from .profile import Profile
from .profiles import PROFILES, profile_for
from .records import Counters, Record
from .replies import Script
from .service import Service

__all__ = ["Simulator"]

T = TypeVar("T")

HOST = "127.0.0.1"
# A burst of two thousand callers connects at once; the system's own default (128) would drop some of them.
BACKLOG = 4096
FILES = 16_384
DUMMY_KEY = "sk-simulated"


class Simulator:
    """A local provider with real limits: start it, point an SDK at `base_url`, and read what it saw.

    Every argument but `provider` is optional; without limits everything is answered. All reading attributes may be
    used from any thread, while it runs and afterwards.

    Args:
        provider: whose headers, errors and rules: "openai", "azure", "groq", "anthropic", "mistral", "generic".
        rpm, tpm, rpd, tpd, itpm, otpm, max_concurrency: the limits of each model; None is no such limit.
        period: seconds of a "minute" (a "day" is 1,440 of them); shorter ones make tests fast.
        smooth: enforce minute limits over this many seconds; None is the provider's default.
        smooth_dimensions: which limits that applies to; None is all of the minute.
        window: "bucket", "fixed" or "sliding"; None is the provider's.
        admission: "reserve", "settle" or "actual"; None is the provider's.
        charge_refused: refused calls use up request budget too.
        per_model: each model has limits of its own; otherwise all share one.
        latency: seconds until an answer (or a stream) begins, or (lowest, highest) to draw from.
        per_token_latency: seconds that each token of the answer takes on top.
        output_tokens: tokens of an answer, or (lowest, highest) to draw from; the caller's maximum still holds.
        answer: "text" for pseudo-text, "echo" for the last user message.
        headers, retry_after, body_hint: whether limits are told in headers, waits in Retry-After, and numbers in the
            text of a refusal; None is the provider's habit, all False one that tells its limit only by refusing.
        faults: `Faults`, a list of `Fault`, or a callable of (number of the call, body).
        seed: of everything that is drawn.
        port: 0 for a free one.
        api_key: the only key accepted; None accepts any, or none.
        log_size: requests remembered in `log`.

    Raises:
        ValueError: for a limit that is not above 0, and for unknown names, with the known ones.
    """

    def __init__(
        self,
        provider: str = "openai",
        *,
        rpm: float | None = None,
        tpm: float | None = None,
        rpd: float | None = None,
        tpd: float | None = None,
        itpm: float | None = None,
        otpm: float | None = None,
        max_concurrency: int | None = None,
        period: float = 60.0,
        smooth: float | None = None,
        smooth_dimensions: tuple[str, ...] | None = None,
        window: Window | None = None,
        admission: Admission | None = None,
        charge_refused: bool = False,
        per_model: bool = True,
        latency: float | tuple[float, float] = 0.0,
        per_token_latency: float = 0.0,
        output_tokens: int | tuple[int, int] | None = None,
        answer: str = "text",
        headers: bool | None = None,
        retry_after: bool | None = None,
        body_hint: bool | None = None,
        faults: Faults | Iterable[Fault] | Fault | Rule | None = None,
        seed: int = 0,
        port: int = 0,
        api_key: str | None = None,
        log_size: int = 10_000,
    ) -> None:
        for name, value in (("seed", seed), ("port", port), ("log_size", log_size)):
            if isinstance(value, bool) or not isinstance(value, int) or (name != "seed" and not 0 <= value < 1 << 40):
                raise ValueError(f"{name}={value!r}: give a whole number")
        if api_key is not None and not isinstance(api_key, str):
            raise TypeError(f"api_key={api_key!r}: give a string, or None to accept every key")
        profile = _told(profile_for(provider), headers, retry_after, body_hint)
        if smooth is None and profile.smooth is not None and smooth_dimensions is None:
            smooth, smooth_dimensions = profile.smooth * period, ("rpm",)
        rules: dict[str, Any] = {} if smooth_dimensions is None else {"smooth_dimensions": smooth_dimensions}
        if not isinstance(faults, Faults):
            faults = Faults(() if faults is None else faults, seed=seed)
        allowance = Allowance(
            rpm=rpm, tpm=tpm, rpd=rpd, tpd=tpd, itpm=itpm, otpm=otpm, max_concurrency=max_concurrency,
            window=profile.window if window is None else window, period=period, smooth=smooth,
            admission=profile.admission if admission is None else admission, charge_refused=charge_refused, **rules,
        )  # fmt: skip
        self._service = Service(
            profile, allowance, Script(answer, output_tokens, seed), faults,
            latency=_latency("latency", latency, seed),
            per_token=_latency("per_token_latency", per_token_latency, seed)(0), api_key=api_key, per_model=per_model,
            log_size=log_size,
        )  # fmt: skip
        self.provider = provider
        self.port = port
        self._wanted_port = port
        self._key = api_key or DUMMY_KEY
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> Simulator:
        """Listen, in a daemon thread; returns when calls can be made.

        Raises:
            OSError: when the port is taken.
            RuntimeError: when it runs already.
        """
        if self._thread is not None:
            raise RuntimeError(f"the simulator runs already, at {self.url}")
        started: Future[int] = Future()
        thread = threading.Thread(
            target=self._run, args=(started,), name=f"ratelimited-llm-simulator-{self.provider}", daemon=True
        )
        thread.start()
        try:
            self.port = started.result()
        except BaseException:
            thread.join()
            raise
        self._thread = thread
        return self

    def stop(self) -> None:
        """Drop every connection, free the port and end the thread; what was counted stays readable.

        Blocks until it is done, some milliseconds. A second time, or never started, is no harm.
        """
        thread, loop, stop = self._thread, self._loop, self._stop
        if thread is None or loop is None or stop is None:
            return
        self._thread = None
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        self.port = self._wanted_port

    def __enter__(self) -> Simulator:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The bare host, "http://127.0.0.1:PORT"."""
        return f"http://{HOST}:{self.port}"

    @property
    def base_url(self) -> str:
        """What the provider's own SDK takes as `base_url` (Azure: as `azure_endpoint`)."""
        return self.url + self._service.profile.path

    @property
    def counters(self) -> Counters:
        """The sums so far, frozen."""
        return self._service.tally.snapshot()

    @property
    def log(self) -> list[Record]:
        """The requests so far, oldest first; the last `log_size` of them."""
        return list(self._service.log)

    def share_used(self, model: str | None = None) -> float:
        """What was admitted, as a share of what could have been from the first request to the last, 0.0 to 1.0.

        Args:
            model: whose limits; None is the model that used most of its own.
        """
        if model is not None and not isinstance(model, str):
            raise TypeError(f"model={model!r}: give the name of one, or None")
        return self._in_loop(lambda: self._service.share_used(model, self._service.last))

    def change(self, **limits: float | None) -> None:
        """Set other limits from now on (`rpm=30`); None removes one. Blocks until they are in force.

        Raises:
            ValueError: for a number that is not above 0.
            TypeError: for a name that is no limit.
        """
        self._in_loop(lambda: self._service.change(self._now(), limits))

    def env(self) -> dict[str, str]:
        """Variables that send the openai, groq and anthropic SDKs of a child process here, with a dummy key."""
        version = os.environ.get("OPENAI_API_VERSION", "2024-10-21")
        around = ",".join(filter(None, (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), HOST)))
        return {
            "OPENAI_BASE_URL": self.url + PROFILES["openai"].path,
            "OPENAI_API_KEY": self._key,
            # Keys of both kinds are ambiguous to `import openai; openai.chat...`, which raises unless told.
            "OPENAI_API_TYPE": "azure" if self.provider == "azure" else "openai",
            "OPENAI_API_VERSION": version,
            "AZURE_OPENAI_ENDPOINT": self.url,
            "AZURE_OPENAI_API_KEY": self._key,
            "GROQ_BASE_URL": self.url,
            "GROQ_API_KEY": self._key,
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_API_KEY": self._key,
            # A proxy that is set for the internet must not be asked for loopback.
            "NO_PROXY": around,
            "no_proxy": around,
        }

    def __repr__(self) -> str:
        counted = self.counters
        where = self.url if self._thread is not None else "stopped"
        return (
            f"<Simulator {self.provider} {self._service.allowance} {where}: {counted.requests} requests, "
            f"{counted.answered} answered, {counted.refused} refused, {counted.failed} failed, "
            f"{counted.in_flight} in flight>"
        )

    def _now(self) -> float:
        return self._loop.time() if self._loop is not None else 0.0

    def _in_loop(self, action: Callable[[], T]) -> T:
        """Run something in the server's thread, since the limits belong to it; here when it does not run."""
        loop = self._loop
        if self._thread is None or loop is None or threading.current_thread() is self._thread:
            return action()

        async def run() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), loop).result()

    def _run(self, started: Future[int]) -> None:
        loop = asyncio.new_event_loop()
        self._loop = loop
        try:
            loop.run_until_complete(self._serve(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)
        finally:
            loop.close()

    async def _serve(self, started: Future[int]) -> None:
        loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        _raise_file_limit()
        connections: set[Connection] = set()
        server = await loop.create_server(
            lambda: Connection(self._service, connections), HOST, self._wanted_port, backlog=BACKLOG
        )
        started.set_result(server.sockets[0].getsockname()[1])
        await self._stop.wait()
        # Whoever was accepted just now has a task, which needs a server that is not closed yet.
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
        server.close()
        for connection in list(connections):
            connection.abort()
        while connections:  # each leaves the set in connection_lost, one turn of the loop later
            await asyncio.sleep(0)
        await server.wait_closed()


def _told(profile: Profile, headers: bool | None, retry_after: bool | None, body_hint: bool | None) -> Profile:
    return replace(
        profile,
        tell_limits=profile.tell_limits if headers is None else headers,
        tell_wait=profile.tell_wait if retry_after is None else retry_after,
        tell_in_body=profile.tell_in_body if body_hint is None else body_hint,
    )


def _latency(name: str, latency: float | tuple[float, float], seed: int) -> Callable[[int], float]:
    """The latency of the call of a number, always the same for a seed."""
    span = latency if isinstance(latency, tuple) else (latency, latency)
    numbers = all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in span)
    if len(span) != 2 or not numbers or not 0 <= span[0] <= span[1] < sys.float_info.max:
        raise ValueError(f"{name}={latency!r}: give seconds of at least 0, or (least, most)")
    low, high = span
    if low == high:
        return lambda number: low
    # Multiples of the golden ratio: spread evenly however few there are, and much cheaper than a generator each.
    return lambda number: low + (high - low) * ((number + 7919 * seed) * 0.6180339887498949 % 1.0)


def _raise_file_limit() -> None:
    """Allow as many open sockets as the system lets us: two thousand calls are four thousand in one process."""
    try:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ImportError, OSError, ValueError):  # not on Windows; elsewhere it stays what it was
        pass
