"""The state of a run in one line of a terminal, and what became of it in one line at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..books.status import LimitStatus, PoolStatus, Status
from .number_text import UNKNOWN, amount, money, percent, span

__all__ = ["line", "summary"]

GAP = "  "
SPELLED_OUT = 100_000  # from here on calls are counted as 312k/1M
MINUTE = 60.0

# What is given up when room is short, first to last; a part named twice has a shorter spelling in between. Parts are
# never cut, and the 429s and the count are the last to go.
GIVE_UP = (
    "daily", "cancelled", "reused", "others", "refused", "second", "open", "cost", "count", "failed", "binding",
    "eta", "count", "refused", "refused", "count",
)  # fmt: skip

Part = tuple[str, list[str]]  # its name in GIVE_UP, and its spellings: the longest first, "" when it may be left out


def line(status: Status, *, width: int = 79) -> str:
    """Write the state of a run in at most `width` ASCII characters, without a line break.

    Rates are those of the last 60 s, `*` marks the limit that binds, and money is spent/expected. Of several pools it
    shows the first, and `(+2)` says that two others have open calls. Parts that do not fit are left out, the least
    telling first; it is empty when not even the count fits.
    """
    if status.total <= 0 and status.submitted <= 0:
        return _fitting([("count", ["no calls yet", "0/0", ""])], width)
    parts = [
        ("count", _count(status)),
        ("reused", _some(status.replayed, "reused")),
        ("failed", _some(status.failed, "failed")),
        ("cancelled", _some(status.cancelled, "cancelled")),
        *(_rates(status.pools[0]) if status.pools else ()),
        ("others", _others(status.pools)),
        ("open", [f"{amount(status.in_flight)} open", ""]),
        ("refused", _refused(status)),
        ("cost", _cost(status)),
        ("eta", _eta(status)),
    ]
    return _fitting(parts, width)


def summary(status: Status) -> str:
    """Write what became of all calls in one line of ASCII: how they ended, how long it took, and what it cost."""
    answered = status.answered + status.replayed
    of = f" of {_whole(status):,}" if status.done < _whole(status) else ""
    reused = f" ({status.replayed:,} reused)" if status.replayed else ""
    ends = [f"{answered:,}{of} answered{reused}", f"{status.failed:,} failed"]
    if status.cancelled:
        ends.append(f"{status.cancelled:,} cancelled")
    if not status.over:
        ends.append(f"{status.submitted - status.done:,} open")
    ends.append(f"{status.refused:,} refused")
    if status.perhaps_paid:
        ends.append(f"{status.perhaps_paid:,} perhaps paid twice")
    ends.append(f"in {span(status.elapsed)}")
    tokens = status.input_tokens + status.output_tokens
    bill = [f"{amount(tokens)} tokens"] if tokens else []
    if status.spent is not None:
        bill.append(money(status.spent))
    return ", ".join(ends) + (f"; {', '.join(bill)}" if bill else "")


# -- the parts --------------------------------------------------------------------------------------------------------


def _whole(status: Status) -> int:
    return max(status.total, status.submitted)


def _count(status: Status) -> list[str]:
    done, whole = status.done, _whole(status)
    short = f"{amount(done)}/{amount(whole)}"
    full = f"{done}/{whole}" if whole < SPELLED_OUT else short
    return [f"{full} {percent(done, whole)}", full, short, ""]


def _some(count: int, what: str) -> list[str]:
    return [f"{amount(count)} {what}" if count else "", ""]


def _rates(pool: PoolStatus) -> list[Part]:
    """What is spent of each limit; where none is known, just the rate."""
    known = {limit.dimension for limit in pool.limits}
    parts: list[Part] = []
    if "rpm" not in known:
        parts.append(("second", [f"{amount(pool.requests_per_minute)} rpm", ""]))
    for limit in pool.limits:
        name = "binding" if limit.binds else "daily" if limit.period > MINUTE else "second"
        parts.append((name, [_limit(limit), ""]))
    if not known & {"tpm", "itpm", "otpm"}:
        parts.append(("second", [f"{amount(pool.tokens_per_minute)} tpm", ""]))
    return parts


def _limit(limit: LimitStatus) -> str:
    return f"{amount(limit.used)}/{amount(limit.limit)} {limit.dimension}{'*' if limit.binds else ''}"


def _others(pools: Sequence[PoolStatus]) -> list[str]:
    busy = sum(1 for pool in pools[1:] if pool.queued or pool.in_flight)
    return [f"(+{busy})" if busy else "", ""]


def _refused(status: Status) -> list[str]:
    """The 429s; and, while one holds a pool back, how long it does. The refused calls were given back to the queue."""
    count = f"{amount(status.refused)}x429"
    longest = max((pool.paused for pool in status.pools), default=0.0)
    if not longest > 0:
        return [count, count, ""]
    wait = f"{math.ceil(longest)} s" if longest <= 99 else span(longest)
    return [f"paused {wait} (429, {amount(status.refused)} given back)", f"{count} paused {wait}", count, ""]


def _cost(status: Status) -> list[str]:
    if status.spent is None:
        return ["", ""]
    expected = money(status.expected)
    more = "" if expected == UNKNOWN or status.over else f"/{expected.replace('$', '')}"
    return [f"{money(status.spent)}{more}", ""]


def _eta(status: Status) -> list[str]:
    left = span(status.eta)
    return ["" if status.over or left == UNKNOWN else f"ETA {left}", ""]


def _fitting(parts: list[Part], width: int) -> str:
    """Join the parts in their order, giving up what has to be."""
    text = _joined(parts)
    for name in GIVE_UP:
        for part, spellings in reversed(parts):
            if len(text) <= width:
                return text
            if part == name and len(spellings) > 1:
                del spellings[0]
                text = _joined(parts)
    return text if len(text) <= width else ""


def _joined(parts: list[Part]) -> str:
    return GAP.join(spellings[0] for _, spellings in parts if spellings[0])
