"""Charts as SVG text: numbers in, one `<svg>` out, without a library, a script or a font.

The width is the page's and the text stays as large as it is: everything that carries words is placed in per cent, and
only the shapes are stretched. Labels of the vertical axis stand left of the picture, in the margin that the page's
style sheet gives to `.picture`; the colours are its too (classes area, curve, limit, mark, bar, grid, tick).

Numbers are finite; every text is escaped here.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from .number_text import amount

__all__ = [
    "Frame", "Line", "columns", "distribution", "lines", "quantile", "seconds", "step_line", "ticks", "time_ticks",
]  # fmt: skip

HEIGHT = 168  # pixels of a picture
TOP, BOTTOM = 14, 24  # of these, above the highest line and below the axis
WIDE = 1000  # units that the shapes are drawn in, whatever their width on the screen
MOST_BINS = 40

_ROUND_TIMES = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600,
    7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800,
)  # fmt: skip

Points = Sequence[tuple[float, "float | None"]]


@dataclass(frozen=True)
class Frame:
    """What all pictures have: how far they go and what they say.

    Attributes:
        title: read aloud in place of the picture, and shown when the pointer rests on it.
        end: what the right edge stands for; the left one is 0.
        across: writes the ticks of the horizontal axis.
        up: writes those of the vertical one.
        whole: the vertical axis counts things, so it has no ticks between 0 and 1.
    """

    title: str
    end: float
    across: Callable[[float], str] = lambda value: seconds(value)
    up: Callable[[float], str] = amount
    whole: bool = True


@dataclass(frozen=True)
class Line:
    """One line over the run: (x, y) ascending, y None where there is nothing; `css` is "curve", "area" or "limit"."""

    points: Points
    css: str = "curve"
    label: str = ""


# -- scales -----------------------------------------------------------------------------------------------------------


def ticks(high: float, most: int = 4, whole: bool = False) -> list[float]:
    """Round numbers from 0 to the first at or above `high`, about `most` steps of 1, 2 or 5 times a power of ten."""
    if not high > 0:
        return [0.0, 1.0]
    rough = high / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    if whole:
        step = max(1.0, step)
    return [step * index for index in range(math.ceil(high / step - 1e-9) + 1)]


def time_ticks(end: float, most: int = 5) -> list[float]:
    """Round moments from 0 to `end` seconds, at most `most` steps."""
    if not end > 0:
        return [0.0]
    step = next((step for step in _ROUND_TIMES if end / step <= most), None)
    if step is None:
        step = _ROUND_TIMES[-1] * math.ceil(end / most / _ROUND_TIMES[-1])
    return [step * index for index in range(math.floor(end / step + 1e-9) + 1)]


def seconds(value: float) -> str:
    """Write a round number of seconds with its unit: "0", "20 ms", "1.5 s", "2 min", "1 h", "1 h 30", "2 d"."""
    if value <= 0:
        return "0"
    if value < 0.9995:
        return f"{value * 1000:.3g} ms"
    if value < 59.95:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min" if not rest else f"{minutes}:{rest:02d} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h" if not minutes else f"{hours} h {minutes:02d}"
    return f"{hours / 24:.3g} d"


def quantile(ascending: Sequence[float], share: float) -> float:
    """The value that `share` of an ascending, non-empty list stays at or below."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def step_line(changes: Iterable[tuple[float, float]], end: float) -> Points:
    """A line that keeps each value of (x, y) until the next one, and the last to the end; the first from 0 on."""
    points: list[tuple[float, float | None]] = []
    for at, value in changes:
        if points:
            points.append((min(at, end), points[-1][1]))
        points.append((min(at, end) if points else 0.0, value))
    return [*points, (end, points[-1][1])] if points else []


# -- pictures ---------------------------------------------------------------------------------------------------------


def lines(frame: Frame, drawn: Sequence[Line], marks: Sequence[tuple[float, str]] = ()) -> str:
    """Lines over the run, with marks (x, what is said of it) on the horizontal axis."""
    values = [y for line in drawn for _, y in line.points if y is not None]
    scale = _Scale(frame, max(values, default=0.0))
    shapes = "".join(_shape(line, scale) for line in drawn)
    dots = "".join(_lonely(line, scale) for line in drawn)
    labels = "".join(_label(line, scale) for line in drawn if line.label)
    signs = "".join(_mark(scale, at, text) for at, text in marks)
    return _picture(scale, _stretched(shapes) + dots + labels + signs)


