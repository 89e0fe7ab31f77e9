"""For your own tests: a clock that you turn, and a whole run in virtual time.

    run = simulate(RateLimits(rpm=60, burst=1), [call(at=0.0)] * 3)
    assert run.started_at == [0.0, 1.0, 2.0]

`simulate` drives the very same scheduler, limiter and retries that the worker thread drives, against a provider that
is as strict as a real one when you give it one. An hour of traffic takes a second or so, and is the same every time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.checks import amount, number
from ..core.feedback import Outcome
from ..core.limiter import Limiter
from ..core.limits import RateLimits
from ..core.queue_caps import QueueCaps
from ..core.request import QueuedRequest
from ..core.retry import RetryPolicy
from ..core.scheduler import Scheduler
from .clock import VirtualClock
from .simulation import Simulation
from .traffic import Call, Run, call

if TYPE_CHECKING:
    from ..simulator.enforcement import Enforcement

__all__ = ["Call", "Run", "VirtualClock", "call", "simulate"]

T = TypeVar("T")
KINDS = {"scheduler": Scheduler, "policy": RetryPolicy, "bounds": QueueCaps}
TELLS = ("everything", "headers", "wait", "seconds", "nothing")


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
    return Simulation(
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
