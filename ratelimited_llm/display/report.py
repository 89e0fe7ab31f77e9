"""The page about a run: one HTML file with its pictures inside, which loads nothing and runs nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from html import escape
from itertools import pairwise

from ..books.status import History, LimitStatus, ModelStatus, Status
from .charts import Frame, Line, columns, distribution, lines, quantile, seconds, step_line
from .number_text import amount, money, span
from .page import ShownPage, page, rows_of

__all__ = ["report", "share_used"]

MINUTE = 60.0
MOST_MARKS = 200  # refusals that get a mark of their own slice; there are not many more slices


def report(status: Status, history: History, *, title: str) -> ShownPage:
    """Describe a run as one HTML page.

    Args:
        status: the run as it stands; the page says whether it is over.
        history: its course.
        title: the heading.

    Returns:
        The page: light or dark as the reader's system is, from 360 pixels of width on.
    """
    end = history.slice_seconds * len(history.moments)
    sections = [
        _figures(status, history),
        _section("Against the limits", _rates(history, end)),
        _section("In the queue", _queue(history, end)),
        _section("Latency", _latency(history, end)),
        _section("429s and failures", _trouble(status, history, end)),
        _section("Models", _models(status.models)),
        _section("Errors", _errors(status)),
        _section("The run", _facts(status, history)),
    ]
    return ShownPage(page(title, _when(status), "".join(sections)))


def share_used(history: History) -> tuple[str, float] | None:
    """(dimension, share) of the limit per minute that was used most of while calls waited; None if none waited.

    What could be spent is a full bucket at the start and the refill until the queue was empty.
    """
    busy = max((index for index, moment in enumerate(history.moments, 1) if moment.queued), default=0)
    until = busy * history.slice_seconds
    best = None
    for dimension in ("rpm", "tpm"):
        known = step_line([(at, limit) for at, name, limit in history.limits if name == dimension], until)
        if not known or not until:
            continue
        refill = sum((y or 0.0) * (after - x) / MINUTE for (x, y), (after, _) in pairwise(known))
        spent = sum(moment.sent if dimension == "rpm" else moment.tokens for moment in history.moments[:busy])
        share = min(1.0, spent / ((known[0][1] or 0.0) + refill))
        if best is None or share > best[1]:
            best = (dimension, share)
    return best


# -- sections ---------------------------------------------------------------------------------------------------------


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def _figure(caption: str, unit: str, picture: str, note: str = "") -> str:
    below = f"<p>{escape(note)}</p>" if note else ""
    return f"<figure><figcaption>{escape(caption)} <span>{escape(unit)}</span></figcaption>{picture}{below}</figure>"


def _listed(css: str, items: Sequence[tuple[str, str] | None], item: str) -> str:
    """A list of figures: each (name, value) that there is, written as `item` has it."""
    shown = "".join(item.format(name=escape(pair[0]), value=escape(pair[1])) for pair in items if pair is not None)
    return f'<dl class="{css}">{shown}</dl>'


def _figures(status: Status, history: History) -> str:
    """The figures on top: answered, failed, 429s, duration, money, share of the limit."""
    whole = max(status.total, status.submitted)
    share = share_used(history)
    figures = [
        (f"of {whole:,} answered", f"{status.answered + status.replayed:,}"),
        ("failed", f"{status.failed:,}"),
        ("429s", f"{status.refused:,}"),
        ("duration" if status.elapsed >= 3_600 else "duration, min:s", span(status.elapsed)),
        None if status.spent is None else ("spent", money(status.spent)),
        None if share is None else (f"of the {share[0]} limit used", _share(share[1])),
    ]
    return _listed("figures", figures, "<div><dd>{value}</dd><dt>{name}</dt></div>")


def _rates(history: History, end: float) -> str:
    if not history.moments:
        return ""
    sent = _per_minute([moment.sent for moment in history.moments], history.slice_seconds)
    spent = _per_minute([moment.tokens for moment in history.moments], history.slice_seconds)
    refused = [
        (moment.at + history.slice_seconds / 2, f"{moment.refused:,} × 429 at {seconds(moment.at)}")
        for moment in history.moments
        if moment.refused
    ][:MOST_MARKS]
    requests = _rate("Requests", sent, history, "rpm", end, refused)
    tokens = _rate("Tokens", spent, history, "tpm", end, []) if any(y for _, y in spent) else ""
    return f'<div class="pair">{requests}{tokens}</div>'


def _rate(
    caption: str, points: Sequence[tuple[float, float]], history: History, dimension: str, end: float,
    marks: Sequence[tuple[float, str]],
) -> str:  # fmt: skip
    changes = [(at, limit) for at, name, limit in history.limits if name == dimension]
    limit = step_line(changes, end)
    drawn = [Line(points, "area")]
    most = max(y for _, y in points)
    said = f"{caption} in the last 60 seconds, over the run; at most {amount(most)}"
    if limit:
        now = changes[-1][1]
        drawn.append(Line(limit, "limit", f"limit {amount(now)}"))
        said += f", and the limit, {amount(now)} per minute"
    notes = []
    if changes and most > 1.02 * max(limit for _, limit in changes):
        notes.append("A full limit may be spent at once at the start, and refills meanwhile.")
    if marks:
        notes.append("Marks on the axis: 429s.")
    picture = lines(Frame(said, end), drawn, marks)
    return _figure(caption, f"in the last 60 s{'' if limit else '; no limit known'}", picture, " ".join(notes))


def _per_minute(counts: Sequence[int], width: float) -> list[tuple[float, float]]:
    """What happened in the 60 s before the end of each slice; slices longer than that count by their own rate."""
    window = max(1, round(MINUTE / width)) if width > 0 else 1
    scale = MINUTE / width if width > MINUTE else 1.0
    points, running = [(0.0, 0.0)], 0
    for index, count in enumerate(counts):
        running += count - (counts[index - window] if index >= window else 0)
        points.append(((index + 1) * width, running * scale))
    return points


def _queue(history: History, end: float) -> str:
    if not history.moments:
        return ""
    queued = [(moment.at + history.slice_seconds, float(moment.queued)) for moment in history.moments]
    open_ = [(moment.at + history.slice_seconds, float(moment.in_flight)) for moment in history.moments]
    most, most_open = (max(y for _, y in points) for points in (queued, open_))
    waiting = lines(Frame(f"Waiting calls over the run; at most {most:,.0f}", end), [Line(queued, "area")])
    in_flight = lines(Frame(f"Calls in flight over the run; at most {most_open:,.0f}", end), [Line(open_)])
    return f'<div class="pair">{_figure("Waiting", "calls", waiting)}{_figure("In flight", "calls", in_flight)}</div>'


def _latency(history: History, end: float) -> str:
    if not history.latencies:
        return ""
    p50, p95 = (quantile(history.latencies, share) for share in (0.5, 0.95))
    longest = history.latencies[-1]
    frame = Frame(f"How long answers took: half within {_exact(p50)}, 95 % within {_exact(p95)}", longest or 1.0)
    spread = distribution(frame, history.latencies, [(f"p50 {_exact(p50)}", p50), (f"p95 {_exact(p95)}", p95)])
    figures = _figure("Distribution", f"calls, {_exact(longest)} at most", spread)
    middle = [(moment.at + history.slice_seconds / 2, moment.latency) for moment in history.moments]
    if any(latency is not None for _, latency in middle):
        frame = Frame("Median latency over the run", end, up=seconds, whole=False)
        figures += _figure("Median over time", "dispatch to answer", lines(frame, [Line(middle)]))
    return f'<div class="pair">{figures}</div>'


def _exact(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 0.9995 else f"{value:.2f} s" if value < 59.995 else span(value)


def _trouble(status: Status, history: History, end: float) -> str:
    refused = [(moment.at, float(moment.refused)) for moment in history.moments]
    failed = [(moment.at, float(moment.failed)) for moment in history.moments]
    if not status.refused and not status.failed:
        return "<p>None.</p>"
    if not any(count for _, count in [*refused, *failed]):
        return f"<p>{status.refused:,} 429s and {status.failed:,} failures.</p>"
    said = f"429s ({status.refused:,}) and failures ({status.failed:,}) over the run"
    picture = columns(Frame(said, end), history.slice_seconds, [("bar refused", refused), ("bar failed", failed)])
    legend = (
        '<p class="legend"><span><i class="refused"></i>429: given back to the queue, no call is lost</span> '
        '<span><i class="failed"></i>failed: ended a call</span></p>'
    )
    return _figure("Over time", f"in each {seconds(history.slice_seconds)}", picture) + legend


def _models(models: Sequence[ModelStatus]) -> str:
    if not models:
        return ""
    most = max((model.input_tokens + model.output_tokens for model in models), default=0)
    heads = ("model", "answered", "failed", "tokens in", "tokens out", "cost", "latency", "share of tokens")
    rows = [
        (
            model.model, f"{model.answered:,}", f"{model.failed:,}", f"{model.input_tokens:,}",
            f"{model.output_tokens:,}", money(model.spent),
            "" if model.latency is None else _exact(model.latency),
            _share_bar(model, most),
        )
        for model in models
    ]  # fmt: skip
    return rows_of(heads, rows, caption="Calls, tokens and cost of each model", raw_last=True)


def _share_bar(model: ModelStatus, most: int) -> str:
    """Tokens in and out beside each other, as long as they are against the busiest model."""
    parts = [(model.input_tokens, "in"), (model.output_tokens, "out")]
    bars = "".join(f'<i class="{css}" style="width:{100 * count / most:.1f}%"></i>' for count, css in parts if count)
    return f'<span class="bars" title="tokens in, tokens out">{bars}</span>'


def _errors(status: Status) -> str:
    if not status.errors:
        return ""
    rows = [(error.text, f"{error.count:,}") for error in status.errors]
    return rows_of(("error", "calls"), rows, caption="What calls failed with, and how many")


def _facts(status: Status, history: History) -> str:
    share = share_used(history)
    facts = [
        ("calls", f"{status.submitted:,}" + (f" of {status.total:,}" if status.total > status.submitted else "")),
        ("answered by the provider", f"{status.answered:,}"),
        ("answered by the journal", f"{status.replayed:,}"),
        ("failed", f"{status.failed:,}"),
        ("cancelled", f"{status.cancelled:,}") if status.cancelled else None,
        ("still open", f"{status.submitted - status.done:,}") if not status.over else None,
        ("429s", f"{status.refused:,}"),
        ("retries after failures", f"{status.retries:,}"),
        ("perhaps paid twice", f"{status.perhaps_paid:,}") if status.perhaps_paid else None,
        ("tokens in, out", f"{status.input_tokens:,}, {status.output_tokens:,}"),
        ("cost", _cost(status)),
        None if share is None else ("limit used while calls waited", f"{_share(share[1])} of {share[0]}"),
        *(
            ("limits of " + (pool.family or pool.provider), _limits(pool.limits))
            for pool in status.pools
            if pool.limits
        ),
    ]
    return _listed("facts", facts, "<div><dt>{name}</dt><dd>{value}</dd></div>")


def _limits(limits: Sequence[LimitStatus]) -> str:
    return ", ".join(f"{limit.limit:,.0f} {limit.dimension}" for limit in limits)


def _share(share: float) -> str:
    """Rounded down, so that 100 % means all of it."""
    return f"{math.floor(1_000 * share + 1e-9) / 10:g} %"


def _cost(status: Status) -> str:
    if status.spent is None:
        return "unknown: no price of these models is known"
    if status.over or status.expected is None:
        return money(status.spent)
    return f"{money(status.spent)} of about {money(status.expected)}"


def _when(status: Status) -> str:
    if not status.submitted:
        return "No calls yet."
    begun, now = time.localtime(status.at - status.elapsed), time.localtime(status.at)
    same = begun[:3] == now[:3]
    until = time.strftime("%H:%M:%S" if same else "%d %B %Y %H:%M:%S", now)
    begin = time.strftime("%d %B %Y %H:%M:%S", begun)
    open_ = "" if status.over else f"; {status.submitted - status.done:,} calls are still open"
    return f"{begin} to {until} {time.strftime('%Z', now)}{open_}"
