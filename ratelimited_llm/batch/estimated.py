"""What an estimate says: a value, and the few lines that people read."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..core.limits import PERIODS
from ..display.number_text import amount, money
from .forecast import CONCURRENCY, INTERVAL

__all__ = ["Estimate", "LimitEstimate", "LineProblem", "PoolEstimate"]

SHOWN = 5  # pools and lines that the text names
DAILY = ("rpd", "tpd")
# OpenAI's Batch API: https://developers.openai.com/api/docs/guides/batch
BATCH_FILE_LINES, BATCH_FILE_BYTES = 50_000, 200_000_000
BATCH_FROM = 10_000  # requests from which on it is worth a thought


@dataclass(frozen=True, slots=True)
class LimitEstimate:
    """One limit: its name ("rpm", ..., "concurrency", "min_interval"), and seconds until the end if only it were."""

    dimension: str
    limit: float
    seconds: float


@dataclass(frozen=True, slots=True)
class PoolEstimate:
    """The calls to one model family, whose limits are its own.

    Attributes:
        family: the models; "" when the provider's limits know none.
        requests: calls.
        seconds: until the last of them is answered.
        binds: the limit that decides; None when none does.
        limits: all of them.
        learned: whether some are known from answers and not from options.
        known: whether any rate is known; otherwise `seconds` is that of so many calls in flight.
        concurrency: calls in flight that suffice.
    """

    family: str
    requests: int
    seconds: float
    binds: str | None
    limits: tuple[LimitEstimate, ...]
    learned: bool
    known: bool
    concurrency: int


@dataclass(frozen=True, slots=True)
class LineProblem:
    """A line that will not be answered, by its number (from 1), and why."""

    line: int
    message: str


@dataclass(frozen=True)
class Estimate:
    """What a batch will take, before anything is sent. `str()` of it is what the command prints.

    Attributes:
        requests: calls that can be sent.
        input_tokens: of all, estimated; `input_error` is the share by which that may be wrong (0.12 is ±12 %).
        output_tokens: of all, as far as answers are known to be so long.
        output_source: how: "given", "learned" or "assumed" tokens an answer.
        most_output: the largest number of tokens that one call allows its answer; None when not all calls say.
        seconds: until the last answer; the slowest pool's.
        latency: seconds an answer that this counts with.
        concurrency: calls in flight that suffice for it, all pools together.
        cost, most_cost: US dollars, probably and at most; None when a price (or a maximum) is not known.
        unpriced: models whose price nobody knows, the first five.
        models: those that are asked, the most asked first; five at most.
        pools: the parts with limits of their own, the slowest first.
        never_fit, bad: how many lines ask for more than a whole limit, or cannot be read; not counted in `requests`.
        never_fit_lines, bad_lines: the first twenty of each.
        bytes: of the input's lines.
        batch_files: files that the provider's own Batch API would take it in; 0 when that is no choice.
    """

    requests: int
    input_tokens: int
    input_error: float
    output_tokens: int
    output_source: str
    most_output: int | None
    seconds: float
    latency: float
    concurrency: int
    cost: float | None
    most_cost: float | None
    unpriced: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    pools: tuple[PoolEstimate, ...] = ()
    never_fit: int = 0
    never_fit_lines: tuple[LineProblem, ...] = ()
    bad: int = 0
    bad_lines: tuple[LineProblem, ...] = ()
    bytes: int = 0
    batch_files: int = 0

    @property
    def tokens(self) -> int:
        """Model tokens of input and output together."""
        return self.input_tokens + self.output_tokens

    @property
    def binds(self) -> str | None:
        """The limit that decides when it ends; None when none does."""
        return self.pools[0].binds if self.pools else None

    @property
    def days(self) -> int | None:
        """Whole days that a daily limit spreads it over; None when none does."""
        # A few seconds after midnight are no other day.
        return math.ceil(self.seconds / PERIODS["rpd"] - 0.01) if self.binds in DAILY else None

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {**asdict(self), "tokens": self.tokens, "binds": self.binds, "days": self.days}

    def __str__(self) -> str:
        lines = [self._size(), *(self._limits(pool) for pool in self.pools[:SHOWN])]
        if len(self.pools) > SHOWN:
            lines.append(f"and {len(self.pools) - SHOWN} more models, each with limits of its own")
        if self.requests:
            lines.append(self._end())
            lines.append(self._cost())
        if self.batch_files:
            files = "one file" if self.batch_files == 1 else f"{self.batch_files} files"
            lines.append(
                f"Provider's own Batch API: about half the price, up to 24 h, {files} of up to "
                f"{BATCH_FILE_LINES:,} lines and {BATCH_FILE_BYTES // 1_000_000} MB."
            )
        lines += _problems("can never be sent", self.never_fit, self.never_fit_lines)
        lines += _problems("cannot be read", self.bad, self.bad_lines)
        return "\n".join(lines)

    def _size(self) -> str:
        error = "counted" if not self.input_error else f"estimated ±{100 * self.input_error:.0f} %"
        each = "" if self.most_output is None else f", at most {self.most_output:,} each"
        noun = "request" if self.requests == 1 else "requests"
        return (
            f"{self.requests:,} {noun} · {amount(self.input_tokens)} input tokens ({error}) · "
            f"{amount(self.output_tokens)} output tokens ({self.output_source}{each})"
        )

    def _limits(self, pool: PoolEstimate) -> str:
        whose = f" ({pool.family}, {pool.requests:,} requests)" if len(self.pools) > 1 else ""
        if not pool.known:
            return (
                f"limits{whose}: none known, so {_time(pool.seconds)} with {_in_flight(pool)} in flight is a guess; "
                "give rpm and tpm (--rpm, --tpm)"
            )
        parts = []
        for limit in sorted(pool.limits, key=lambda each: -each.seconds):
            binds = " (binds)" if limit.dimension == pool.binds else ""
            parts.append(f"{_limit(limit)} -> {_time(limit.seconds)}{binds}")
        learned = ", learned" if pool.learned else ""
        return f"limits{whose}{learned}: {' · '.join(parts)}"

    def _end(self) -> str:
        text = f"ends after {_time(self.seconds)}"
        if self.days is not None:
            text += f": the limit of a day ({self.binds}) binds, so it takes {_days(self.days)}"
        elif self.binds is None and all(pool.known for pool in self.pools):
            text += ": all of it fits into what the limits hold at once"
        verb = "suffices" if self.concurrency == 1 else "suffice"
        return f"{text}; {self.concurrency:,} in flight {verb} at {self.latency:.2g} s an answer"

    def _cost(self) -> str:
        models = ", ".join(self.models)
        if self.cost is None:
            names = ", ".join(map(repr, self.unpriced))
            how = 'give --price IN,OUT (in Python prices=), or pip install "ratelimited-llm[cost]"'
            return f"cost not known: no price of {names}; {how}"
        most = "" if self.most_cost is None else f", at most {money(self.most_cost)}"
        return f"cost about {money(self.cost)}{most} ({models})"


def _in_flight(pool: PoolEstimate) -> str:
    return next((f"{limit.limit:,.0f}" for limit in pool.limits if limit.dimension == CONCURRENCY), "any number")


def _limit(limit: LimitEstimate) -> str:
    if limit.dimension == CONCURRENCY:
        return f"{limit.limit:,.0f} in flight"
    if limit.dimension == INTERVAL:
        return f"one every {limit.limit:g} s"
    number = f"{limit.limit:,.0f}" if limit.limit < 100_000 else amount(limit.limit)
    return f"{number} {limit.dimension}"


def _time(seconds: float) -> str:
    """A duration in words: 8 s, 2 m 20 s, 35 m, 1 h 40 m, 3 d 4 h; never off by more than a twentieth."""
    if not math.isfinite(seconds):
        return "never"
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 594.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} m {rest} s" if rest else f"{minutes} m"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} m"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} m"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def _days(days: int) -> str:
    return "a day" if days <= 1 else f"{days} days"


def _problems(what: str, count: int, first: tuple[LineProblem, ...]) -> list[str]:
    if not count:
        return []
    noun = "line" if count == 1 else "lines"
    numbers = ", ".join(str(problem.line) for problem in first) + (", ..." if count > len(first) else "")
    shown = [f"  line {problem.line}: {problem.message}" for problem in first[:SHOWN]]
    return [f"{count:,} {noun} {what}: {numbers}", *shown]