def columns(frame: Frame, width: float, stacks: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> str:
    """Columns over the run, on top of each other: (css, [(x of the left edge, y)]), each `width` wide."""
    heights: dict[float, float] = {}
    for _, bars in stacks:
        for at, count in bars:
            heights[at] = heights.get(at, 0.0) + count
    scale = _Scale(frame, max(heights.values(), default=0.0))
    feet: dict[float, float] = {}
    drawn = []
    for css, bars in stacks:
        for at, count in bars:
            if count:
                foot = feet.get(at, 0.0)
                feet[at] = foot + count
                drawn.append(_bar(scale, css, (at, at + width), (foot, foot + count), f"{count:,.0f} at {seconds(at)}"))
    return _picture(scale, "".join(drawn))


def distribution(frame: Frame, ascending: Sequence[float], named: Sequence[tuple[str, float]]) -> str:
    """How often which value came: columns of equal width from 0 to `frame.end`, and lines at the named values."""
    bins = max(1, min(MOST_BINS, 2 * math.isqrt(len(ascending)) or 1))
    width = frame.end / bins
    edges = [bisect_right(ascending, width * index) for index in range(1, bins)]
    counts = [after - before for before, after in zip([0, *edges], [*edges, len(ascending)], strict=True)]
    scale = _Scale(frame, max(counts, default=0))
    drawn = [
        _bar(scale, "bar", (index * width, (index + 1) * width), (0.0, count), _between(frame, index, width, count))
        for index, count in enumerate(counts)
        if count
    ]
    drawn += [_upright(scale, name, value, row) for row, (name, value) in enumerate(named)]
    return _picture(scale, "".join(drawn))


def _between(frame: Frame, index: int, width: float, count: int) -> str:
    return f"{count:,} from {frame.across(index * width)} to {frame.across((index + 1) * width)}"


# -- parts ------------------------------------------------------------------------------------------------------------


class _Scale:
    """Turns values into per cent of the width and pixels of the height."""

    def __init__(self, frame: Frame, highest: float) -> None:
        self.frame = frame
        self.end = frame.end if frame.end > 0 else 1.0
        self.ticks = ticks(highest, whole=frame.whole)
        self.high = self.ticks[-1]

    def x(self, value: float) -> float:
        return 100 * min(1.0, max(0.0, value / self.end))

    def y(self, value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / self.high)


def _picture(scale: _Scale, body: str) -> str:
    title = escape(scale.frame.title)
    return (
        f'<svg class="picture" role="img" aria-label="{title}" width="100%" height="{HEIGHT}">'
        f"<title>{title}</title>{_grid(scale)}{body}</svg>"
    )


def _grid(scale: _Scale) -> str:
    parts = []
    for value in scale.ticks:
        y = _n(scale.y(value))
        css = "grid" if value else "axis"
        parts.append(f'<line class="{css}" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="-8" y="{y}" dy="0.32em" text-anchor="end">{_text(scale, value)}</text>')
    moments = time_ticks(scale.end)
    for value in moments:
        x = scale.x(value)
        anchor = "start" if value == 0 else "end" if x > 94 else "middle"
        label = escape(scale.frame.across(value))
        parts.append(
            f'<line class="axis" x1="{_n(x)}%" x2="{_n(x)}%" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 4}"/>'
            f'<text class="tick" x="{_n(x)}%" y="{HEIGHT - 6}" text-anchor="{anchor}">{label}</text>'
        )
    return "".join(parts)


def _text(scale: _Scale, value: float) -> str:
    return escape(scale.frame.up(value)) if value else "0"


def _stretched(shapes: str) -> str:
    return (
        f'<svg width="100%" height="{HEIGHT}" viewBox="0 0 {WIDE} {HEIGHT}" preserveAspectRatio="none"'
        f' overflow="visible" aria-hidden="true">{shapes}</svg>'
    )


def _runs(points: Points) -> list[list[tuple[float, float]]]:
    """The pieces of a line between the points where it has nothing."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]


def _shape(line: Line, scale: _Scale) -> str:
    drawn, below = [], []
    for run in _runs(line.points):
        if len(run) > 1:
            places = [f"{_n(scale.x(x) * WIDE / 100)} {_n(scale.y(y))}" for x, y in run]
            drawn.append("M" + "L".join(places))
            first, last = (_n(scale.x(run[end][0]) * WIDE / 100) for end in (0, -1))
            below.append(f"{drawn[-1]}L{last} {HEIGHT - BOTTOM}L{first} {HEIGHT - BOTTOM}Z")
    if not drawn:
        return ""
    path = f'<path class="{"limit" if line.css == "limit" else "curve"}" d="{"".join(drawn)}"/>'
    return f'<path class="area" d="{"".join(below)}"/>{path}' if line.css == "area" else path


def _lonely(line: Line, scale: _Scale) -> str:
    """A point without neighbours, which a line would not show."""
    return "".join(
        f'<circle class="dot" cx="{_n(scale.x(run[0][0]))}%" cy="{_n(scale.y(run[0][1]))}" r="2.5"/>'
        for run in _runs(line.points)
        if len(run) == 1
    )


def _label(line: Line, scale: _Scale) -> str:
    """The words of a line, above its end; below, where they would stand in the picture's edge."""
    last = next((y for _, y in reversed(line.points) if y is not None), None)
    if last is None:
        return ""
    y = scale.y(last)
    y = y - 5 if y - 5 > 10 else y + 14
    return f'<text class="label" x="100%" y="{_n(y)}" text-anchor="end">{escape(line.label)}</text>'


def _mark(scale: _Scale, at: float, text: str) -> str:
    x, y = _n(scale.x(at)), HEIGHT - BOTTOM
    return f'<line class="mark" x1="{x}%" x2="{x}%" y1="{y - 9}" y2="{y}"><title>{escape(text)}</title></line>'


def _bar(scale: _Scale, css: str, across: tuple[float, float], up: tuple[float, float], said: str) -> str:
    left, right = scale.x(across[0]), scale.x(across[1])
    bottom, top = scale.y(up[0]), scale.y(up[1])
    wide = max(0.15, (right - left) * 0.92)  # a hair of space between neighbours
    return (
        f'<rect class="{css}" x="{_n(left)}%" width="{_n(wide)}%" y="{_n(top)}" height="{_n(bottom - top)}">'
        f"<title>{escape(said)}</title></rect>"
    )


def _upright(scale: _Scale, name: str, value: float, row: int) -> str:
    """A line across the columns, and its words beside it: rows below each other, so that near ones can be read."""
    x, y = scale.x(value), TOP - 4 + 15 * row
    anchor, dx = ("end", -5) if x > 70 else ("start", 5)
    return (
        f'<line class="limit" x1="{_n(x)}%" x2="{_n(x)}%" y1="{y - 8}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="label" x="{_n(x)}%" dx="{dx}" y="{y + 2}" text-anchor="{anchor}">{escape(name)}</text>'
    )


def _n(value: float) -> str:
    """A coordinate: a hundredth is less than anybody sees."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
