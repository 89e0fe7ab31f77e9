"""What operators want and what processes report, as lines that every shared store keeps.

Wishes are lines by name: "news", "paused" ("1" or "0") and "limit rpm" (units per period) for each limit that is
lowered. What is read may have been spoilt by others, so what makes no sense is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.booking_bucket import finite
from ..core.booking_pool import Wishes
from ..core.limits import PERIODS
from .shared_store import Control

__all__ = ["checked", "control_of", "facts_of", "facts_text", "wishes_of"]

LIMIT = "limit "
LONGEST_TAG = 256  # characters
LARGEST_NEWS = 2.0**53  # above it, numbers are not told apart
LARGEST_FACTS = 1 << 16  # characters of JSON


def wishes_of(lines: Mapping[str, str]) -> Wishes:
    """What every pool has to know of them."""
    limits = {
        name[len(LIMIT) :]: limit
        for name, text in lines.items()
        if name.startswith(LIMIT) and (limit := finite(text, 0.0)) > 0.0
    }
    news = finite(lines.get("news"), 0.0)
    return Wishes(int(news) if abs(news) < LARGEST_NEWS else 0, lines.get("paused") == "1", limits)


def control_of(lines: Mapping[str, str], cancelled: Iterable[tuple[Any, Any, Any]]) -> Control:
    """All of them; `cancelled` has (news, moment, tag) for each cancelled tag."""
    wishes = wishes_of(lines)
    tags = tuple((str(tag), finite(moment, 0.0), int(finite(news, 0.0))) for news, moment, tag in cancelled)
    return Control(wishes.news, wishes.paused, wishes.limits, tags)


def checked(limits: Mapping[str, float | None] | None, cancel: str | None) -> dict[str, float | None]:
    """The limits that an operator gives, if all of what was given can be.

    Raises:
        ValueError, TypeError: it cannot.
    """
    if cancel is not None and not (isinstance(cancel, str) and 0 < len(cancel) <= LONGEST_TAG):
        raise ValueError(f"cancel= takes a tag of 1 to {LONGEST_TAG} characters")
    for name, limit in (limits or {}).items():
        if name not in PERIODS:
            raise ValueError(f"there is no limit {name!r}; there are {', '.join(PERIODS)}")
        if limit is None:
            continue
        if isinstance(limit, bool) or not isinstance(limit, (int, float)):
            raise TypeError(f"{name} takes a number of units per period, or None to lift it, not {limit!r}")
        if not 0.0 < limit < math.inf:
            raise ValueError(f"{name} has to be above 0, not {limit!r}; None lifts it")
    return dict(limits or {})


def facts_text(facts: Mapping[str, Any]) -> str:
    """What a process reports, as JSON.

    Raises:
        ValueError, TypeError: it is no JSON, or too much.
    """
    text = json.dumps(dict(facts), separators=(",", ":"))
    if len(text) > LARGEST_FACTS:
        raise ValueError(f"a report has {len(text):,} characters; {LARGEST_FACTS:,} is the most")
    return text


def facts_of(text: str) -> dict[str, Any]:
    """What a process reported; nothing when it cannot be read."""
    try:
        facts = json.loads(text)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}
