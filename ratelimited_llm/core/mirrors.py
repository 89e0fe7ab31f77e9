"""How a provider charges tokens, and which of three ways an untold one follows.

    rule      when it leaves     kept back until it ends    when it ends, with its usage
    reserve   reserved           nothing                    nothing: never given back            OpenAI, Azure
    settle    reserved           nothing                    usage - reserved                     Groq
    actual    input              expected output            usage - input                        output as produced

A dialect that knows its provider names the rule. Otherwise all three mirrors are kept side by side, each snapshot of
the `remaining` header is compared with what each predicted, and the truest one decides; the careful one starts.
"""

from __future__ import annotations

from .feedback import Reading
from .meter import Meter
from .request import Cost, Usage

__all__ = ["CORRECTED", "RULES", "Mirrors", "charges", "correction"]

RULES = ("reserve", "settle", "actual")
CORRECTED = ("settle", "actual", "output")  # rules under which a call is charged more when it ends: a bucket can owe
SETTLED = frozenset({"settle", "actual", "input", "output"})  # rules under which its end changes what it is charged
COMPARISONS = 5  # snapshots before another mirror may be followed
LEAST_WEIGHT = 0.002  # of one snapshot: a provider does not change its rule, so old evidence is good evidence
WEIGHT_OF_REFUSAL = 0.2  # of a refusal, which says that the mirror that was followed is wrong


def charges(rule: str, cost: Cost) -> tuple[float, float]:
    """What a call is charged when it leaves, and what is kept back for it until it ends."""
    if rule == "requests":
        return 1.0, 0.0
    if rule == "actual":
        return float(cost.input_tokens), float(max(0, cost.expected - cost.input_tokens))
    if rule == "input":
        return float(cost.input_tokens), 0.0
    if rule == "output":
        return 0.0, float(cost.output_tokens)
    return float(cost.reserved), 0.0


def correction(rule: str, cost: Cost, usage: Usage | None) -> float:
    """What is charged (or, below zero, given back) when the call ends; usage None: nobody told, so as expected."""
    if rule in ("requests", "reserve"):
        return 0.0
    counted = None if usage is None else usage.total_tokens - usage.cached_tokens
    if rule == "settle":
        return float((cost.expected if counted is None else counted) - cost.reserved)
    if rule == "actual":
        return float((cost.expected if counted is None else counted) - cost.input_tokens)
    if rule == "input":
        return 0.0 if usage is None else float(usage.input_tokens - usage.cached_tokens - cost.input_tokens)
    return float(cost.output_tokens if usage is None else usage.output_tokens)


