"""One limit as we believe it stands at the provider: a bucket of our own, kept true by what answers tell.

It is charged when a request leaves, and the provider's when it arrives: the guard covers the difference. What an answer
tells (`remaining`) is a snapshot of some moment near the departure of its request, and what left within `ambiguity`
seconds of that may or may not be in it. So a reading is an interval, and never an assignment:

    at most    min(remaining, capacity) + rate * age - left at least + given back at most  + slack
    at least   remaining                             - left at most  + given back at least - slack

The level is clamped into it. A refusal is a measurement, see `refused`: it tells a capacity (it came soon after the
bucket was full), a window (the wait is longer than any bucket's), or a rate (what went through between two of them).
"""

from __future__ import annotations

import math

from .bucket import GUARD, TRUSTED_WINDOWS, UNTOLD, Bucket
from .calibrator import Calibrator
from .claims import WINDOW_FROM, unrounded
from .drift import Drift
from .limits import MINUTE

__all__ = ["AMBIGUITY", "Meter"]

GUARD_IN_DRIFT = 1.0  # seconds of refill kept back while somebody else spends: 0.3 to 5 refusals in ten minutes
AMBIGUITY = 0.1  # seconds around a snapshot in which the order of arrival is not known
MOST_AMBIGUITY = 1.0  # seconds, the same on the slowest network
ROUND_TRIP = 1.0  # seconds by which we may hear later of what was given back than the provider did it
CONTRADICTION = 2.0  # seconds in which two snapshots that exclude one another say that the network is a slow one
LIFTED_LATELY = 5.0  # seconds after a reading raised the level in which a refusal speaks against it
DISTRUST = 30.0  # seconds in which readings only lower the level after that
PLENTY = 0.5  # of a limit; with as much left no call is refused by it
LEAST_RATE = 0.02  # of the whole limit: however much others spend, so much of it is ours


