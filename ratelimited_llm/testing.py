"""For your own tests: a clock that you turn, and a whole run in virtual time.

    run = simulate(RateLimits(rpm=60, burst=1), [call(at=0.0)] * 3)
    assert run.started_at == [0.0, 1.0, 2.0]

`simulate` drives the very same scheduler, limiter and retries that the worker thread drives, against a provider that
is as strict as a real one when you give it one. An hour of traffic takes a second or so, and is the same every time.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from .core.checks import amount, number, text, whole
from .core.dispatcher import Dispatcher, Impossible, Send, Wait
from .core.feedback import ANSWERED, Feedback, Kind, Outcome, Reading
from .core.limiter import Limiter
from .core.limits import RateLimits
from .core.queue_caps import QueueCaps
from .core.request import Cost, Priority, QueuedRequest, State, Usage
from .core.retry import RetryBudget, RetryPolicy
from .core.scheduler import Scheduler
from .stores.memory import MemoryBudget

if TYPE_CHECKING:
    from .simulator.enforcement import Enforcement

__all__ = ["Call", "Run", "VirtualClock", "call", "simulate"]


T = TypeVar("T")


class VirtualClock:
    """A clock that stands still until it is told to go; call it for the time, in seconds."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = _finite("now", now)

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Go forwards; a clock never goes back."""
        if _finite("seconds", seconds) < 0:
            raise ValueError(f"seconds must be 0 or more, not {seconds!r}: a clock cannot go back")
        self.now += seconds


def _finite(name: str, value: object) -> float:
    found = number(name, value, "a number of seconds")
    if not math.isfinite(found):
        raise ValueError(f"{name} must be a finite number of seconds, not {value!r}")
    return found


MOST_TOKENS = 10**12
KINDS = {"scheduler": Scheduler, "policy": RetryPolicy, "bounds": QueueCaps}
TELLS = ("everything", "headers", "wait", "seconds", "nothing")


@dataclass(frozen=True)
class Call:
    """One call of a simulated run.

    Attributes:
        at: when it is submitted, seconds.
        prompt, output: the model tokens that it really uses.
        max_tokens: what it asks for at most; None for just `output`.
        priority, tenant, pool: as in the client.
        deadline: seconds from submit after which it is not worth sending; None for never.
        latency: seconds from arrival to answer; None for the run's own.
        cancel_at: when its caller cancels it; None for never.
    """

    at: float = 0.0
    prompt: int = 100
    output: int = 50
    max_tokens: int | None = None
    priority: int | str = Priority.NORMAL
    tenant: str = ""
    pool: str = "model"
    deadline: float | None = None
    latency: float | None = None
    cancel_at: float | None = None

    def __post_init__(self) -> None:
        for name in ("at", "deadline", "latency", "cancel_at"):
            value = getattr(self, name)
            if (value is not None or name == "at") and not 0.0 <= number(name, value, "a number of seconds") < math.inf:
                raise ValueError(f"{name} must be a finite number of seconds from 0 up, not {value!r}")
        for name in ("prompt", "output", "max_tokens"):
            value = getattr(self, name)
            if (value is not None or name != "max_tokens") and whole(name, value, 0) > MOST_TOKENS:
                raise ValueError(f"{name} must be at most {MOST_TOKENS:,} tokens")
        Priority.parse(self.priority)
        for name in ("tenant", "pool"):
            text(name, getattr(self, name))


def call(at: float = 0.0, **fields: Any) -> Call:
    """Make a `Call`, with the defaults of an ordinary chat request."""
    return Call(at=at, **fields)


@dataclass
class Run:
    """What happened, call by call in the order they were given; times in seconds, NaN for what never happened."""

    started_at: list[float]
    finished_at: list[float]
    states: list[State]
    attempts: list[int]
    refused: int = 0
    sends: list[tuple[float, int]] = field(default_factory=list)
    ended_at: float = 0.0

    @property
    def answered(self) -> int:
        """How many calls were answered."""
        return sum(state is State.DONE for state in self.states)

    @property
    def lost(self) -> int:
        """Calls that were neither answered, nor cancelled, nor past their deadline; 0 unless something is wrong."""
        return sum(state in (State.NEW, State.QUEUED, State.SENDING, State.STREAMING) for state in self.states)


@dataclass(frozen=True)
class _Pool:
    """A pool of a simulated run, which makes its limiter as it was told to."""

    name: str
    make: Callable[[], Limiter] = field(compare=False)

    def limiter(self) -> Limiter:
        return self.make()


def simulate(
    limits: RateLimits,
    calls: Iterable[Call],
    *,
    provider: Enforcement | Callable[[str], Enforcement] | None = None,
    charge: str | None = "reserve",
    learn: bool = True,
    ramp: bool = True,
    tells: str = "everything",
    latency: float | tuple[float, float] = 1.0,
    network: tuple[float, float] = (0.02, 0.02),
    until: float = math.inf,
    seed: int = 0,
    events: Sequence[tuple[float, Callable[[Enforcement, float], None]]] = (),
    scheduler: Scheduler | None = None,
    policy: RetryPolicy | None = None,
    bounds: QueueCaps | None = None,
    faults: Callable[[float, QueuedRequest, float], Outcome | None] | None = None,
    **limiter_options: Any,
) -> Run:
    """Run calls through the real scheduler, limiter and retries in virtual time.

    Args:
        limits: what the client is told about its limits.
        calls: the traffic.
        provider: who admits and refuses, or a function from a pool's name to one; None admits everything.
        charge: the charging rule that the client believes in; None to find out.
        learn: whether answers may teach limits.
        ramp: whether a first burst starts on a ramp.
        tells: what the provider says: "everything", "headers" (no wait on refusals), "wait" (only a wait on refusals),
            "seconds" (the same in whole seconds), or "nothing".
        latency: seconds from arrival to answer, or (least, most).
        network: each way lasts the first number of seconds and an exponentially distributed share of the second.
        until: when to stop, seconds; what is then unanswered stays so.
        seed: of latencies and jitter.
        events: (moment, action) pairs; each action gets the provider and the time (to change its limits, say).
        scheduler, policy, bounds: other than the defaults.
        faults: asked at each arrival (time, call, random number) for an outcome other than the provider's.
        **limiter_options: further arguments of `Limiter`.

    Returns:
        Everything that happened.

    Raises:
        TypeError, ValueError: for an argument that makes no sense, before anything happens.
    """
    of = {"limits": limits, "seed": seed, "scheduler": scheduler, "policy": policy, "bounds": bounds}
    for name, kind in (("limits", RateLimits), ("seed", int), *(KINDS.items())):
        if (not isinstance(of[name], kind) or isinstance(of[name], bool)) and (
            of[name] is not None or name in ("limits", "seed")
        ):
            raise TypeError(f"{name} must be of {kind.__name__}, not {of[name]!r}")
    if tells not in TELLS:
        raise ValueError(f"tells must be one of {', '.join(map(repr, TELLS))}, not {tells!r}")
    if charge not in (None, "reserve", "settle", "actual"):
        raise ValueError(f'charge must be "reserve", "settle", "actual" or None to find out, not {charge!r}')
    number("until", until, "a number of seconds")
    if provider is not None and not callable(provider) and not hasattr(provider, "admit"):
        raise TypeError(f"provider must be an Enforcement, a function that makes one of a name, or None: {provider!r}")
    if faults is not None and not callable(faults):
        raise TypeError(f"faults must be a function that answers an Outcome or None, not {faults!r}")
    least, most = _pair("latency", latency if isinstance(latency, tuple) else (latency, latency))
    for name, value in limiter_options.items():
        if value is not None:
            amount(name, value, "a number of seconds")
    traffic, changes = _several("calls", calls, Call), _several("events", events, tuple)

    def make() -> Limiter:
        return Limiter(limits, charge=charge, learn=learn, ramp=ramp, **limiter_options)

    make()  # so that options that are none of the limiter's are heard of here
    return _Simulation(
        traffic, make, provider, tells, (least, most), _pair("network", network), seed, scheduler,
        policy or RetryPolicy(), bounds, faults,
    ).run(until, changes)  # fmt: skip


def _pair(name: str, pair: object) -> tuple[float, float]:
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError(f"{name} must be two numbers of seconds, not {pair!r}")
    for value in pair:
        if not 0.0 <= number(name, value, "a number of seconds") < math.inf:
            raise ValueError(f"{name} must be made of finite seconds from 0 up, not {value!r}")
    return pair


def _several(name: str, values: object, kind: type[T]) -> list[T]:
    found: list[Any] = list(values) if isinstance(values, Iterable) else [None]
    if not all(isinstance(each, kind) for each in found):
        raise TypeError(f"{name} must be several of {kind.__name__}, not {values!r:.60}")
    return found


class _Simulation:
    """The driver in virtual time: a heap of things that will happen, and the machine that they happen to."""

    def __init__(
        self,
        calls: list[Call],
        make: Callable[[], Limiter],
        provider: Any,
        tells: str,
        latency: tuple[float, float],
        network: tuple[float, float],
        seed: int,
        scheduler: Scheduler | None,
        policy: RetryPolicy,
        bounds: QueueCaps | None,
        faults: Callable[[float, QueuedRequest, float], Outcome | None] | None,
    ) -> None:
        self.calls = calls
        self.make = make
        self.provider = provider
        self.providers: dict[str, Any] = {}
        self.tells = tells
        self.latency = latency
        self.network = network
        self.random = random.Random(seed)
        self.machine = Dispatcher(
            Scheduler() if scheduler is None else scheduler, MemoryBudget(), retries=RetryBudget()
        )
        self.policy = policy
        self.bounds = bounds or QueueCaps()
        self.faults = faults
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self.order = itertools.count()
        self.requests: list[QueuedRequest | None] = [None] * len(calls)
        nan = [math.nan] * len(calls)
        self.result = Run(list(nan), list(nan), [State.FAILED] * len(calls), [0] * len(calls))

    def at(self, moment: float, action: Callable[[float], None]) -> None:
        heapq.heappush(self.events, (moment, next(self.order), action))

    def run(self, until: float, events: Sequence[tuple[float, Callable[[Any, float], None]]]) -> Run:
        for moment, change in events:
            self.at(moment, lambda now, change=change: change(self._provider("model"), now))  # type: ignore[misc]
        for index, each in enumerate(self.calls):
            self.at(each.at, lambda now, index=index: self._submit(index, now))  # type: ignore[misc]
        while self.events and self.events[0][0] <= until:
            self.advance()
        return self.close()

    def advance(self) -> None:
        """Have everything happen that happens next."""
        now = self.events[0][0]
        while self.events and self.events[0][0] <= now:
            heapq.heappop(self.events)[2](now)
        self._step(now)

    def close(self) -> Run:
        """Fill in the final states and attempts, and answer the run."""
        for index, request in enumerate(self.requests):
            if request is not None:
                self.result.states[index] = request.state
                self.result.attempts[index] = request.attempts + request.refusals + (request.state is State.DONE)
        return self.result

    def _submit(self, index: int, now: float) -> None:
        given = self.calls[index]
        if self.bounds.enter(index, given.tenant) is not None:
            return
        most = given.output if given.max_tokens is None else given.max_tokens
        expected = given.prompt + given.output
        cost = Cost(given.prompt + most, expected, given.prompt, given.output)
        request = QueuedRequest(
            index,
            _Pool(given.pool, self.make),
            cost,
            priority=Priority.parse(given.priority),
            tenant=given.tenant,
            submitted_at=now,
            expires_at=None if given.deadline is None else now + given.deadline,
        )
        self.requests[index] = request
        self.machine.submit(request)
        if given.cancel_at is not None:
            self.at(max(now, given.cancel_at), lambda moment: self._cancel(request, moment))

    def _cancel(self, request: QueuedRequest, now: float) -> None:
        if self.machine.cancel(request):
            self.bounds.leave(request.sequence, request.tenant)

    def _step(self, now: float) -> None:
        for request in self.machine.expired(now):
            self.bounds.leave(request.sequence, request.tenant)
        while True:
            found = self.machine.next(now)
            if isinstance(found, Wait):
                if found.until < math.inf:
                    self.at(found.until, lambda now: None)
                return
            if isinstance(found, Impossible):
                self.bounds.leave(found.request.sequence, found.request.tenant)
                continue
            assert isinstance(found, Send)
            self._send(found.request, now)

    def _send(self, request: QueuedRequest, now: float) -> None:
        index = request.sequence
        if math.isnan(self.result.started_at[index]):
            self.result.started_at[index] = now
            self.bounds.leave(request.sequence, request.tenant)
        self.result.sends.append((now, index))
        self.at(now + self._trip(), lambda moment: self._arrive(request, moment))

    def _trip(self) -> float:
        fixed, share = self.network
        return fixed + (self.random.expovariate(1.0 / share) if share else 0.0)

    def _provider(self, pool: str) -> Any:
        if pool not in self.providers:
            made = self.provider
            self.providers[pool] = made(pool) if callable(made) else made
        return self.providers[pool]

    def _arrive(self, request: QueuedRequest, now: float) -> None:
        given = self.calls[request.sequence]
        fault = self.faults(now, request, self.random.random()) if self.faults is not None else None
        if fault is not None:
            back = now + self._trip()
            self.at(back, lambda moment: self._failed(request, Feedback(fault), moment))
            return
        provider = self._provider(given.pool)
        ticket = None
        readings: tuple[Reading, ...] = ()
        if provider is not None:
            reserved = request.cost.reserved
            verdict = provider.admit(now, reserved=reserved, input_tokens=given.prompt)
            if not verdict.admitted:
                self.result.refused += 1
                refusal = Feedback(self._refusal(verdict), self._readings(provider, now))
                self.at(now + self._trip(), lambda moment: self._failed(request, refusal, moment))
                return
            ticket = verdict.ticket
            readings = self._readings(provider, now)
        lasts = given.latency if given.latency is not None else self.random.uniform(*self.latency)
        self.at(now + lasts, lambda moment: self._answer(request, provider, ticket, readings, moment))

    def _answer(
        self, request: QueuedRequest, provider: Any, ticket: Any, readings: tuple[Reading, ...], now: float
    ) -> None:
        given = self.calls[request.sequence]
        if ticket is not None:
            provider.settle(ticket, now, input_tokens=given.prompt, output_tokens=given.output)
        usage = Usage(given.prompt, given.output)
        answer = Feedback(ANSWERED, readings, usage)
        self.at(now + self._trip(), lambda moment: self._answered(request, answer, moment))

    def _answered(self, request: QueuedRequest, answer: Feedback, now: float) -> None:
        self.machine.answered(request, answer, now)
        self.machine.finished(request, answer.usage, now)
        self.result.finished_at[request.sequence] = self.result.ended_at = now

    def _failed(self, request: QueuedRequest, feedback: Feedback, now: float) -> None:
        if not self.machine.failed(request, feedback, now, self.policy, self.random.random()):
            self.result.finished_at[request.sequence] = self.result.ended_at = now

    def _refusal(self, verdict: Any) -> Outcome:
        kind = Kind.TOO_LARGE if verdict.too_large else Kind.LIMITED
        wait = verdict.retry_after
        if self.tells in ("nothing", "headers"):
            return Outcome(kind, status=429)
        if self.tells in ("seconds", "wait"):
            whole = None if wait is None else float(math.ceil(wait)) if self.tells == "seconds" else wait
            return Outcome(kind, retry_after=whole, status=429)
        return Outcome(kind, wait, verdict.dimension, verdict.limit, verdict.used, verdict.requested, 429)

    def _readings(self, provider: Any, now: float) -> tuple[Reading, ...]:
        if self.tells not in ("everything", "headers"):
            return ()
        return tuple(Reading(name, *numbers) for name, numbers in provider.reading(now).items())
