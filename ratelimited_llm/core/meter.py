"""One limit as we believe it stands at the provider: a mirror of its bucket, kept true by what answers tell.

A mirror is charged when a request leaves, and the provider charges when it arrives; a guard of a tenth of a second's
refill covers the difference (measured in simulation: 0.998 of the limit used and no refusal, where a margin in percent
costs that percent for ever). What an answer tells (`remaining`) is a snapshot of some moment near the departure of
that request: what left within a tenth of a second of it may or may not be counted in. So a reading is an interval
that the mirror is clamped into, never an assignment. A refusal, though, is a measurement: see `refused`.

Longer than most files here: bucket and window, readings and refusals all move the same few numbers, and every one of
them has to know what the others did last.
"""

from __future__ import annotations

import math

from .calibrator import Calibrator
from .drift import Drift
from .trail import Trail

__all__ = ["AMBIGUITY", "GUARD", "GUARD_AT_FIRST", "UNTOLD", "Meter", "unrounded"]

GUARD = 0.1  # seconds of refill kept back, once the provider has answered
GUARD_AT_FIRST = 0.3  # the same before the first answer: the first requests also wait for connections
GUARD_IN_DRIFT = 1.0  # the same while somebody else spends the same limit
AMBIGUITY = 0.1  # seconds around a snapshot in which the order of arrival is not known
ROUND_TRIP = 1.0  # seconds by which we may hear later of what was given back than the provider did it
UNTOLD = 1e12  # units per period of a limit that nobody has told: no limit, until a refusal measures one
TRIAL = 0.3  # seconds in which a first call of a window would be refused, if the window had not begun
MOST_AMBIGUITY = 1.0  # seconds, the same on the slowest network
CONTRADICTION = 2.0  # seconds in which two snapshots that exclude one another say that the network is a slow one
LIFTED_LATELY = 5.0  # seconds after a reading raised the level in which a refusal speaks against it
DISTRUST = 30.0  # seconds in which readings only lower the level after that
FULL_STOP = 1.0  # seconds until a limit that nobody has told is looked at again, should it ever seem used up
TRUSTED = 10  # windows, after which an untold limit is tried again: it may have grown
PLENTY = 0.5  # of a limit; with as much left no call is refused by it
MINUTE = 60.0
WINDOW_FROM = 1.5  # seconds: waits and resets are told in whole seconds by some, so less is no sign of a window


def unrounded(wait: float, least: float) -> float:
    """The wait behind one that was told in whole seconds, which are rounded up.

    A bucket that is not in debt has one call's worth after `least` seconds.
    """
    return max(wait - 1.0, min(wait, least)) if wait == int(wait) else wait