class Mirrors:
    """One limit under one rule, or under all three until the headers choose.

    Args:
        rule: "requests", "input", "output", one of `RULES`, or None for "find out".
        limit, period, now, capacity, guarded: as for `Meter`.
    """

    __slots__ = ("_errors", "_offsets", "_snapshots", "meters", "rule")

    def __init__(
        self,
        rule: str | None,
        limit: float | None,
        period: float,
        now: float,
        *,
        capacity: float | None = None,
        guarded: bool = True,
    ) -> None:
        names = RULES if rule is None else (rule,)
        self.rule = names[0]
        self.meters = {
            name: Meter(limit, period, now, capacity=capacity, guarded=guarded, owes=name in CORRECTED)
            for name in names
        }
        self._errors = dict.fromkeys(names, 0.0)
        self._offsets = dict.fromkeys(names, 0.0)
        self._snapshots = 0

    @property
    def meter(self) -> Meter:
        """The meter under the rule that is followed at present."""
        return self.meters[self.rule]

    def asked(self, cost: Cost) -> float:
        """Everything that a call will be charged, at once or at its end."""
        return sum(charges(self.rule, cost))

    def take(self, cost: Cost, now: float) -> tuple[float, ...] | None:
        """Charge a call that leaves; answer what each mirror then holds, when there are several to compare."""
        for rule, meter in self.meters.items():
            amount, pledge = charges(rule, cost)
            meter.take(min(amount, meter.limit), pledge, now)  # more only when the limit is in doubt
        return None if len(self.meters) == 1 else tuple([meter.level for meter in self.meters.values()])

    def settle(self, cost: Cost, usage: Usage | None, now: float) -> None:
        """Correct the charge of a call that was answered."""
        for rule, meter in self.meters.items():
            if rule in SETTLED:
                meter.pledged -= charges(rule, cost)[1]
                meter.correct(correction(rule, cost, usage), now)

    def undo(self, cost: Cost, sent_at: float, now: float) -> None:
        """Take back the charge of a call that was refused."""
        for rule, meter in self.meters.items():
            amount, pledge = charges(rule, cost)
            meter.pledged -= pledge
            meter.undo(amount, sent_at, now)

    def lapse(self, cost: Cost) -> None:
        """A call failed: what it was charged stays charged (failed requests count), what it pledged does not."""
        for rule, meter in self.meters.items():
            meter.pledged -= charges(rule, cost)[1]

    def read(self, reading: Reading, cost: Cost, sent_at: float, held: tuple[float, ...] | None, now: float) -> None:
        """Take in a snapshot, and follow the mirror that has been truest.

        Args:
            reading: with its `remaining`.
            cost: of the call whose answer brought it.
            sent_at: when that call left.
            held: what `take` answered then.
            now: the present moment.
        """
        remaining = reading.remaining
        assert remaining is not None
        for rule, meter in self.meters.items():
            meter.read(remaining, sent_at, charges(rule, cost)[0], now, reading.resolution, reading.reset)
        if held is not None:
            self._compare(remaining, held, self.asked(cost), max(1.0 / (self._snapshots + 1), LEAST_WEIGHT))

    def ceiling(self, reading: Reading, cost: Cost, sent_at: float, now: float) -> float | None:
        """The most that a snapshot leaves possible; see `Meter.ceiling`."""
        assert reading.remaining is not None
        own = charges(self.rule, cost)[0]
        return self.meter.ceiling(reading.remaining, sent_at, own, now, reading.resolution)

    def _compare(self, remaining: float, held: tuple[float, ...], own: float, weight: float) -> None:
        """How far was each mirror from the snapshot when the call left? Only a clear difference changes the rule.

        A mirror that is off by the same amount all the time is still right about the rule (it is only more careful
        than it has to be), so what counts is how much that amount changes.
        """
        self._snapshots += 1
        for rule, level in zip(self.meters, held, strict=True):
            surprise = remaining - level - self._offsets[rule]
            self._offsets[rule] += 0.05 * surprise
            self._errors[rule] += weight * (abs(surprise) - self._errors[rule])
        best = min(self._errors, key=self._errors.__getitem__)
        followed = self._errors[self.rule]
        if self._snapshots >= COMPARISONS and self._errors[best] < 0.5 * followed and followed > own:
            self.rule = best

    def refused(
        self, cost: Cost, sent_at: float, told: float | None, now: float, *, fresh: bool, held: tuple[float, ...] | None
    ) -> None:
        """Learn from a refusal by this limit, after `undo`."""
        if fresh and held is not None:
            # With this call charged, a true mirror held less than nothing.
            self._compare(0.0, tuple(max(0.0, level) for level in held), self.asked(cost), WEIGHT_OF_REFUSAL)
        # A mirror that is not followed did not let this call go: it has nothing to learn.
        self.meter.refused(self.asked(cost), sent_at, told, now, fresh=fresh)

    def resynchronise(self, cost: Cost, wait: float, sent_at: float, now: float) -> None:
        """Set the level that a refusal measured: after `wait` seconds the call fits."""
        for rule, meter in self.meters.items():
            meter.resynchronise(sum(charges(rule, cost)), wait, sent_at, now)

    def relimit(self, limit: float) -> None:
        """Follow a limit that changed."""
        for meter in self.meters.values():
            meter.relimit(limit)
