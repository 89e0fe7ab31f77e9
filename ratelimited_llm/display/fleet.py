"""Everybody who shares a budget, as the lines of a terminal: the pools, the sums, the orders, and a table of workers.

Plain ASCII. Names come from other processes, so whatever a terminal might obey in them is shown as a question mark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..books.fleet import Fleet, FleetLimit, FleetPool, FleetWorker
from .number_text import UNKNOWN, amount, money, span

__all__ = ["clean", "frame", "limits_table"]

GAP = "   "
LONGEST_NAME = 40
SHORTEST_NAME = 14
MINUTE = 60.0

HEADS = ("worker", "open", "queued", "rpm", "tpm", "wait p50/p95", "429", "failed", "cost", "last seen")
GIVE_UP = (4, 8, 7)  # columns that a narrow terminal does without, first to last: tpm, cost, failed
GIVE_UP_LAST = (9, 5, 3)  # and, when short names are not enough: last seen, wait, rpm


def frame(fleet: Fleet, *, width: int = 79, height: int | None = None) -> list[str]:
    """Everything in lines of at most `width` characters; at most `height` of them, None for as many as it takes."""
    lines = _pools(fleet.pools, width, None if height is None else max(1, height // 3))
    lines += _wrapped(_sums(fleet), width)
    lines += [part for order in _orders(fleet) for part in _wrapped(order.split(" "), width, " ")]
    table = _table(fleet.workers, width)
    if height is not None and len(lines) + 1 + len(table) > height:
        room = max(0, height - len(lines) - 3)  # the empty line, the heads, and what is left out
        table = [*table[: 1 + room], f"and {len(fleet.workers) - room:,} more"] if room else []
    lines = [*lines, "", *table] if table else lines
    return [line[:width].rstrip() for line in lines[:height]]


def limits_table(fleet: Fleet) -> list[str]:
    """What is known of every limit: by pool, units per period, what is left at this moment, and who says so."""
    if not fleet.pools:
        return ["no limits are known yet: nobody has sent anything with this budget in the last day", *_orders(fleet)]
    rows = [("limit", "per period", "left now", "period", "known from")]
    blocks = []
    for pool in fleet.pools:
        for limit in pool.limits:
            numbers = f"{limit.limit:,.0f}", f"{limit.left:,.0f}"
            rows.append((limit.dimension, *numbers, _period(limit.period), _source(limit)))
        blocks.append((pool, len(pool.limits)))
    aligned = _aligned(rows, left={0, 3, 4})
    lines, at = [], 1
    for pool, count in blocks:
        held = f"{GAP}paused {span(pool.paused)} by a 429" if pool.paused > 0 else ""
        lines.append(clean(pool.label) + held)
        known = [aligned[0], *aligned[at : at + count]] if count else ["none is known"]
        lines += [f"  {line}" for line in known]
        at += count
    return [*lines, *_orders(fleet)]


def _source(limit: FleetLimit) -> str:
    """Whose number a limit is, and when the provider was last heard of it."""
    ago = "" if limit.learned is None else f"{span(limit.learned)} ago"
    if limit.source == "learned":
        return f"the provider, {ago}" if ago else "the provider"
    who = {"stated": "a user", "lowered": "an operator"}.get(limit.source, UNKNOWN)
    return f"{who}; heard from the provider {ago}" if ago else who


def clean(text: str, most: int | None = None) -> str:
    """Text that a terminal shows and does not obey: ASCII, at most so many characters."""
    shown = "".join(each if " " <= each <= "~" else UNKNOWN for each in text[:400])
    return shown if most is None or len(shown) <= most else shown[: max(0, most - 2)] + ".."


# -- what stands above the table --------------------------------------------------------------------------------------


def _pools(pools: Sequence[FleetPool], width: int, most: int | None) -> list[str]:
    """The pools, at most so many: those that hold calls back, and the fullest; None for all."""
    if not pools:
        return ["no limits are known yet"]
    worst = {pool.name for pool in sorted(pools, key=_trouble, reverse=True)[:most]}
    lines = [line for pool in pools if pool.name in worst for line in _pool(pool, width)]
    return lines if len(worst) == len(pools) else [*lines, f"and {len(pools) - len(worst):,} more pools"]


def _trouble(pool: FleetPool) -> tuple[bool, bool, float]:
    binds = any(limit.binds for limit in pool.limits)
    return pool.paused > 0, binds, max((limit.used / limit.limit for limit in pool.limits), default=0.0)


def _pool(pool: FleetPool, width: int) -> list[str]:
    """A pool in one line; in more where that is too narrow."""
    parts = [_spent(limit) for limit in pool.limits] or ["no limits known"]
    if pool.paused > 0:
        parts.append(f"paused {span(pool.paused)} (429)")
    return _wrapped([clean(pool.label, width), *parts], width)


def _wrapped(parts: Sequence[str], width: int, gap: str = GAP) -> list[str]:
    """The parts in as many lines as they need, never cut in the middle of one: half a number is a wrong number."""
    lines = [parts[0]]
    for part in parts[1:]:
        joined = f"{lines[-1]}{gap}{part}"
        if len(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(f"  {part}")
    return lines


def _spent(limit: FleetLimit) -> str:
    mark = "*" if limit.binds else ""
    return f"{amount(limit.used)}/{amount(limit.limit)} {clean(limit.dimension, 12)}{mark}"


def _sums(fleet: Fleet) -> list[str]:
    count, sums = len(fleet.workers), fleet.totals
    if not count:
        return ["nobody shares this budget at the moment"]
    parts = [f"{count:,} worker{'' if count == 1 else 's'}"]
    said = (("in_flight", " open"), ("queued", " queued"), ("rpm", " rpm"), ("tpm", " tpm"), ("refused", "x429"))
    parts += [f"{amount(sums[name])}{unit}" for name, unit in said if name in sums]
    parts += [f"{amount(sums['failed'])} failed"] if sums.get("failed") else []
    parts += [money(sums["spent"])] if "spent" in sums else []
    return parts


def _orders(fleet: Fleet) -> list[str]:
    lines = ["PAUSED by an operator; ratelimited-llm resume lets it go on"] if fleet.paused else []
    if fleet.lowered:
        lines.append(f"at most {lowered(fleet.lowered)} by an operator; ratelimited-llm limit --none lifts it")
    return lines


def lowered(limits: Mapping[str, float]) -> str:
    """Limits that an operator has set, as a list: "8,000 rpm, 2,000,000 tpm"."""
    return ", ".join(f"{value:,.0f} {clean(name, 12)}" for name, value in limits.items())


# -- the table --------------------------------------------------------------------------------------------------------


def _table(workers: Sequence[FleetWorker], width: int) -> list[str]:
    if not workers:
        return []
    columns = list(range(len(HEADS)))
    rows = [HEADS, *(_row(worker, LONGEST_NAME) for worker in workers)]
    for dropped in GIVE_UP:
        if _width(rows, columns) > width:
            columns.remove(dropped)
    excess = _width(rows, columns) - width
    if excess > 0:  # then the names are cut
        most = max(SHORTEST_NAME, max(len(row[0]) for row in rows) - excess)
        rows = [HEADS, *(_row(worker, most) for worker in workers)]
    for dropped in GIVE_UP_LAST:
        if _width(rows, columns) > width:
            columns.remove(dropped)
    return _aligned([tuple(row[column] for column in columns) for row in rows], left={0})


def _row(worker: FleetWorker, most: int) -> tuple[str, ...]:
    role = f" ({worker.role})" if worker.role and worker.role != "worker" else ""
    counts = [
        "-" if value is None else amount(value)
        for value in (worker.in_flight, worker.queued, worker.rpm, worker.tpm, worker.refused, worker.failed)
    ]
    open_calls, queued, rpm, tpm, refused, failed = counts
    cost = "-" if worker.spent is None else money(worker.spent)
    name = clean(worker.name, max(most - len(role), SHORTEST_NAME // 2)) + role
    name = clean(name, most)
    return (name, open_calls, queued, rpm, tpm, _waits(worker), refused, failed, cost, _seconds(worker.seen) + " s")


def _waits(worker: FleetWorker) -> str:
    middle, late = worker.wait_p50, worker.wait_p95
    if middle is None or late is None:
        return "-"
    return f"{_seconds(middle)}/{_seconds(late)} s"


def _seconds(value: float) -> str:
    """Two digits below ten, whole ones above: 0.04, 1.2, 14."""
    return f"{value:.2f}" if value < 0.095 else f"{value:.1f}" if value < 9.95 else amount(value)


def _width(rows: Sequence[Sequence[str]], columns: Sequence[int]) -> int:
    return sum(max(len(row[column]) for row in rows) for column in columns) + 2 * (len(columns) - 1)


def _aligned(rows: Sequence[Sequence[str]], left: set[int]) -> list[str]:
    """Rows of text in columns two spaces apart; the columns in `left` begin where their head does, the others end."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            text.ljust(width) if column in left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _period(seconds: float) -> str:
    named = {1.0: "second", MINUTE: "minute", 3_600.0: "hour", 86_400.0: "day"}
    return named.get(seconds, f"{_seconds(seconds)} s")
