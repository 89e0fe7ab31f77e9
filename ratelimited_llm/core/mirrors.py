"""How a provider charges tokens, and which of three ways an untold one follows.

    rule      when it leaves     kept back until it ends    when it ends, with its usage
    reserve   reserved           nothing                    nothing: never given back            OpenAI, Azure
    settle    reserved           nothing                    usage - reserved                     Groq
    actual    input              expected output            usage - input                        output as produced

A dialect that knows its provider names the rule. Otherwise all three mirrors are kept side by side, each snapshot of
the `remaining` header is compared with what each predicted, and the truest one decides; the careful one starts.
"""

from __future__ import annotations

from .meter import Meter
from .request import Cost, Usage

__all__ = ["RULES", "Mirrors", "charges", "correction"]

RULES = ("reserve", "settle", "actual")
COMPARISONS = 5  # snapshots before another mirror may be followed


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

    __slots__ = ("meters", "rule")

    def __init__(
        self,
        rule: str | None,
        limit: float,
        period: float,
        now: float,
        *,
        capacity: float | None = None,
        guarded: bool = True,
    ) -> None:
        names = RULES if rule is None else (rule,)
        self.rule = names[0]
        self.meters = {name: Meter(limit, period, now, capacity=capacity, guarded=guarded) for name in names}

    @property
    def meter(self) -> Meter:
        """The mirror that is followed."""
        return self.meters[self.rule]

    def wait(self, cost: Cost, now: float, held_back: float = 0.0) -> float:
        """Seconds until a call fits; 0.0 now, math.inf when only a call that ends can help."""
        return self.meter.wait(*charges(self.rule, cost), now, held_back)

    def take(self, cost: Cost, now: float) -> None:
        """Charge a call that leaves."""
        for rule, meter in self.meters.items():
            meter.take(*charges(rule, cost), now)

    def settle(self, cost: Cost, usage: Usage | None, now: float) -> None:
        """Correct the charge of a call that was answered."""
        for rule, meter in self.meters.items():
            meter.pledged -= charges(rule, cost)[1]
            meter.charge(correction(rule, cost, usage), now)

    def undo(self, cost: Cost, now: float) -> None:
        """Take back the charge of a call that was refused."""
        for rule, meter in self.meters.items():
            amount, pledge = charges(rule, cost)
            meter.pledged -= pledge
            meter.charge(-amount, now)

    def lapse(self, cost: Cost) -> None:
        """A call failed: what it was charged stays charged (failed requests count), what it pledged does not."""
        for rule, meter in self.meters.items():
            meter.pledged -= charges(rule, cost)[1]

    def read(self, remaining: float, cost: Cost, sent_at: float, now: float, resolution: float) -> None:
        """Take in a snapshot, and follow the mirror that has been truest."""
        for rule, meter in self.meters.items():
            meter.read(remaining, sent_at, charges(rule, cost)[0], now, resolution)
        if len(self.meters) > 1 and self.meter.snapshots >= COMPARISONS:
            best = min(self.meters, key=lambda rule: self.meters[rule].error)
            # Only a clear difference changes the rule: two that predict alike are both right.
            if self.meters[best].error < 0.5 * self.meter.error:
                self.rule = best

    def relimit(self, limit: float) -> None:
        """Follow a limit that changed."""
        for meter in self.meters.values():
            meter.relimit(limit)
