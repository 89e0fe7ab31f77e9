"""A provider whose limit is not ours alone."""

from __future__ import annotations

from typing import Any

from ratelimited_llm.simulator.enforcement import Enforcement

__all__ = ["Crowded"]


class Crowded(Enforcement):
    """A provider whose limit somebody else spends a share of, thirty seconds out of every sixty."""

    def __init__(self, share: float, rpm: float) -> None:
        super().__init__(rpm=rpm)
        self._rate = share * rpm / 60.0
        self._next = 30.0

    def admit(self, now: float, **asked: Any) -> Any:
        while self._next <= now:
            verdict = super().admit(self._next, reserved=0, input_tokens=0)
            if verdict.ticket is not None:
                self.settle(verdict.ticket, self._next, input_tokens=0, output_tokens=0)
            self._next += 1.0 / self._rate
            if self._next % 60.0 < 30.0:
                self._next += 30.0
        return super().admit(now, **asked)
