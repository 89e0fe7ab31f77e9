"""How far a provider is believed: limits and waits in headers and error bodies are untrusted input."""

from __future__ import annotations

from typing import TypeGuard

from .request import Cost

__all__ = ["MAX_WAIT", "WINDOW_FROM", "plausible", "sane", "unrounded"]

LARGEST = 1e10  # units per period: more than any provider gives to anybody
WINDOW_FROM = 1.5  # seconds: waits and resets are told in whole seconds by some, so less is no sign of a window
MAX_WAIT = 120.0  # seconds: the longest wait that a bare Retry-After can impose (the openai SDK's own bound)


def sane(limit: float | None) -> TypeGuard[float]:
    """Whether a limit that was told can be one; 0, -1 and NaN are seen in the wild."""
    return limit is not None and 1.0 <= limit < LARGEST


def plausible(name: str, limit: float, cost: Cost) -> bool:
    """Whether a limit can be, where this call was let in: one that is smaller than the call is none."""
    return name in ("rpm", "rpd", "otpm") or limit >= cost.input_tokens


def unrounded(wait: float, least: float = 0.0) -> float:
    """The shortest wait behind one that was told in whole seconds, which some providers round up.

    `least` is what it cannot be below: the seconds in which a bucket that is not in debt has one call's worth.
    """
    return max(wait - 1.0, min(wait, least)) if wait == int(wait) else wait