class Meter:
    """A bucket that refills continuously (or, once found to, all at once at the end of a window).

    Args:
        limit: units per period; requests or model tokens; None when nobody has told it.
        period: seconds.
        now: the moment from which it is full.
        capacity: units that a full bucket holds; None for a whole period's worth.
        guarded: whether to keep the guard band (not for limits that are our own, like a minimum interval).
        owes: whether it can be in debt, since calls are charged when they end as well.
    """

    __slots__ = (
        "_alike", "_bounded", "_calibrator", "_disproved", "_drift", "_ends", "_lift_from", "_lifted_at",
        "_lowered_at", "_trial_until", "ambiguity", "boundary", "capacity", "full_since", "guard", "guarded", "level",
        "limit", "margin", "owes", "period", "pledged", "rate", "returned", "span", "spent", "stamp",
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
        self.limit = UNTOLD if limit is None else limit
        self.period = period
        self.capacity = self.limit if capacity is None else min(self.limit, capacity)
        self.level = self.capacity
        self.stamp = now
        self.full_since = now
        self.pledged = 0.0  # what calls in flight will still be charged when they end
        self.guarded = guarded
        self.guard = GUARD_AT_FIRST if guarded else 0.0
        self.owes = owes
        self.margin = 0.0  # units kept back while somebody else spends the same limit: we hear of it late
        self.boundary = math.inf  # when the window ends, if the provider counts in windows
        self.span = period  # seconds of such a window
        self.spent = Trail()
        self.returned = Trail()
        self._drift: Drift | None = None
        self._calibrator: Calibrator | None = None
        self._ends, self._alike = -math.inf, -math.inf  # the end of a window that resets speak of, and since when
        self.ambiguity = AMBIGUITY
        self._lowered_at = -math.inf  # when a reading last lowered the level
        self._lifted_at = -math.inf  # when a reading last raised it ...
        self._lift_from = -math.inf  # ... and when a call has to have left, for its reading to do so
        self._trial_until = -math.inf  # until then one call tries whether a new window has really begun
        self._bounded = 0  # windows for which the last refusal's measure of what an untold one holds is believed
        self._disproved = False  # whether it was taken for a window and was none
        self.rate = 0.0  # units per second that come back to us
        self._retune()

    @property
    def told(self) -> bool:
        """Whether anybody has told the limit."""
        return self.limit != UNTOLD

    @property
    def windowed(self) -> bool:
        """Whether it is refilled all at once, at `boundary`."""
        return self.boundary < math.inf

    @property
    def searching(self) -> bool:
        """Whether refusals say that there is a limit, and nobody knows yet which."""
        return not self.told and self._calibrator is not None and not self.rate and not self.windowed

    @property
    def before_refusal(self) -> float:
        """Units that went through before the first refusal of an untold limit."""
        return self._calibrator.capacity if self._calibrator is not None else math.inf

    @property
    def whole(self) -> bool:
        """Whether a full bucket holds a whole period's worth, so that `remaining` is what is left in the bucket."""
        return self.capacity >= self.limit

    def _retune(self) -> None:
        measured = self._calibrator.rate if self._calibrator is not None else math.inf
        if not self.told:
            self.rate = measured if measured < math.inf else 0.0
            return
        nominal = self.limit / self.period
        taken = self._drift.rate if self._drift is not None else 0.0
        self.rate = min(max(nominal - taken, 0.02 * nominal), measured)
        company = self.guarded and self._drift is not None and self._drift.company
        self.margin = GUARD_IN_DRIFT * self.rate if company else 0.0

    # -- spending ---------------------------------------------------------------------------------------------------

    def refill(self, now: float) -> None:
        """Bring the level up to `now`."""
        if now <= self.stamp:
            return
        if self._calibrator is not None and self._calibrator.press_on(now):
            self._retune()
        if self.boundary < math.inf:
            if now >= self.boundary:
                self._turn(now)
        else:
            self.level += self.rate * (now - self.stamp)
            if self.level >= self.capacity:
                self.level = self.capacity
                self.full_since = now
        self.stamp = now

    def _turn(self, now: float) -> None:
        """A new window has begun; what left just before its start may have arrived in it."""
        start = self.boundary + math.floor((now - self.boundary) / self.span) * self.span
        self.boundary = start + self.span
        if not self.told and self.level <= 0.0:
            self._bounded -= 1
            if self._bounded < 0:
                self.capacity += max(1.0, 0.02 * self.capacity)  # all of it was let in: there may be more
        self.level = self.capacity - self.spent.since(start - 2 * GUARD)
        self.full_since = start
        # When it ends is known from answers that took their time, so it may not have yet: one call goes first.
        self._trial_until = start + TRIAL

    def wait(self, amount: float, pledge: float, now: float, held_back: float = 0.0) -> float:
        """Seconds until `amount` (and its pledge) fits beside what is held back; math.inf: when a call ends."""
        if now > self.stamp:
            self.refill(now)
        target = amount + pledge + held_back + self.margin
        target = (target if target < self.capacity else self.capacity) + self.pledged
        missing = target - self.level
        if missing <= 0.0 or missing <= 1e-9 * max(1.0, target):
            return max(0.0, self._trial_until - now) if self.level < self.capacity else 0.0
        if self.boundary < math.inf:
            return max(self.boundary - now, 1e-3)
        if target > self.capacity + 1e-9 and self.pledged > 0:
            return math.inf  # the pledges of those in flight leave no room, however long we wait
        return missing / self.rate if self.rate else FULL_STOP

    def take(self, amount: float, pledge: float, now: float) -> None:
        """Charge what leaves now, and remember what it will be charged when it ends."""
        self.pledged += pledge
        if now > self.stamp:
            self.refill(now)
        if not amount:
            return
        # The guard: a full bucket begins to refill when a call arrives, not when it leaves. So the mirror is never
        # fuller than the provider's can be if this one takes as long as the guard to arrive, and the next no time.
        full = self.capacity - self.guard * self.rate
        self.level = (full if self.level > full and self.boundary == math.inf else self.level) - amount
        self.spent.add(amount, now)

    def correct(self, amount: float, now: float) -> None:
        """Charge (or, below zero, give back) what a call turned out to cost; debt is allowed, as providers do."""
        self.refill(now)
        if amount:
            self.level = min(self.level - amount, self.capacity)
            if amount > 0:
                self.spent.add(amount, now)
            else:
                self.returned.add(-amount, now)

    def undo(self, amount: float, sent_at: float, now: float) -> None:
        """A call was refused: it was never charged."""
        self.refill(now)
        if amount:
            self.level = min(self.level + amount, self.capacity)
            self.spent.strike(amount, sent_at)

    def relimit(self, limit: float) -> None:
        """Follow a limit that changed; a learned capacity keeps its length in seconds."""
        if limit == self.limit:
            return
        share = limit / self.limit
        self.capacity = limit if self.whole else min(limit, max(1.0, self.capacity * share))
        self.level = min(self.level, self.capacity)
        self.limit = limit
        self._calibrator = self._drift = None  # they measured against the old limit
        self._retune()

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
        self.guard = GUARD if self.guarded else 0.0
        moved = self._moved_since(sent_at, own)
        if moved is None:
            return
        if reset is not None:
            self._suspect_window(remaining, reset, sent_at, now)
        if self._calibrator is not None and remaining >= PLENTY * self.limit:
            self._calibrator.reassure(sent_at)
        fewest, most, back, back_later = moved
        slack = (resolution if resolution > 1.0 else 1.0) + 0.01 * own
        at_most = self._there_is(remaining, sent_at, now) + back - fewest + slack
        capacity, windowed = self.capacity, self.boundary < math.inf
        whole = capacity >= self.limit
        if whole and not windowed:
            self._watch_others(remaining, sent_at)
        if at_most < self.level and (not windowed or now - sent_at < self.span - (self.boundary - now)):
            self.level, self._lowered_at = at_most, now
        if not whole:
            return  # the bucket is smaller than the limit that `remaining` is the rest of: it may still be empty
        # Nobody says whether the snapshot is of the arrival or of the answer, so nothing is counted as come back; and
        # what was given back just after it may have been in it, since the provider knew before we did.
        at_least = remaining - (most if most > 0.0 else 0.0) - slack + back_later
        if at_least > capacity:
            at_least = capacity
        if windowed and at_least > self.level + 0.5 * capacity:
            self.boundary = now + self.span  # it was refilled: a new window has begun, no later than now
        if at_least > self.level and sent_at >= self._lift_from:
            if now - self._lowered_at < CONTRADICTION:
                self.ambiguity = min(1.5 * self.ambiguity, MOST_AMBIGUITY)
            self.level, self._lifted_at = at_least, now

    def _moved_since(self, sent_at: float, own: float) -> tuple[float, float, float, float] | None:
        """What has left since a snapshot was taken, at least and at most, and what has come back, perhaps and surely.

        None when the snapshot is too old to say.
        """
        before = sent_at - self.ambiguity
        left = self.spent.around(before, sent_at + self.ambiguity)
        back = self.returned.around(before, sent_at + ROUND_TRIP)
        if left is None or back is None:
            return None
        perhaps, surely = left[0] - own, left[1]
        return (surely, perhaps, *back) if surely < perhaps else (perhaps, surely, *back)

    def _there_is(self, remaining: float, sent_at: float, now: float) -> float:
        """What a snapshot says there is now, but for what has left or was given back since."""
        left = remaining if remaining < self.capacity else self.capacity
        return left + self.rate * (now - sent_at) if now > sent_at and self.boundary == math.inf else left

    def ceiling(self, remaining: float, sent_at: float, own: float, now: float, resolution: float) -> float | None:
        """The most that a snapshot leaves possible, for arguments as of `read`; None when it is too old to say."""
        self.guard = GUARD if self.guarded else 0.0
        moved = self._moved_since(sent_at, own)
        if moved is None:
            return None
        fewest, _, back, _ = moved
        return self._there_is(remaining, sent_at, now) + back - fewest + max(1.0, resolution) + 0.01 * own

    def _watch_others(self, remaining: float, sent_at: float) -> None:
        """Learn from two snapshots of a bucket how much somebody else spends of the same limit."""
        if self._drift is None:
            self._drift = Drift()
        if self._drift.learn(self, remaining, sent_at):
            self._retune()

    def _suspect_window(self, remaining: float, reset: float, sent_at: float, now: float) -> None:
        """Resets that all speak of one moment, which no bucket would be full at, are the end of a window."""
        if not 0.0 <= reset <= self.period + WINDOW_FROM:
            return
        if reset <= WINDOW_FROM:  # as most resets of a bucket are
            self._alike = math.inf
            return
        full = (self.limit - remaining) * self.period / self.limit
        if self.period > MINUTE or abs(reset - full) <= WINDOW_FROM + 0.05 * full:
            self._alike = math.inf
            if abs(sent_at + reset - self.boundary) > 2.0 * WINDOW_FROM + 0.05 * full:
                self.boundary = math.inf  # that is a bucket
            return
        ends = sent_at + reset
        if abs(ends - self.boundary) < WINDOW_FROM:
            self.boundary = max(self.boundary, ends + GUARD)  # seen from departure, the latest is the truest
            return
        tolerance = WINDOW_FROM if reset == int(reset) else 0.3 * WINDOW_FROM
        if abs(ends - self._ends) > tolerance or self._alike == math.inf:
            self._ends, self._alike = ends, sent_at
        elif sent_at - self._alike > 2.0 * tolerance and ends > now:
            self.turn_windowed(max(ends, self._ends))

    def turn_windowed(self, boundary: float, span: float | None = None) -> None:
        """From now on it is refilled all at once, the first time at `boundary`."""
        # A learned capacity is what a window of its own length holds.
        if span is None:
            span = self.period
            if not self.whole:
                span = max(1.0, float(round(self.capacity * self.period / self.limit)))
                self.capacity = self.limit * span / self.period
        self.span = span
        self.boundary = boundary + (GUARD if self.guarded else 0.0)

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
            return
        if self.told:
            self._learn_capacity(amount, sent_at)
            if self._is_window(amount, told):
                assert told is not None
                self.turn_windowed(now + told)
                self.level = 0.0
                return
        if self._calibrator is None:
            self._calibrator = Calibrator()
        window = self._calibrator.refused(amount, sent_at, told, self.spent, now, fresh=fresh, guess=not self.told)
        if window is not None and not self.told:
            self.capacity = max(window.admitted, amount)
            self.turn_windowed(window.ends, window.span)
            self.level = 0.0
        elif not self.told and self._calibrator.rate < math.inf:
            self.capacity = max(self._calibrator.capacity, amount)
        if self.told and self._calibrator.rate >= 0.95 * self.limit / self.period:
            self._calibrator.rate = math.inf  # no news: that is about what the limit gives
        self._retune()

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

    def _learn_capacity(self, amount: float, sent_at: float) -> None:
        """Refused soon after the bucket was full: it holds no more than was let in since."""
        since_full = sent_at - self.full_since
        if self.owes or since_full > 0.25 * self.period:
            return  # in debt it would look as small as the debt is deep
        admitted = self.spent.before(sent_at) - self.spent.before(self.full_since) - self.rate * since_full
        if 0.0 < admitted < 0.9 * self.capacity:
            # Not below what the jitter of arrivals explains, or one unlucky refusal after the other would shrink it; at
            # the pace of the whole limit, since this stays when a pace that was measured too low is raised again.
            self.capacity = min(self.capacity, max(admitted, amount, 3.0 * GUARD * self.limit / self.period))

    def _is_window(self, amount: float, told: float | None) -> bool:
        """A bucket would have had enough much sooner than the provider says."""
        if told is None or self.owes or self._disproved or self.period > MINUTE:
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
            self._ends = self._alike = -math.inf
        else:
            self.boundary = ends
            if not self.told:
                self.capacity, self._bounded = max(amount, admitted), TRUSTED
