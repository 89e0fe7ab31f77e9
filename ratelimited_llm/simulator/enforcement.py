"""The provider's side of the limits: what it admits, what it refuses, and for how long.

This is the oracle that our own limiter is tested against, so it shares no code with `core/`. It is pure: every
method is told `now` (seconds of any clock that does not run backwards), and a simulation in virtual time uses
the very same object as the server on loopback.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeGuard

from .meters import Bucket, FixedWindow, Meter, SlidingWindow

__all__ = ["Admission", "Allowance", "Enforcement", "Ticket", "Verdict", "Window"]

Window = Literal["bucket", "fixed", "sliding"]
Admission = Literal["reserve", "settle", "actual"]

DIMENSIONS = ("rpm", "rpd", "tpm", "tpd", "itpm", "otpm")
PER_MINUTE = ("rpm", "tpm", "itpm", "otpm")
MINUTES_OF_A_DAY = 1440
LARGEST = 1e300  # of a limit
METERS: dict[str, type[Meter]] = {"bucket": Bucket, "fixed": FixedWindow, "sliding": SlidingWindow}


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_limit(value: object) -> bool:
    return _is_number(value) and 0 < value < LARGEST


@dataclass(frozen=True)
class Allowance:
    """What an account may do, and how its provider counts.

    Attributes:
        rpm, tpm, rpd, tpd, itpm, otpm: requests, tokens, input and output tokens per minute or day; None is no
            such limit. Must be finite and above 0.
        max_concurrency: calls in flight at once, or None.
        window: "bucket" refills all the time, "fixed" is cleared when a window ends, "sliding" counts the last
            `period` seconds.
        period: seconds of a "minute"; shorter ones make tests fast. A "day" is 1,440 of them.
        smooth: enforce the minute limits over this many seconds instead of `period` (60 rpm as one a second); None
            is not to.
        smooth_dimensions: which limits are smoothed.
        strict: refuse, as too large, a call that is larger than what a smoothed limit holds at once. Otherwise
            it goes when that limit is untouched, and the next ones wait longer.
        admission: what counts when a call arrives. "reserve" charges what is reserved and never gives back, "settle"
            corrects it to the real usage at the end, "actual" charges the input and then the output as produced.
        window_offset: when fixed windows begin, seconds of the caller's clock.
        charge_refused: a refused call uses up request budget too, as OpenAI documents.
    """

    rpm: float | None = None
    tpm: float | None = None
    rpd: float | None = None
    tpd: float | None = None
    itpm: float | None = None
    otpm: float | None = None
    max_concurrency: int | None = None
    window: Window = "bucket"
    period: float = 60.0
    smooth: float | None = None
    smooth_dimensions: tuple[str, ...] = PER_MINUTE
    strict: bool = False
    admission: Admission = "reserve"
    window_offset: float = 0.0
    charge_refused: bool = False

    def __post_init__(self) -> None:
        for name in (*DIMENSIONS, "max_concurrency", "period", "smooth"):
            value = getattr(self, name)
            if not _is_limit(value) and (value is not None or name == "period"):
                raise ValueError(f"{name}={value!r} is no limit: give a number above 0, or None for no such limit")
        dimensions = self.smooth_dimensions
        if not isinstance(dimensions, tuple) or not all(name in PER_MINUTE for name in dimensions):
            raise ValueError(f"smooth_dimensions={dimensions!r}: give a tuple of {', '.join(PER_MINUTE)}")
        if not _is_number(self.window_offset) or not abs(self.window_offset) < LARGEST:
            raise ValueError(f"window_offset={self.window_offset!r}: give a finite number of seconds")
        if not isinstance(self.window, str) or self.window not in METERS:
            raise ValueError(f"unknown window {self.window!r}: use 'bucket', 'fixed' or 'sliding'")
        if self.admission not in ("reserve", "settle", "actual"):
            raise ValueError(f"unknown admission {self.admission!r}: use 'reserve', 'settle' or 'actual'")

    def meter(self, dimension: str) -> Meter | None:
        """A fresh meter of one of the limits, or None when there is no such limit."""
        limit = getattr(self, dimension)
        if limit is None:
            return None
        period = self.period if dimension in PER_MINUTE else self.period * MINUTES_OF_A_DAY
        smoothed = self.smooth is not None and dimension in PER_MINUTE and dimension in self.smooth_dimensions
        span = min(self.smooth or period, period) if smoothed else period
        return METERS[self.window](limit, period, span, offset=self.window_offset)

    def __str__(self) -> str:
        limits = ((name, getattr(self, name)) for name in (*DIMENSIONS, "max_concurrency"))
        return " ".join(f"{name}={value:g}" for name, value in limits if value is not None) or "no limits"


class Ticket:
    """One admitted call: what it was charged, until it is settled.

    Attributes:
        key: whatever the caller of `admit` wanted to find again.
        reserved: tokens that were held for it.
    """

    __slots__ = ("charges", "key", "reserved", "settled")

    def __init__(self, reserved: int, key: Any, charges: list[tuple[str, Meter, Any, float]]) -> None:
        self.reserved = reserved
        self.key = key
        self.charges = charges
        self.settled = False


@dataclass(frozen=True)
class Verdict:
    """Whether a call was let in, and if not, the numbers that its refusal is written from.

    Attributes:
        admitted: it may be answered; `ticket` is to be settled when it ends.
        dimension: the limit that refused it ("rpm", ..., "concurrency"), the one to wait longest for; else None.
        limit: that limit.
        used: what counted against it at that moment; above the limit when it is in debt.
        requested: what the call asked of it.
        retry_after: exact seconds until it would fit if nobody else asks; None when it never will, or when only
            another call's end can help (concurrency).
        too_large: it asks for more than the whole limit.
    """

    admitted: bool
    dimension: str | None = None
    limit: float = 0.0
    used: float = 0.0
    requested: float = 0.0
    retry_after: float | None = None
    too_large: bool = False
    ticket: Ticket | None = field(default=None, repr=False)


class Enforcement:
    """Admits and refuses calls as one provider does for one model; see `Allowance` for the rules.

    Not thread-safe: it belongs to whoever tells it the time.

    Attributes:
        allowance: the rules in force.
        in_flight: calls admitted and not yet settled.
        admitted, refused: calls so far.
        refused_by: of the refused, how many for each dimension.
        admitted_log: (now, reserved) of each admitted call, oldest first; None unless `keep_log`.
    """

    def __init__(self, allowance: Allowance | None = None, *, keep_log: bool = False, **rules: Any) -> None:
        if allowance is not None and not isinstance(allowance, Allowance):
            raise TypeError(f"allowance={allowance!r}: give an Allowance, or its rules by name")
        self.allowance = replace(allowance, **rules) if allowance is not None else Allowance(**rules)
        self.in_flight = 0
        self.admitted = 0
        self.refused = 0
        self.refused_by: dict[str, int] = {}
        self.admitted_log: list[tuple[float, int]] | None = [] if keep_log else None
        meters = ((name, self.allowance.meter(name)) for name in DIMENSIONS)
        self._meters = {name: meter for name, meter in meters if meter is not None}
        self._started = False

    def admit(self, now: float, *, reserved: int, input_tokens: int, key: Any = None) -> Verdict:
        """Let a call in and charge it, or say why not; all limits are taken together or none is.

        Args:
            now: seconds.
            reserved: tokens that the provider's rule holds at admission (for example prompt + max_tokens); not
                looked at when the rule is "actual".
            input_tokens: of these, the prompt.
            key: found again as `verdict.ticket.key`.
        """
        if not self._started:
            self._start(now)
        wishes = [(name, meter, self._wish(name, reserved, input_tokens)) for name, meter in self._meters.items()]
        refusal = self._refusal(wishes, now)
        if refusal is not None:
            return refusal
        charges = []
        for name, meter, amount in wishes:
            # The output of an "actual" provider is charged when it is produced; asking for one token of it only
            # meant that there has to be something left.
            charge = 0.0 if name == "otpm" and self.allowance.admission == "actual" else amount
            charges.append((name, meter, meter.take(charge, now), charge))
        self.in_flight += 1
        self.admitted += 1
        if self.admitted_log is not None:
            self.admitted_log.append((now, reserved))
        return Verdict(True, ticket=Ticket(reserved, key, charges))

    def settle(self, ticket: Ticket, now: float, *, input_tokens: int, output_tokens: int) -> None:
        """Free the call's place and correct what it was charged, as far as the provider does; once only."""
        if ticket.settled:
            return
        ticket.settled = True
        self.in_flight -= 1
        if self.allowance.admission == "reserve":
            return
        actual = {"itpm": input_tokens, "otpm": output_tokens}
        for name, meter, stamp, charge in ticket.charges:
            if name in ("rpm", "rpd"):
                continue
            delta = actual.get(name, input_tokens + output_tokens) - charge
            if delta:
                meter.correct(stamp, delta, now)

    def reading(self, now: float) -> dict[str, tuple[float, float, float]]:
        """Each limit as (limit, remaining, seconds until full), which is what headers are written from."""
        return {
            name: (meter.limit, max(0.0, meter.limit - meter.used(now)), meter.until_full(now))
            for name, meter in self._meters.items()
        }

    def change(self, now: float, **limits: float | None) -> None:
        """Set other limits in mid-run; what was used stays used. None removes a limit.

        Raises:
            ValueError: for a number that is no limit.
            TypeError: for a name that is none.
        """
        unknown = set(limits) - {*DIMENSIONS, "max_concurrency"}
        if unknown:
            raise TypeError(f"no such limit: {', '.join(sorted(unknown))}")
        self.allowance = replace(self.allowance, **limits)  # type: ignore[arg-type]
        for name, limit in limits.items():
            if name == "max_concurrency":
                continue
            if limit is not None and name in self._meters:
                self._meters[name].change(limit, now)
                continue
            self._meters.pop(name, None)
            meter = self.allowance.meter(name)
            if meter is not None:
                self._meters[name] = meter
                if self._started:
                    meter.start(now)

    def admissible(self, now: float) -> dict[str, float]:
        """The most of each limit that anybody could have been admitted with from the first call until `now`.

        Of a bucket that is capacity + rate * elapsed; of windows, the limit of each one that was touched.
        """
        return {name: meter.admissible(now) for name, meter in self._meters.items()}

    def charged(self) -> dict[str, float]:
        """What was charged to each limit since the first call, corrections included."""
        return {name: meter.charged for name, meter in self._meters.items()}

    def share_used(self, now: float) -> float:
        """How much of what could have been admitted was, for the limit that was used most; 0.0 without limits."""
        return max((meter.charged / meter.admissible(now) for meter in self._meters.values()), default=0.0)

    def _start(self, now: float) -> None:
        self._started = True
        for meter in self._meters.values():
            meter.start(now)

    def _wish(self, name: str, reserved: int, input_tokens: int) -> float:
        if name in ("rpm", "rpd"):
            return 1.0
        if name == "itpm":
            return input_tokens
        if name == "otpm":
            return 1.0 if self.allowance.admission == "actual" else max(0, reserved - input_tokens)
        return input_tokens if self.allowance.admission == "actual" else reserved

    def _refusal(self, wishes: list[tuple[str, Meter, float]], now: float) -> Verdict | None:
        """The refusal by the limit that takes longest to wait for, or None when the call fits everywhere."""
        for name, meter, amount in wishes:
            whole = meter.capacity if self.allowance.strict else meter.limit
            if amount > whole and name not in ("rpm", "rpd"):
                return self._refuse(name, meter.limit, meter.used(now), amount, None, True, now)
        longest: tuple[float, str, Meter, float] | None = None
        for name, meter, amount in wishes:
            wait = meter.wait(amount, now)
            if wait > 0.0 and (longest is None or wait > longest[0]):
                longest = (wait, name, meter, amount)
        if longest is not None:
            wait, name, meter, amount = longest
            return self._refuse(name, meter.limit, meter.used(now), amount, wait, False, now)
        most = self.allowance.max_concurrency
        if most is not None and self.in_flight >= most:
            return self._refuse("concurrency", most, self.in_flight, 1.0, None, False, now)
        return None

    def _refuse(
        self, name: str, limit: float, used: float, amount: float, wait: float | None, too_large: bool, now: float
    ) -> Verdict:
        self.refused += 1
        self.refused_by[name] = self.refused_by.get(name, 0) + 1
        if self.allowance.charge_refused:
            self._charge_refused(now)
            if name in ("rpm", "rpd"):
                wait = max(wait or 0.0, self._meters[name].wait(amount, now))
        return Verdict(False, name, limit, used, amount, wait, too_large)

    def _charge_refused(self, now: float) -> None:
        """Take what is left of one request, never more: else a stubborn client would owe hours."""
        for name in ("rpm", "rpd"):
            meter = self._meters.get(name)
            if meter is not None:
                left = min(1.0, meter.capacity - meter.used(now))
                if left > 0:
                    meter.take(left, now)

    def __repr__(self) -> str:
        a = self.allowance
        rules = f"{a} {a.window} {a.admission}"
        if a.period != 60.0:
            rules += f" period={a.period:g}s"
        return f"<Enforcement {rules}: {self.admitted} admitted, {self.refused} refused, {self.in_flight} in flight>"
