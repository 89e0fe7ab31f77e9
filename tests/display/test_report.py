"""The report and its pictures: one page that needs nothing else, right for empty, short, constant and huge runs."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from ratelimited_llm.books.status import ErrorStatus, History, LimitStatus, ModelStatus, Moment, PoolStatus, Status
from ratelimited_llm.display import charts
from ratelimited_llm.display.charts import Frame, Line
from ratelimited_llm.display.report import report, share_used

EMPTY = Status(0.0, 0.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, None, None, 0.0, None, None)
RUN = replace(
    EMPTY, at=1_790_000_000.0, elapsed=120.0, total=200, submitted=200, answered=150, replayed=40, failed=10, refused=3,
    retries=2, perhaps_paid=1, input_tokens=4_000, output_tokens=900, spent=0.12, expected=0.12, latency=0.9,
    latency_p95=2.0,
    pools=(PoolStatus("api.openai.com", "m", 0, 0, 60, 2_000, (LimitStatus("rpm", 60, 100, 40, 60),)),),
    models=(ModelStatus("m", 150, 10, 4_000, 900, 0.12, 0.9),),
    errors=(ErrorStatus("BadRequestError 400", 10),),
)  # fmt: skip
MOMENTS = tuple(
    Moment(2.0 * i, 2, 2, int(i > 55), int(i in (20, 21)), 40, max(0, 100 - 2 * i), 3, None if i == 30 else 0.9)
    for i in range(60)
)
HISTORY = History(2.0, MOMENTS, tuple(0.2 + i / 100 for i in range(150)), ((0.0, "rpm", 100.0), (0.5, "tpm", 9_000.0)))


def svgs(page):
    """Every picture of a page, parsed as XML: broken ones raise."""
    return [ET.fromstring(text) for text in re.findall(r"</figcaption>(<svg.*?)(?=<p>|</figure>)", page)]


def numbers(page):
    """The coordinates of all shapes."""
    return [
        float(n)
        for text in re.findall(r'(?: d|points|[xy][12]?|width|height)="([^"]*)"', page)
        for n in re.findall(r"-?\d+\.?\d*", text)
    ]


def test_the_page_needs_nothing_else():
    """No address, no script, no font, no import: whoever opens it sees it, wherever."""
    page = report(RUN, HISTORY, title="run")
    assert not re.search(r"https?:|//|<script|<link|@import|@font-face|url\(|<img", page)
    assert page.startswith("<!doctype html>")
    assert "prefers-color-scheme:dark" in page
    assert len(page) < 100_000


def test_the_page_has_the_facts_of_the_run():
    """Answered, failed, 429s, cost, share of the limit, perhaps paid, the errors and the models."""
    page = report(RUN, HISTORY, title="run")
    for fact in ("190", "of 200 answered", "BadRequestError 400", "$0.12", "perhaps paid twice", "limit 100", "p95"):
        assert fact in page


def test_pictures_can_be_read_aloud_and_tables_have_headings():
    """Each picture is an image with a title that says what it shows; every table names its columns and rows."""
    page = report(RUN, HISTORY, title="run")
    pictures_ = re.findall(r'<svg class="picture" role="img" aria-label="([^"]+)" [^>]*><title>([^<]+)', page)
    assert len(pictures_) == 7
    assert all(label == title for label, title in pictures_)
    assert page.count("<table") == page.count("<caption>") == page.count("<thead>") == 2
    assert 'scope="col"' in page
    assert 'scope="row"' in page


def test_every_text_from_outside_is_escaped():
    """Titles, models and errors cannot become markup."""
    evil = '<script>"&'
    status = replace(RUN, models=(replace(RUN.models[0], model=evil),), errors=(ErrorStatus(evil, 1),))
    page = report(status, replace(HISTORY, limits=((0.0, "rpm", 5.0),)), title=evil)
    assert "<script>" not in page
    assert page.count("&lt;script&gt;") == 4


@pytest.mark.parametrize(
    ("status", "history"),
    [
        (EMPTY, History(1.0)),
        (RUN, History(1.0)),
        (replace(RUN, refused=0, failed=0, errors=()), History(1.0, MOMENTS[:1], (0.5,))),
        (RUN, History(0.0, (Moment(0.0),), (0.0,))),
        (
            RUN,
            History(
                3_600.0, tuple(Moment(3_600.0 * i, 10**9, 10**9, 0, 10**6, 10**12) for i in range(300)), (1e6,) * 1_000
            ),
        ),
        (RUN, History(0.001, (Moment(0.0, 1, 1, 1, 1, 1, 1, 1, 1e-6),), (1e-6, 1e-6), ((0.0, "rpm", 1e12),))),
    ],
)
def test_odd_runs_have_a_page_too(status, history):
    """Nothing at all, a single moment, no time, years, huge and tiny numbers: pictures stay XML with finite numbers."""
    page = report(status, history, title="run")
    svgs(page)
    assert "nan" not in page.lower().replace("fin", "")
    assert "inf" not in re.sub(r"[a-z]*inf[a-z]+", "", page.lower())
    assert all(abs(n) <= 1_001 for n in numbers(page))


def test_the_share_of_the_limit_counts_a_full_bucket_and_its_refill_while_calls_waited():
    """100 waiting until second 100: 2 a slice of 2 s are 100 of what 100 + 100 x 100/60 allowed; tpm less."""
    dimension, share = share_used(HISTORY)
    assert dimension == "rpm"
    assert share == pytest.approx(100 / (100 + 100 * 100 / 60))
    assert share_used(History(1.0, (Moment(0.0, 5),))) is None


@pytest.mark.parametrize("high", [1e-9, 0.3, 1, 7, 99, 500, 1e6, 987_654_321.0])
def test_ticks_are_few_round_and_reach_the_highest_value(high):
    """From 0, equal steps of 1, 2 or 5 times a power of ten, the last at or just above the highest value."""
    ticks = charts.ticks(high)
    step = ticks[1]
    assert 2 <= len(ticks) <= 6
    assert ticks[0] == 0
    assert ticks[-2] < high * (1 + 1e-9)
    assert ticks[-1] >= high * (1 - 1e-9)
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9)) in (1, 2, 5)


@pytest.mark.parametrize("end", [0, 0.004, 0.7, 9, 61, 185, 4_000, 86_400, 1e7, 1e10])
def test_moments_on_the_axis_are_few_and_say_their_unit(end):
    """At most six labels, all different."""
    moments = charts.time_ticks(end)
    labels = [charts.seconds(moment) for moment in moments]
    assert len(labels) <= 6
    assert len(set(labels)) == len(labels)


def test_a_gap_divides_a_line_and_a_lonely_point_is_a_dot():
    """None breaks the line; a point without neighbours is drawn as one."""
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, None), (3.0, 1.0), (4.0, None), (5.0, 3.0), (6.0, 3.0)]
    picture = charts.lines(Frame("t", 6.0), [Line(points)])
    assert picture.count("<circle") == 1
    assert re.search(r' d="(M[^M]*M[^M]*)"', picture)


def test_a_distribution_counts_every_value_once():
    """The columns' counts add up, with the smallest and the largest value among them."""
    values = sorted([0.0, 0.1, 0.1, 0.5, 1.0, 1.0, *(i / 50 for i in range(50))])
    picture = charts.distribution(Frame("t", 1.0), values, [("p50", 0.5)])
    assert sum(int(n) for n in re.findall(r"<title>(\d+) from", picture)) == len(values)


def test_quantiles_are_values_that_occurred():
    """The smallest value that the share of all stays at or below."""
    assert charts.quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert charts.quantile([1.0], 0.95) == 1.0
    assert charts.quantile([float(n) for n in range(1, 101)], 0.95) == 95.0


def test_a_page_is_text_that_a_notebook_shows_as_a_page():
    """As the last expression of a cell it is the page itself; nobody is shown 30 kB of its source."""
    made = report(RUN, HISTORY, title='"run" & co')
    assert made.startswith("<!doctype html>")
    assert len(repr(made)) < 100
    (frame,) = ET.fromstring(f"<div>{made._repr_html_()}</div>")
    assert re.sub(r"\s+", " ", frame.get("srcdoc")) == re.sub(r"\s+", " ", made)
