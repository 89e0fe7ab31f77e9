"""The panel of a run: the HTML that a notebook shows, and the same as text for where no HTML can be shown.

Made of inline styles that survive the sanitizers of notebook front ends (no flex, no grid, no class), and of the text's
own colour at several opacities, so that it can be read in any theme. What is wide is drawn as a border: it has the
text's colour without naming one. Every text is escaped.
"""

from __future__ import annotations

from html import escape

from ..books.status import ErrorStatus, LimitStatus, ModelStatus, PoolStatus, Status
from .line import line
from .number_text import amount, money, percent, span

__all__ = ["panel"]

MOST_ROWS = 8  # of models, pools and errors each; the rest is counted
LONGEST = 160  # characters of an error's text

FAINT = "opacity:.65"
BOX = "max-width:44em;margin:4px 0;line-height:1.5;font-size:13px"
ROW = "margin-top:8px"
CELL = "padding:1px 12px 1px 0;border:0;background:none;text-align:right;white-space:nowrap"


def panel(status: Status, *, name: str, closing: str | None) -> tuple[str, str]:
    """Show a run as (HTML, text).

    Args:
        status: the run.
        name: what to call it: the client's class, say.
        closing: the last line of a panel that will not change any more ("finished at 14:02:11"); None while it is
            live, and then the last line says how to cancel.
    """
    hint = closing or ("" if status.over else "cancel: client.cancel()")
    parts = [
        _head(status, name),
        _bar(status),
        _facts(status),
        *(_pool(pool, named=len(status.pools) > 1) for pool in status.pools[:MOST_ROWS]),
        _models(status.models) if len(status.models) > 1 else "",
        _errors(status.errors),
        f'<div style="{ROW};{FAINT}">{escape(hint)}</div>' if hint else "",
    ]
    text = line(status)
    return f'<div style="{BOX}">{"".join(parts)}</div>', f"{text}\n{closing}" if closing else text


def _head(status: Status, name: str) -> str:
    whole = max(status.total, status.submitted)
    share = percent(status.done, whole) if whole else ""
    count = f"{status.done:,} of {whole:,}" if whole else "no calls yet"
    return (
        f'<div><span style="float:right">{share}</span><strong>{escape(name)}</strong>'
        f'<span style="margin-left:12px">{count}</span></div>'
    )


def _bar(status: Status) -> str:
    """What the journal answered, what was answered now, what failed or was cancelled, and what is left."""
    whole = max(status.total, status.submitted, status.done)
    if not whole:
        return ""
    lost = status.failed + status.cancelled
    pieces = ((status.replayed, 0.5), (status.answered, 0.85), (lost, 0.3), (max(0, whole - status.done), 0.12))
    said = f"{percent(status.done, whole)} done"
    return (
        f'<div role="img" aria-label="{said}" style="font-size:0;line-height:0;margin:4px 0;white-space:nowrap">'
        + "".join(_piece(100 * count / whole, opacity, 6) for count, opacity in pieces if count)
        + "</div>"
    )


def _piece(width: float, opacity: float, height: int) -> str:
    return (
        f'<span style="display:inline-block;width:{width:.2f}%;border-top:{height}px solid;opacity:{opacity}"></span>'
    )


# -- what is counted --------------------------------------------------------------------------------------------------


def _facts(status: Status) -> str:
    facts = [
        None if status.over else (f"{status.in_flight:,}", "in flight"),
        None if status.over else (f"{status.queued:,}", "queued"),
        (f"{status.refused:,}", "× 429"),
        (f"{status.retries:,}", "retry" if status.retries == 1 else "retries"),
        (f"{status.replayed:,}", "reused") if status.replayed else None,
        (f"{status.failed:,}", "failed") if status.failed else None,
        (f"{status.cancelled:,}", "cancelled") if status.cancelled else None,
        (f"{status.perhaps_paid:,}", "perhaps paid twice") if status.perhaps_paid else None,
        _cost(status),
        None if status.over or status.eta is None else (span(status.eta), "left"),
    ]
    return f'<div style="margin-top:6px">{"".join(_fact(*fact) for fact in facts if fact is not None)}</div>'


def _cost(status: Status) -> tuple[str, str] | None:
    if status.spent is None:
        return None
    if status.over or status.expected is None:
        return money(status.spent), "spent"
    return money(status.spent), f"of about {money(status.expected)}"


