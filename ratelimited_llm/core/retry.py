"""Whether a call goes again after an attempt that brought no answer, and how long it rests before."""

from __future__ import annotations

from dataclasses import dataclass

from .feedback import Kind, Outcome

__all__ = ["RetryBudget", "RetryPolicy"]


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """What the SDKs promise about retries, with limits told apart from failures.

    Attributes:
        max_retries: attempts after the first one for failures (overload, timeouts, broken connections); the SDKs' 2.
        initial: seconds that the first back-off may last; it doubles with each attempt (the SDKs' 0.5).
        longest: seconds that no back-off exceeds (the SDKs' 8).
        max_refusals: how often one call may be refused by a limit before its error is handed on. A refusal is no
            attempt, and the pool waits between two, so this ends only calls to a provider that never lets any go.
    """

    max_retries: int = 2
    initial: float = 0.5
    longest: float = 8.0
    max_refusals: int = 16

    def rest(self, outcome: Outcome, attempts: int, refusals: int, jitter: float) -> float | None:
        """Decide about the next attempt.

        Args:
            outcome: how the last one ended.
            attempts: how many have failed, the last one included; refusals do not count.
            refusals: how often a limit refused the call, the last time included.
            jitter: a random number in [0, 1).

        Returns:
            Seconds to rest before it may go again (0.0 after a refusal: there the whole pool waits), or None to give
            up. The back-off has full jitter (Brooker, "Exponential Backoff And Jitter", 2015); a wait that the
            provider asked for is a lower bound, up to two minutes.
        """
        if outcome.kind is Kind.LIMITED:
            return 0.0 if refusals <= self.max_refusals else None
        if outcome.kind not in (Kind.OVERLOADED, Kind.DROPPED) or attempts > self.max_retries:
            return None
        backoff = min(self.initial * 2.0 ** min(attempts - 1, 30), self.longest) * jitter
        return backoff + min(outcome.retry_after or 0.0, 120.0)


class RetryBudget:
    """Lets retries be a tenth of the calls at most, beyond a reserve, so that an outage makes no storm.

    Every provider has a budget of its own: what one that is down uses up, calls to another do not miss.

    Args:
        reserve: retries that are always there after a quiet time.
        share: retries that each first attempt earns (a tenth: 1.1 attempts a call, as Finagle and gRPC have it).
    """

    __slots__ = ("_left", "reserve", "share")

    def __init__(self, reserve: float = 100.0, share: float = 0.1) -> None:
        self.reserve = reserve
        self.share = share
        self._left: dict[object, float] = {}  # of the providers that have less than the reserve

    def earn(self, pool: object) -> None:
        """A call to a pool of limits was sent for the first time."""
        if self._left:
            provider = _provider_of(pool)
            if provider in self._left:
                left = self._left[provider] + self.share
                if left < self.reserve:
                    self._left[provider] = left
                else:
                    del self._left[provider]

    def spend(self, pool: object) -> bool:
        """Take one retry of a call to this pool; False when none is left."""
        provider = _provider_of(pool)
        left = self._left.get(provider, self.reserve)
        if left < 1.0:
            return False
        self._left[provider] = left - 1.0
        return True


def _provider_of(pool: object) -> object:
    """Whose trouble the pools have in common; the pool itself where nothing tells."""
    return getattr(pool, "host", None) or pool
