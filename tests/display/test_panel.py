"""The panel: the numbers of the progress line, in HTML that any theme and any sanitizer lets through."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from ratelimited_llm.books.status import ErrorStatus, LimitStatus, ModelStatus, PoolStatus, Status
from ratelimited_llm.display.line import line
from ratelimited_llm.display.panel import panel

POOL = PoolStatus(
    "api.openai.com", "gpt-4.1-mini", 787, 9, 488, 171_000,
    (LimitStatus("rpm", 488, 500, 12, 60, True), LimitStatus("tpm", 171_000, 200_000, 29_000, 60)), eta=98.0,
)  # fmt: skip
RUN = Status(
    1_790_000_000.0, 120.0, 2_000, 2_000, 1_000, 204, 0, 0, 787, 9, 3, 1, 0, 400_000, 90_000, 0.09, 0.15, 98.0, 0.9,
    2.0, (POOL,),
)  # fmt: skip
OVER = replace(RUN, answered=1_796, queued=0, in_flight=0, eta=0.0)
EMPTY = Status(0.0, 0.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, None, None, 0.0, None, None)
VOID = {"br", "hr", "img", "meta"}


class Balanced(HTMLParser):
    """Checks that every tag is closed in its order, and keeps tags, styles and text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.styles, self.words = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.styles.append(dict(attributes).get("style", ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def shown(status, closing=None, name="OpenAI"):
    return Balanced(panel(status, name=name, closing=closing)[0])


def test_it_says_what_the_progress_line_says():
    """Done and whole, limits, in flight, 429s, cost and time left; and how to cancel."""
    text = shown(RUN).text
    for part in (
        "OpenAI", "1,204 of 2,000", "60%", "9 in flight", "787 queued", "3 × 429", "1 retry", "204 reused", "$0.09",
        "of about $0.15", "1:38 left", "488 / 500", "171k / 200k", "cancel: client.cancel()",
    ):  # fmt: skip
        assert part in text


def test_the_binding_limit_is_marked_and_no_other():
    """`binds` stands once, behind the numbers of the limit that the calls wait for."""
    assert re.findall(r"\S+ / \S+ binds", shown(RUN).text) == ["488 / 500 binds"]


def test_the_text_twin_is_the_line_and_the_closing():
    """Where no HTML is shown it is the progress line."""
    assert panel(RUN, name="OpenAI", closing=None)[1] == line(RUN)
    assert panel(OVER, name="OpenAI", closing="finished")[1] == f"{line(OVER)}\nfinished"


def test_a_panel_that_is_over_has_no_hint_and_no_time_left():
    """The last state says when it ended, not how to cancel."""
    text = shown(OVER, closing="finished at 14:02:11").text
    assert "finished at 14:02:11" in text
    assert "cancel" not in text
    assert "left" not in text
    assert "$0.09 spent" in text


def test_every_text_from_outside_is_escaped():
    """Names of hosts, models, errors and clients cannot become markup."""
    evil = "<script>alert(1)</script>"
    pools = (replace(POOL, provider=evil, family=evil, limits=(LimitStatus(evil, 1, 2, 1, 60),)), POOL)
    models = (ModelStatus(evil, 1, 0, 1, 1, None, None), ModelStatus("m", 1, 0, 1, 1, 0.1, 0.2))
    status = replace(RUN, pools=pools, models=models, errors=(ErrorStatus(evil, 1),))
    seen = shown(status, closing=evil, name=evil)
    assert "script" not in seen.tags
    assert seen.text.count(evil) == 7


def test_its_styles_survive_a_notebook_that_is_not_trusted():
    """Inline styles of the properties that JupyterLab's sanitizer keeps; no colour, class, flex or grid."""
    status = replace(RUN, models=(ModelStatus("a", 1, 0, 1, 1, None, 0.5),) * 2, errors=(ErrorStatus("E", 1),))
    html, _ = panel(status, name="OpenAI", closing=None)
    names = {rule.partition(":")[0] for style in Balanced(html).styles for rule in style.split(";") if rule}
    assert names <= {
        "background", "border", "border-collapse", "border-top", "display", "float", "font-size", "font-weight",
        "line-height", "margin", "margin-left", "margin-right", "margin-top", "max-width", "opacity", "overflow-wrap",
        "overflow-x", "padding", "text-align", "vertical-align", "white-space", "width",
    }  # fmt: skip
    assert not re.search(r"#[0-9a-f]{3}|rgb|class=|flex|grid", html)


@pytest.mark.parametrize(
    "status",
    [
        EMPTY,
        replace(EMPTY, pools=(replace(POOL, limits=()),), queued=1, submitted=1, total=1),
        replace(RUN, total=10**12, submitted=10**12, queued=10**12, pools=(replace(POOL, paused=12.0),) * 30),
        replace(
            RUN, pools=(replace(POOL, limits=(LimitStatus("rpm", 990, 500, -5, 60), LimitStatus("x", 1, 0, 0, 60))),)
        ),
        replace(RUN, total=0, submitted=1, answered=5),
        replace(RUN, errors=(ErrorStatus("x" * 10_000, 1),) * 50, eta=None, expected=None),
    ],
)
def test_odd_runs_are_shown_too(status):
    """Empty, huge, over the limit, with figures that do not fit: well-formed, and no bar wider than its place."""
    html, text = panel(status, name="OpenAI", closing=None)
    seen = Balanced(html)
    assert len(html) < 40_000
    assert text
    widths = [float(width) for style in seen.styles for width in re.findall(r"width:([\d.]+)%", style)]
    assert all(0 <= width <= 100 for width in widths)