def _fact(value: str, what: str) -> str:
    return (
        f'<span style="display:inline-block;margin-right:18px;white-space:nowrap"><strong>{escape(value)}</strong>'
        f' <span style="{FAINT}">{escape(what)}</span></span>'
    )


# -- limits -----------------------------------------------------------------------------------------------------------


def _pool(pool: PoolStatus, *, named: bool) -> str:
    title = ""
    if named:
        family = f" · {pool.family}" if pool.family else ""
        counted = f"{pool.in_flight:,} in flight, {pool.queued:,} queued" if pool.in_flight or pool.queued else ""
        title = f'<div>{escape(pool.provider + family)} <span style="{FAINT}">{counted}</span></div>'
    rows = "".join(_gauge(limit) for limit in pool.limits) or (
        f'<div style="{FAINT}">{amount(pool.requests_per_minute)} requests and {amount(pool.tokens_per_minute)} '
        "tokens in the last minute; limits not known yet</div>"
        if pool.queued or pool.in_flight or named
        else ""
    )
    held = f'<div style="{FAINT}">paused {span(pool.paused)} by a 429</div>' if pool.paused > 0 else ""
    return f'<div style="{ROW}">{title}{rows}{held}</div>' if title or rows or held else ""


def _gauge(limit: LimitStatus) -> str:
    """How much of a limit is spent; a full bucket lets the first minute spend more than one minute's worth."""
    share = 0.0 if not limit.limit > 0 else min(1.0, max(0.0, limit.used / limit.limit))
    pieces = _piece(100 * share, 0.75, 4) + (_piece(100 - 100 * share, 0.15, 4) if share < 1 else "")
    mark = '<strong style="margin-left:10px">binds</strong>' if limit.binds else ""
    daily = " today" if limit.period > 60 else ""
    return (
        f'<div style="white-space:nowrap"><span style="display:inline-block;width:3.2em;{FAINT}">'
        f"{escape(limit.dimension)}</span>"
        '<span role="presentation" style="display:inline-block;width:40%;max-width:240px;font-size:0;line-height:0;'
        f'vertical-align:middle;margin-right:10px">{pieces}</span>'
        f"{amount(limit.used)} / {amount(limit.limit)}{daily}{mark}</div>"
    )


# -- tables -----------------------------------------------------------------------------------------------------------


def _models(models: tuple[ModelStatus, ...]) -> str:
    heads = ("model", "answered", "failed", "tokens in", "out", "cost", "latency")
    cells = "".join(
        _cell("th", 'scope="col"', head, f"font-weight:normal;{FAINT}", index) for index, head in enumerate(heads)
    )
    rows = "".join(_model(model) for model in models[:MOST_ROWS])
    return (
        f'<div style="{ROW};overflow-x:auto"><table style="border-collapse:collapse;border:0;margin:0;font-size:13px">'
        f'<thead style="border:0"><tr style="background:none">{cells}</tr></thead><tbody>{rows}</tbody></table>'
        f"{_more(len(models), 'models')}</div>"
    )


def _model(model: ModelStatus) -> str:
    latency = "" if model.latency is None else f"{model.latency:.2f} s"
    values = (
        model.model, f"{model.answered:,}", f"{model.failed:,}", amount(model.input_tokens),
        amount(model.output_tokens), money(model.spent), latency,
    )  # fmt: skip
    cells = [_cell("th", 'scope="row"', values[0], "font-weight:normal", 0)]
    cells += [_cell("td", "", value, "", index) for index, value in enumerate(values) if index]
    return f'<tr style="background:none">{"".join(cells)}</tr>'


def _cell(tag: str, attribute: str, value: str, style: str, index: int) -> str:
    left = ";text-align:left" if index == 0 else ""
    styles = ";".join(part for part in (CELL + left, style) if part)
    return f'<{tag}{" " if attribute else ""}{attribute} style="{styles}">{escape(value)}</{tag}>'


def _errors(errors: tuple[ErrorStatus, ...]) -> str:
    if not errors:
        return ""
    rows = "".join(
        f'<div style="overflow-wrap:anywhere">{error.count:,} × {escape(_shortened(error.text))}</div>'
        for error in errors[:MOST_ROWS]
    )
    return f'<div style="{ROW}">{rows}{_more(len(errors), "kinds of errors")}</div>'


def _shortened(text: str) -> str:
    words = " ".join(text[: 2 * LONGEST].split())
    return words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"


def _more(count: int, what: str) -> str:
    left = count - MOST_ROWS
    return f'<div style="{FAINT}">and {left:,} more {what}</div>' if left > 0 else ""