class Meter(Bucket):
    """A bucket that learns from readings and refusals.

    Args:
        limit, period, now, capacity, guarded: as for `Bucket`.
        owes: whether it can be in debt, since calls are charged when they end as well.
    """

    __slots__ = (
        "_alike_since", "_ambiguity", "_calibrator", "_disproved", "_drift", "_lift_from", "_lifted_at", "_lowered_at",
        "_owes", "_window_end",
    )  # fmt: skip

    def __init__(
        self,
        limit: float | None,
        period: float,
        now: float,
        *,
        capacity: float | None = None,
        guarded: bool = True,
        owes: bool = False,
    ) -> None:
        super().__init__(limit, period, now, capacity=capacity, guarded=guarded)
        self._owes = owes
        self._ambiguity = AMBIGUITY
        self._drift: Drift | None = None
        self._calibrator: Calibrator | None = None
        self._window_end = -math.inf  # the end of a window that resets speak of ...
        self._alike_since = -math.inf  # ... and since when all of them do; math.inf once one spoke of a bucket
        self._lowered_at = -math.inf  # when a reading last lowered the level
        self._lifted_at = -math.inf  # when a reading last raised it ...
        self._lift_from = -math.inf  # ... and when a call has to have left, for its reading to do so
        self._disproved = False  # whether it was taken for a window and was none

    @property
    def searching(self) -> bool:
        """Whether refusals say that there is a limit, and nobody knows yet which."""
        return not self.told and self._calibrator is not None and not self.rate and not self.windowed

    @property
    def before_refusal(self) -> float:
        """Units that went through before the first refusal of an untold limit; math.inf when none was refused."""
        return self._calibrator.capacity if self._calibrator is not None else math.inf

    def refill(self, now: float) -> None:
        """Bring the level up to `now`; a rate that was measured long ago is tried a little higher."""
        if self._calibrator is not None and now > self.stamp and self._calibrator.press_on(now):
            self._retune()
        super().refill(now)

    def relimit(self, limit: float) -> None:
        """Follow a limit that changed; what was learned about the old one is forgotten."""
        if limit != self.limit:
            super().relimit(limit)
            self._calibrator = self._drift = None
            self._retune()

    def _retune(self) -> None:
        """Set the rate: what the limit gives without what others take, and no more than refusals have measured."""
        measured = self._calibrator.rate if self._calibrator is not None else math.inf
        if not self.told:
            self.rate = measured if measured < math.inf else 0.0
            return
        nominal, drift = self.nominal, self._drift
        taken = drift.rate if drift is not None else 0.0
        self.rate = min(max(nominal - taken, LEAST_RATE * nominal), measured)
        company = self.guarded and drift is not None and drift.company
        self.margin = GUARD_IN_DRIFT * self.rate if company else 0.0

    # -- what answers tell ------------------------------------------------------------------------------------------

    def read(
        self,
        remaining: float,
        sent_at: float,
        own: float,
        now: float,
        resolution: float = 1.0,
        reset: float | None = None,
    ) -> None:
        """Clamp the level into what a snapshot leaves possible.

        Args:
            remaining: units left, as the answer said.
            sent_at: when the request left that the answer belongs to.
            own: what that request was charged when it left (the snapshot has it counted in).
            now: the present moment.
            resolution: to how much `remaining` is rounded.
            reset: seconds until the limit is full again, as the answer said.
        """
        if now > self.stamp:
            self.refill(now)
        self._first_answer_is_there()
        moved = self._moved_since(sent_at, own)
        if moved is None:
            return
        if reset is not None:
            self._suspect_window(remaining, reset, sent_at, now)
        if self._calibrator is not None and remaining >= PLENTY * self.limit:
            self._calibrator.reassure(sent_at)
        fewest, most, back, back_later = moved
        slack = _slack(resolution, own)
        at_most = self._there_is(remaining, sent_at, now) + back - fewest + slack
        whole = self.whole
        if whole and self.boundary == math.inf:
            self._watch_others(remaining, sent_at)
        self._clamp_down(at_most, sent_at, now)
        if whole:  # a smaller bucket than the limit that `remaining` is the rest of may be empty all the same
            # Nobody says whether the snapshot is of the arrival or of the answer, so nothing is counted as come back;
            # and what was given back just after it may have been in it, since the provider knew before we did.
            at_least = remaining - (most if most > 0.0 else 0.0) - slack + back_later
            self._clamp_up(min(at_least, self.capacity), sent_at, now)

    def ceiling(self, remaining: float, sent_at: float, own: float, now: float, resolution: float) -> float | None:
        """The most that a snapshot leaves possible, for arguments as of `read`; None when it is too old to say."""
        self._first_answer_is_there()
        moved = self._moved_since(sent_at, own)
        if moved is None:
            return None
        fewest, _, back, _ = moved
        return self._there_is(remaining, sent_at, now) + back - fewest + _slack(resolution, own)

    def _first_answer_is_there(self) -> None:
        self.guard = GUARD if self.guarded else 0.0

    def _moved_since(self, sent_at: float, own: float) -> tuple[float, float, float, float] | None:
        """Units since a snapshot: left at least, left at most, given back at most, given back at least.

        None when the snapshot is too old to say.
        """
        before = sent_at - self._ambiguity
        left = self.spent.around(before, sent_at + self._ambiguity)
        back = self.returned.around(before, sent_at + ROUND_TRIP)
        if left is None or back is None:
            return None
        perhaps, surely = left[0] - own, left[1]
        return (surely, perhaps, *back) if surely < perhaps else (perhaps, surely, *back)

    def _there_is(self, remaining: float, sent_at: float, now: float) -> float:
        """What a snapshot says there is now, but for what has left or was given back since."""
        left = remaining if remaining < self.capacity else self.capacity
        return left + self.rate * (now - sent_at) if now > sent_at and self.boundary == math.inf else left

    def _clamp_down(self, at_most: float, sent_at: float, now: float) -> None:
        """There is no more than that; a snapshot of an earlier window says nothing about this one."""
        of_this_window = self.boundary == math.inf or now - sent_at < self.span - (self.boundary - now)
        if at_most < self.level and of_this_window:
            self.level, self._lowered_at = at_most, now

    def _clamp_up(self, at_least: float, sent_at: float, now: float) -> None:
        """There is no less than that, unless a refusal has said otherwise since."""
        if self.windowed and at_least > self.level + 0.5 * self.capacity:
            self.boundary = now + self.span  # it was refilled: a new window has begun, no later than now
        if at_least > self.level and sent_at >= self._lift_from:
            if now - self._lowered_at < CONTRADICTION:
                self._ambiguity = min(1.5 * self._ambiguity, MOST_AMBIGUITY)
            self.level, self._lifted_at = at_least, now

    def _watch_others(self, remaining: float, sent_at: float) -> None:
        """Learn from two snapshots of a bucket how much somebody else spends of the same limit."""
        if self._drift is None:
            self._drift = Drift()
        if self._drift.learn(self, remaining, sent_at, self._ambiguity):
            self._retune()

    def _suspect_window(self, remaining: float, reset: float, sent_at: float, now: float) -> None:
        """Resets that all speak of one moment, which no bucket would be full at, are the end of a window."""
        if not 0.0 <= reset <= self.period + WINDOW_FROM:
            return
        full = (self.limit - remaining) * self.period / self.limit  # seconds after which a bucket would be full
        ends = sent_at + reset
        if reset <= WINDOW_FROM:  # as most resets of a bucket are
            self._alike_since = math.inf
        elif self.period > MINUTE or abs(reset - full) <= WINDOW_FROM + 0.05 * full:
            self._alike_since = math.inf
            if abs(ends - self.boundary) > 2.0 * WINDOW_FROM + 0.05 * full:
                self.boundary = math.inf  # that is a bucket
        elif abs(ends - self.boundary) < WINDOW_FROM:
            self.boundary = max(self.boundary, ends + GUARD)  # seen from departure, the latest is the truest
        else:
            self._count_alike(ends, sent_at, now, WINDOW_FROM if reset == int(reset) else 0.3 * WINDOW_FROM)

    def _count_alike(self, ends: float, sent_at: float, now: float, tolerance: float) -> None:
        """One more reset that no bucket would tell: a window, once they have agreed on its end for long enough."""
        if abs(ends - self._window_end) > tolerance or self._alike_since == math.inf:
            self._window_end, self._alike_since = ends, sent_at
        elif sent_at - self._alike_since > 2.0 * tolerance and ends > now:
            self.turn_windowed(max(ends, self._window_end))

    # -- what refusals tell -----------------------------------------------------------------------------------------

    def refused(self, amount: float, sent_at: float, told: float | None, now: float, *, fresh: bool) -> None:
        """Learn from a refusal, after `undo`: the call did not fit, although by all that we knew it did.

        Args:
            amount: what the call asked of this limit.
            sent_at: when it left.
            told: seconds to wait, as far as they were told.
            now: the present moment.
            fresh: whether it left after the refusal before was known; otherwise it is the same news again.
        """
        self.refill(now)
        # A refusal is newer than the snapshots of calls that left before it, and truer than those that had raised the
        # level: a provider that always says there is a lot left would be asked in vain for ever.
        doubtful = now - self._lifted_at < LIFTED_LATELY
        self._lift_from = max(self._lift_from, now + DISTRUST if doubtful and fresh else now)
        if self.windowed:
            self._mistaken_window(amount, sent_at, told, now)
        elif self.told:
            self._mistaken_limit(amount, sent_at, told, now, fresh)
        else:
            self._measure(amount, sent_at, told, now, fresh)

    def resynchronise(self, amount: float, wait: float, sent_at: float, now: float) -> None:
        """Set the level that a refusal measured: after `wait` seconds the call fits, and nothing more.

        What left after it may have been let in since; those that were not will be undone when their refusals arrive.
        """
        if self.searching:
            self.level = self.capacity = UNTOLD  # nothing is known: the ramp has the say
        elif not self.windowed:
            short = unrounded(wait, amount / self.rate)
            # A rate that was only measured is a little too high. With one call's worth in hand it takes as long to be
            # refused again as it took to measure it; without, the very next call would be.
            reserve = 0.0 if self.told else amount
            self.level = min(amount - self.rate * short - self.spent.since(sent_at), self.capacity) - reserve
            self.stamp = now

    def _mistaken_limit(self, amount: float, sent_at: float, told: float | None, now: float, fresh: bool) -> None:
        """A limit that was told has refused: its bucket is smaller, it is a window, or it gives less than was told."""
        self._learn_capacity(amount, sent_at)
        if told is not None and self._is_window(amount, told):
            self.turn_windowed(now + told)
            self.level = 0.0
            return
        self._calibrator = calibrator = self._calibrator or Calibrator()
        calibrator.refused(amount, sent_at, told, self.spent, now, fresh=fresh, guess=False)
        if calibrator.rate >= 0.95 * self.nominal:
            calibrator.rate = math.inf  # no news: that is about what the limit gives
        self._retune()

    def _measure(self, amount: float, sent_at: float, told: float | None, now: float, fresh: bool) -> None:
        """A limit that nobody told has refused: what went through says what it holds, and what it gives."""
        self._calibrator = calibrator = self._calibrator or Calibrator()
        window = calibrator.refused(amount, sent_at, told, self.spent, now, fresh=fresh, guess=True)
        if window is not None:
            self.capacity = max(window.admitted, amount)
            self.turn_windowed(window.ends, window.span)
            self.level = 0.0
        elif calibrator.rate < math.inf:
            self.capacity = max(calibrator.capacity, amount)
        self._retune()

    def _learn_capacity(self, amount: float, sent_at: float) -> None:
        """Refused soon after the bucket was full: it holds no more than was let in since."""
        since_full = sent_at - self.full_since
        if self._owes or since_full > 0.25 * self.period:
            return  # in debt it would look as small as the debt is deep
        admitted = self.spent.before(sent_at) - self.spent.before(self.full_since) - self.rate * since_full
        if 0.0 < admitted < 0.9 * self.capacity:
            # Not below what the jitter of arrivals explains, or one unlucky refusal after the other would shrink it; at
            # the pace of the whole limit, since this stays when a pace that was measured too low is raised again.
            self.capacity = min(self.capacity, max(admitted, amount, 3.0 * GUARD * self.nominal))

    def _is_window(self, amount: float, told: float) -> bool:
        """Whether a bucket would have had enough much sooner than the provider says."""
        if self._owes or self._disproved or self.period > MINUTE:
            return False
        return 2.0 * amount / self.rate + WINDOW_FROM < told <= self.period + WINDOW_FROM

    def _mistaken_window(self, amount: float, sent_at: float, told: float | None, now: float) -> None:
        """Refused although the window had room: it begins later or holds less than we thought, or is none."""
        self.level = min(self.level, 0.0)
        admitted = self.spent.until(sent_at) - self.spent.before(self.full_since - 2 * GUARD)
        early = admitted <= max(amount, 0.1 * self.capacity)  # hardly one was let in, so the one before still counts
        ends = self.boundary if told is None or (told <= WINDOW_FROM and not early) else now + told + GUARD
        if early:
            if not self.told and ends < self.boundary:
                self.span = max(1.0, self.span + ends - self.full_since)
            self.boundary = ends
        elif told is not None and told <= WINDOW_FROM and self.boundary - now > 2.0 * WINDOW_FROM:
            self.boundary = math.inf  # in the middle of a window nothing comes back that soon
            self._disproved = True
            self._window_end = self._alike_since = -math.inf
        else:
            self.boundary = ends
            if not self.told:
                self.capacity, self._trusted = max(amount, admitted), TRUSTED_WINDOWS


def _slack(resolution: float, own: float) -> float:
    """Units by which a snapshot may be off: its rounding, and a hundredth of the call that we only estimated."""
    return (resolution if resolution > 1.0 else 1.0) + 0.01 * own
