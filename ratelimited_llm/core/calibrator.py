"""A limit that nobody tells (or that is less than was told): measured from what goes through between two refusals.

A bucket is empty at each refusal: less than one call's amount is left. So between two of them, T seconds apart, with
A admitted, its refill is between (A - 1) / T and (A + 1) / T calls. Sending at the upper bound never leaves refill
unused, and is refused again only after about as long as has been measured already: each refusal doubles what is
known, and they grow rare by themselves. The least of the bounds over all recent refusals counts, so that a limit that
shrinks is followed at once; one that grows is found by pressing on when no refusal comes for long.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from .claims import unrounded
from .running_sum import RunningSum

__all__ = ["Calibrator", "Window"]

JITTER = 0.02  # seconds by which the time between two arrivals may differ from that between the departures
LEAST_SPAN = 0.2  # seconds between two refusals that measure anything
MEMORY = 120.0  # seconds of refusals that count; older ones may speak of another limit
PATIENCE = 2.0  # how many times the measured span passes without a refusal before the pace is raised ...
MOST_PATIENCE = 60.0  # ... and the seconds that this is at most: each raise is a refusal if nothing has changed
PRESS = 1.25  # factor of one such raise
REASSURED = 4.0  # seconds without a refusal that are enough when the provider says that there is plenty ...
REASSURED_PRESS = 2.0  # ... and the factor of a raise then: what refused was something else
REASSURED_STEP = 0.5  # seconds from one such raise to the next: a refusal would be back by then
STEP = 12.0  # calls between one raise and the next: more than a quarter of them is what a refusal can hide behind
DROUGHT = 3  # refusals in a row, with a pause before each, that are more than an empty bucket
SUDDEN = 4.0  # how many times more came at once than a bucket could have gathered: then it is a window


@dataclass(frozen=True, slots=True)
class Window:
    """The provider counts in windows: what one admits, when this one ends, and how long each is."""

    admitted: float
    ends: float
    span: float


@dataclass(slots=True)
class _Mark:
    """One refusal: when it left, what it asked for, and for how long we surely had to wait."""

    sent_at: float
    amount: float
    told: float


class Calibrator:
    """Keeps the rate that refusals measure.

    Attributes:
        rate: units per second, as an upper bound; math.inf while two refusals have not measured it.
        capacity: units that went through before the first refusal.
    """

    __slots__ = ("_marks", "_press_at", "_pressed", "_reassured", "capacity", "rate")

    def __init__(self) -> None:
        self.rate = math.inf
        self.capacity = 0.0
        self._marks: deque[_Mark] = deque(maxlen=64)
        self._press_at = math.inf
        self._reassured = False  # the provider has said since the last refusal that there is plenty
        self._pressed: tuple[float, float] | None = None  # since when the pace is being raised, and from which rate

    def refused(
        self,
        amount: float,
        sent_at: float,
        told: float | None,
        spent: RunningSum,
        now: float,
        *,
        fresh: bool,
        guess: bool,
    ) -> Window | None:
        """Learn from a refusal; answer the window if it betrays one.

        Args:
            amount: what the refused call asked for.
            sent_at: when it left.
            told: seconds to wait, when it said so.
            spent: everything that was let in.
            now: the present moment.
            fresh: whether it left after the one before was known.
            guess: whether the limit is not known, so that a wait bounds the rate.
        """
        mark = _Mark(sent_at, amount, 0.0 if told is None else max(0.0, unrounded(told)))
        self._remember(mark, spent, fresh)
        self._check_pressing(mark, spent)
        if len(self._marks) == 1 and self.rate == math.inf:
            self.capacity = max(self.capacity, spent.until(sent_at) - spent.until(sent_at - MEMORY / 2.0))
        window = self._window(spent, told, now) if guess else None
        if fresh:
            self._forget_drought(spent)
        self._measure(spent, guess)
        span = mark.sent_at - self._marks[0].sent_at
        self._press_at = now + min(PATIENCE * span + 2.0, MOST_PATIENCE)
        self._reassured = False
        return window

    def _remember(self, mark: _Mark, spent: RunningSum, fresh: bool) -> None:
        """Keep the newest refusal (in the place of the last one, when it is the same news), and no old ones."""
        left, marks = mark.sent_at, self._marks
        if fresh or not marks:
            marks.append(mark)
        else:
            mark.sent_at = max(left, marks[-1].sent_at)
            marks[-1] = mark
        while len(marks) > 1 and (left - marks[0].sent_at > MEMORY or not spent.remembers(marks[0].sent_at)):
            marks.popleft()

    def reassure(self, sent_at: float) -> None:
        """An answer says that at least half of the limit is left: the refusals were of another kind, and may be over.

        Args:
            sent_at: when its request left; one that left before the last refusal says nothing.
        """
        if not self._reassured and self._marks and sent_at > self._marks[-1].sent_at:
            self._reassured = True
            self._press_at = min(self._press_at, self._marks[-1].sent_at + REASSURED)

    def _forget_drought(self, spent: RunningSum) -> None:
        """A provider that refused everybody for a while says nothing about its rate by that."""
        marks = self._marks
        if len(marks) <= DROUGHT or spent.until(marks[-1].sent_at) <= spent.until(marks[-2].sent_at):
            return
        if spent.until(marks[-2].sent_at) <= spent.until(marks[-1 - DROUGHT].sent_at):
            while len(marks) > 2:
                marks.popleft()

    def _check_pressing(self, mark: _Mark, spent: RunningSum) -> None:
        """More went through at a raised pace than the old rate explains: what was measured before is history."""
        if self._pressed is None:
            return
        since, before = self._pressed
        self._pressed = None
        admitted, took = spent.until(mark.sent_at) - spent.until(since), mark.sent_at - since
        if took > 0.0 and admitted - 2.0 * mark.amount > 1.1 * before * took:
            self._marks.clear()
            self._marks.append(mark)
            # It had gathered while the pace was too low, up to a full bucket; what is beyond that is the new limit.
            self.rate = max(1.05 * before, (admitted - self.capacity) / took)

    def _measure(self, spent: RunningSum, guess: bool) -> None:
        last = self._marks[-1]
        total, lost = spent.until(last.sent_at), 0.0
        rate = math.inf
        for mark in reversed(self._marks):
            if mark is not last:
                lost += self._overflowed(mark, spent)
            span, admitted = last.sent_at - mark.sent_at - lost - JITTER, total - spent.until(mark.sent_at)
            if span >= LEAST_SPAN and admitted > 0.0:
                rate = min(rate, (admitted + last.amount) / span)
        if rate == math.inf:
            return
        if guess:
            # A bucket that holds next to nothing needs amount / rate seconds, and was said to need so many.
            rate = min([rate, *(mark.amount / mark.told for mark in self._marks if mark.told > 0.0)])
        self.rate = rate

    def _overflowed(self, mark: _Mark, spent: RunningSum) -> float:
        """Seconds of the pause after a refusal in which a small bucket was full, so that its refill was lost."""
        if self.rate == math.inf:
            return 0.0
        return max(0.0, spent.next_after(mark.sent_at) - mark.sent_at - 0.75 * self.capacity / self.rate)

    def _window(self, spent: RunningSum, told: float | None, now: float) -> Window | None:
        """After a dry spell much more came at once than a bucket could have gathered."""
        marks = list(self._marks)
        last = marks[-1]
        for index in range(len(marks) - 2, -1, -1):
            admitted = spent.until(last.sent_at) - spent.until(marks[index].sent_at)
            if admitted > 0.0:
                break
        else:
            return None
        first = index
        while first > 0 and spent.until(marks[index].sent_at) == spent.until(marks[first - 1].sent_at):
            first -= 1
        dry = max(marks[index].sent_at - marks[first].sent_at, marks[index].told)
        took = last.sent_at - spent.next_after(marks[index].sent_at)
        if admitted * dry <= SUDDEN * last.amount * (dry + took):
            return None
        began = spent.next_after(marks[index].sent_at)
        span = now + told - began if told is not None and told > 1.0 else began - marks[first].sent_at
        return Window(admitted, began + span, span)

    def press_on(self, now: float) -> bool:
        """Raise the rate when no refusal has come for long; True when it was raised."""
        if now < self._press_at or self.rate == math.inf:
            return False
        if self._pressed is None:
            self._pressed = (now, self.rate)
        self.rate *= REASSURED_PRESS if self._reassured else PRESS
        step = max(1.0, STEP * self._marks[-1].amount / self.rate)
        self._press_at = now + (REASSURED_STEP if self._reassured else step)
        return True
