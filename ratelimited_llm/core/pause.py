"""What holds back a whole pool after trouble: a pause, then one call that goes first, then the others.

A refused call would not have been alone: everything that leaves before its wait is over is refused as well. So nobody
goes before that, and when it is over one call finds out. The others follow once it is answered, or once its refusal
would have been back.
"""

from __future__ import annotations

import math

from .bucket import GUARD

__all__ = ["Pause"]

OUTAGE = 3  # failures in a row, sent one after the other, that are taken for an outage
FIRST_PAUSE = 0.5  # seconds; doubles (the SDKs' own first back-off)
LONGEST_PAUSE = 8.0  # seconds (the SDKs' own longest back-off): full rate again soon after the provider is back
LONGEST_REFUSAL = 5.0  # seconds that one is believed to take: where the machine slept meanwhile it says hours
LEAST_SURVIVAL = 0.05  # seconds after which a probe may be taken for admitted, however fast refusals come


class Pause:
    """Whether a pool may send at all.

    Attributes:
        until: the moment before which nobody goes.
        refusals: calls refused so far.
    """

    __slots__ = ("_in_a_row", "_last", "_last_trouble", "_ordered", "_probe", "_refusal_time", "_troubles", "refusals",
                 "until")  # fmt: skip

    def __init__(self) -> None:
        self.until = -math.inf
        self.refusals = 0
        self._ordered = False  # a pause was ordered, and nobody has gone since
        self._probe: tuple[int, float] | None = None  # the one call that goes first after a pause, and when it left
        self._refusal_time = GUARD  # seconds that a refusal takes to come back
        self._last = -math.inf  # when the newest refusal came back
        self._in_a_row = 0  # pauses, each of which ended in another refusal
        self._last_trouble = -math.inf
        self._troubles = 0  # failures in a row, those that left together counted once

    def wait(self, now: float) -> float:
        """Seconds until a call may go; 0.0 when nothing holds the pool."""
        if now < self.until:
            return self.until - now
        if self._probe is None:
            return 0.0
        wait = self._probe[1] + max(LEAST_SURVIVAL, 3.0 * self._refusal_time) - now
        if wait <= 0.0:
            self._survived()
        return max(0.0, wait)

    def sent(self, key: int, now: float) -> None:
        """One went; the first after a pause is the probe."""
        if self._ordered:
            self._probe, self._ordered = (key, now), False

    def answered(self, key: int) -> None:
        """A call was let in by the provider: the probe has survived, and no outage goes on."""
        self._troubles = 0
        if self._probe is not None and self._probe[0] == key:
            self._survived()

    def ended(self, key: int) -> None:
        """One ended in some other way; when it was the probe, the next one follows at once."""
        if self._probe is not None and self._probe[0] == key:
            self._probe = None

    def _survived(self) -> None:
        self._probe, self._in_a_row = None, 0

    def refused(self, sent_at: float, now: float) -> bool:
        """One was refused; True when it left after the refusal before was known, so that it is news."""
        fresh = sent_at >= self._last
        self.refusals += 1
        self._in_a_row += fresh
        self._last = now
        self._refusal_time += 0.3 * (min(now - sent_at, LONGEST_REFUSAL) - self._refusal_time)
        return fresh

    def backoff(self) -> float:
        """Seconds to wait whatever was told: a wait is believed once, and each refusal after it doubles our own."""
        return 0.0 if self._in_a_row < 2 else min(FIRST_PAUSE * 2.0 ** min(self._in_a_row - 2, 9), LONGEST_PAUSE)

    def order(self, until: float) -> None:
        """Nobody goes before that moment, and then one goes first."""
        self.until = max(self.until, until)
        self._ordered, self._probe = True, None

    def troubled(self, sent_at: float, now: float, in_flight: int) -> None:
        """A call failed. In an outage one goes first, so that the others do not spend their attempts on it."""
        if sent_at <= self._last_trouble:
            return
        self._last_trouble = now
        self._troubles += 1
        if self._troubles >= OUTAGE and in_flight > 1:
            self.order(now + min(FIRST_PAUSE * 2.0 ** min(self._troubles - OUTAGE, 9), LONGEST_PAUSE))
