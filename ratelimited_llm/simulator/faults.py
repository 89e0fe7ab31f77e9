"""Trouble on purpose: which call goes wrong, and how."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..core.checks import number, whole

__all__ = ["Fault", "Faults", "Kind"]

Kind = Literal["status", "exhausted", "html", "reset", "stall", "truncate", "malformed", "headers", "error_event"]
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True)
class Fault:
    """One kind of trouble, and the calls that it strikes.

    The conditions `first`, `every`, `at`, `model` and `probability` must all hold; without any, it strikes every
    call. Calls are numbered from 1 in the order they arrive, refused ones included.

    Attributes:
        kind: "status" answers with `status` in the provider's error form; "exhausted" with its 429 that no waiting
            ends; "html" with `status` and a proxy's HTML page; "reset" breaks the connection before an answer;
            "stall" stops answering (a stream: after `after` events) for `seconds`; "truncate" ends the connection
            in the middle of the body or after `after` events; "malformed" sends half of the JSON as if it were
            all (a stream: one event that is no JSON); "headers" changes headers of whatever is answered, refusals
            included; "error_event" ends a stream of status 200 with an error (a plain call is answered).
        status: for "status" and "html".
        code, type, message: the error's own fields; None for the provider's usual ones.
        headers: set in the answer, over what would be there; None removes one.
        after: events of a stream that still arrive.
        seconds: how long "stall" lasts, then the answer goes on; None is until the caller gives up.
        first: strikes calls 1 to `first`.
        every: strikes each call whose number divides by it.
        at: strikes the calls of these numbers.
        model: strikes calls for this model.
        probability: strikes that share of calls, drawn from the seed and the number of the call.
        charged: the call counts against the limits all the same, as unsuccessful requests do.
    """

    kind: Kind = "status"
    status: int = 500
    code: str | None = None
    type: str | None = None
    message: str | None = None
    headers: Mapping[str, str | None] | None = None
    after: int = 2
    seconds: float | None = None
    first: int | None = None
    every: int | None = None
    at: tuple[int, ...] | None = None
    model: str | None = None
    probability: float | None = None
    charged: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of fault {self.kind!r}: use {', '.join(KINDS)}")
        for name, least in (("status", 100), ("after", 0), ("first", 0), ("every", 1)):
            value = getattr(self, name)
            if value is not None or name in ("status", "after"):
                whole(name, value, least)
        for name, most in (("probability", 1.0), ("seconds", math.inf)):
            value = getattr(self, name)
            if value is not None and not 0 <= number(name, value) <= most:
                raise ValueError(f"{name}={value!r}: give a number from 0 to {most:g}, or None")
        for name in ("code", "type", "message", "model"):
            value = getattr(self, name)
            if not isinstance(value, (str, type(None))):
                raise TypeError(f"{name}={value!r}: give a string, or None")
        if self.at is not None and not isinstance(self.at, tuple):
            raise TypeError(f"at={self.at!r}: give a tuple of whole numbers, or None")
        for each in self.at or ():
            whole("each of at", each, 0)
        headers = self.headers
        if headers is not None and not (
            isinstance(headers, Mapping)
            and all(isinstance(name, str) and isinstance(value, (str, type(None))) for name, value in headers.items())
        ):
            raise TypeError(f"headers={headers!r}: give a mapping from names to texts (None removes one), or None")

    def strikes(self, number: int, model: str | None, draw: float) -> bool:
        """Whether this call is struck; `draw` is a number in [0, 1) that belongs to call and rule."""
        return (
            (self.first is None or number <= self.first)
            and (self.every is None or number % self.every == 0)
            and (self.at is None or number in self.at)
            and (self.model is None or self.model == model)
            and (self.probability is None or draw < self.probability)
        )


Rule = Callable[[int, dict[str, Any]], "Fault | None"]


class Faults:
    """Rules that are asked in order for each call; the first that strikes is what happens to it.

    Args:
        rules: a list of `Fault`, or a callable of (number of the call, its body) that returns one or None.
        seed: for `probability`; the same seed strikes the same calls.
    """

    def __init__(self, rules: Iterable[Fault] | Fault | Rule = (), *, seed: int = 0) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"seed={seed!r}: give a whole number")
        self.seed = seed
        self._ask: Rule | None = None
        self.rules: tuple[Fault, ...] = ()
        if isinstance(rules, Fault):
            self.rules = (rules,)
        elif callable(rules):
            self._ask = rules
        else:
            self.rules = tuple(rules) if isinstance(rules, Iterable) else (rules,)
            if not all(isinstance(rule, Fault) for rule in self.rules):
                raise TypeError(
                    f"faults must be a Fault, several of them, or a function that answers one, not {rules!r}"
                )

    def pick(self, number: int, body: dict[str, Any]) -> Fault | None:
        """The trouble that the call of this number gets into, or None."""
        if self._ask is not None:
            return self._ask(number, body)
        model = body.get("model")
        for place, rule in enumerate(self.rules):
            if rule.strikes(number, model, _draw(f"{self.seed} {place} {number}")):
                return rule
        return None


def _draw(key: str) -> float:
    """A number in [0, 1) that always belongs to this key."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big") / 2**32
