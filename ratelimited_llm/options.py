"""What users may say about limits, queue and single calls: read once, checked at once."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from .core.checks import amount, says_yes, seconds, text
from .core.limits import ALIASES, RateLimits
from .core.request import Priority

__all__ = [
    "CALL_NAMES",
    "LIMIT_NAMES",
    "CallOptions",
    "disabled",
    "limits_from_environment",
    "mode_from_environment",
    "parse_amount",
    "split_limits",
]

LIMIT_NAMES = frozenset({*ALIASES, *(f.name for f in fields(RateLimits))})
PREFIX = "RATELIMITED_LLM_"
MODES = ("future", "blocking")
CALL_NAMES = ("priority", "tenant", "deadline", "max_wait", "mode", "tag")


@dataclass(frozen=True, kw_only=True)
class CallOptions:
    """How a single call is queued.

    Attributes:
        priority: "high", "normal", "low" (or "critical", "background"), a `Priority`, or 0 (first) to 10 (last).
        tenant: whose turn it takes, when several share one queue.
        deadline: seconds from submit that the whole life of the call may last; None for no bound.
        max_wait: seconds that it may wait in the queue; None for no bound.
        mode: "future" or "blocking".
        tag: a name by which calls can be cancelled together, from anywhere that shares the budget.
        rank: the priority as a number.
    """

    priority: int | str = Priority.NORMAL
    tenant: str = ""
    deadline: float | None = None
    max_wait: float | None = None
    mode: str = "future"
    tag: str = ""
    rank: int = field(init=False, default=5, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", Priority.parse(self.priority))
        for name in ("tenant", "tag"):
            text(name, getattr(self, name))
        for name in ("deadline", "max_wait"):
            value = getattr(self, name)
            if value is not None:
                seconds(name, value)
        if self.mode not in MODES:
            raise ValueError(f'mode must be "future" or "blocking", not {self.mode!r}')

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> CallOptions:
        """Those of `CALL_NAMES` that are given and not None; the mode may also come from the environment."""
        own = {name: given[name] for name in CALL_NAMES if given.get(name) is not None}
        return cls(**own) if "mode" in own else cls(**own, mode=mode_from_environment())

    def replace(self, **changes: Any) -> CallOptions:
        """The same with other values; None keeps what is."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    @property
    def allowed_wait(self) -> float | None:
        """Seconds after which it is not worth sending for the first time."""
        bounds = [bound for bound in (self.deadline, self.max_wait) if bound is not None]
        return min(bounds, default=None)


def disabled() -> bool:
    """Whether the environment says that nothing is to be queued (`RATELIMITED_LLM_DISABLE=1`)."""
    return says_yes(os.environ.get(PREFIX + "DISABLE", ""))


def split_limits(limits: RateLimits | None, options: Mapping[str, Any]) -> RateLimits:
    """Join limits given as a value with limits given by name.

    Raises:
        TypeError: for a name that is no limit, or one given twice.
        ValueError: for a number that is no limit.
    """
    unknown = sorted(set(options) - LIMIT_NAMES)
    if unknown:
        raise TypeError(f"unexpected argument {unknown[0]!r}: the limits are {', '.join(sorted(LIMIT_NAMES))}")
    if limits is not None and not isinstance(limits, RateLimits):
        raise TypeError(f"limits must be a RateLimits value, not {limits!r}; or give rpm=, tpm=, ... by name")
    given = RateLimits.read(options)
    if limits is None:
        return given
    named = {f.name: getattr(given, f.name) for f in fields(given) if getattr(given, f.name) is not None}
    return limits.replace(**named)


def limits_from_environment(
    environ: Mapping[str, str] | None = None, *, besides: Collection[str] = ()
) -> dict[str, float]:
    """The limits that `RATELIMITED_LLM_RPM`, `_TPM`, `_RPD`, `_TPD` state, by name; "10k" and "2M" are read too.

    Args:
        environ: the environment; None for the process's own.
        besides: limits that somebody has stated, by any of their names: what the environment says of them is not read.

    Raises:
        ValueError: for what is no number, with the variable's name.
    """
    found = {}
    stated = {ALIASES.get(name, name) for name in besides}
    for name in ("rpm", "tpm", "rpd", "tpd"):
        if name in stated:
            continue
        text = (environ if environ is not None else os.environ).get(PREFIX + name.upper())
        if text:
            variable = PREFIX + name.upper()
            value = parse_amount(text, variable)
            found[name] = value if value == -1 else amount(variable, value)
    return found


def mode_from_environment() -> str:
    """The mode that `RATELIMITED_LLM_MODE` states; "future" when it is not set.

    Raises:
        ValueError: it is none, with the variable's name.
    """
    mode = os.environ.get(PREFIX + "MODE") or MODES[0]
    if mode not in MODES:
        raise ValueError(f'{PREFIX}MODE must be "future" or "blocking", not {mode!r}')
    return mode


def parse_amount(text: str, name: str) -> float:
    """Read a number as people write it on a command line: 500, 30_000, 10k, 1.5M.

    Raises:
        ValueError: for anything else, with `name` in the message.
    """
    stripped = text.strip().replace("_", "").replace(",", "")
    factor = {"k": 1e3, "m": 1e6}.get(stripped[-1:].lower(), 1.0)
    try:
        value = float(stripped[:-1] if factor > 1 else stripped) * factor
    except ValueError:
        raise ValueError(f"{name} must be a number such as 500, 30000 or 10k, not {text!r}") from None
    return value
