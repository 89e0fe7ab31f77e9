"""The example notebooks run from top to bottom in a real kernel, against the simulator, without a key."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ratelimited_llm.simulator import Simulator

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
for needed in ("ipykernel", "pandas"):
    pytest.importorskip(needed)

EXAMPLES = Path(__file__).parents[1] / "examples"
ROWS = 300  # of its 2,000, which would take half a minute of CPU


def text_of(notebook, cell):
    """What a cell has shown, as text."""
    shown = next(one for one in notebook.cells if one.id == cell)["outputs"]
    return "\n".join(
        out.get("text") or out.get("data", {}).get("text/plain") or f"{out.get('ename')}: {out.get('evalue')}"
        for out in shown
    )


def html_of(notebook, cell):
    """What a cell has shown, as HTML."""
    shown = next(one for one in notebook.cells if one.id == cell)["outputs"]
    return "\n".join(out.get("data", {}).get("text/html", "") for out in shown)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """The notebook after its run: (notebook, the folder it ran in, what the provider counted)."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "notebooks").mkdir()
    shutil.copy(EXAMPLES / "prompts.jsonl", folder)
    text = (EXAMPLES / "notebooks" / "reviews.ipynb").read_text(encoding="utf-8")
    assert "ROWS = 2_000" in text
    notebook = nbformat.reads(text.replace("ROWS = 2_000", f"ROWS = {ROWS}"), as_version=4)
    # Its minute lasts two seconds. Until the notebook has looked at what is open after its interrupt, the rows are a
    # hundred seconds' worth, so that the interrupt comes in the middle wherever this runs; then they are four.
    with Simulator("openai", rpm=6, tpm=10_000_000, period=2.0, latency=0.02) as provider:

        def after(cell, **_):
            if cell.id == "open":
                provider.change(rpm=150)

        runner = nbclient.NotebookClient(
            notebook, timeout=40, kernel_name="python3", on_cell_executed=after,
            resources={"metadata": {"path": str(folder / "notebooks")}},
        )  # fmt: skip
        runner.execute(env={**os.environ, **provider.env()})
        counted = provider.counters
    return notebook, folder / "notebooks", counted


pytestmark = [
    pytest.mark.timeout(90),
    # Of the kernel's own packages, on some versions of Python.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning:zmq"),
]


def test_asking_shows_a_panel_and_the_table_waits_for_nothing(reviews):
    """The client is a panel that says how to cancel or that it ended; the table has futures in it that still wait."""
    notebook, _, _ = reviews
    assert f"of {ROWS}" in html_of(notebook, "ask")
    assert "<ResponseFuture" in text_of(notebook, "look")
    assert "OpenAI" in html_of(notebook, "ask")


def test_the_interrupt_ends_the_wait_and_the_queue_goes_on(reviews):
    """The cell ends with KeyboardInterrupt and says what is still queued; calls were open after it."""
    notebook, _, _ = reviews
    shown = text_of(notebook, "stop")
    assert "KeyboardInterrupt" in shown
    assert "stopped waiting" in shown
    assert "0 queued" not in text_of(notebook, "open").split(", ")


def test_the_second_run_sends_only_what_was_not_answered(reviews):
    """What the journal had was replayed, everything has an answer, and the report is there."""
    notebook, folder, counted = reviews
    replayed, asked = (
        int(part.split()[0].strip("'")) for part in text_of(notebook, "restart").splitlines()[-1].split(", ")
    )
    assert replayed + asked == ROWS
    assert replayed > 0
    assert counted.refused == 0
    assert "None" not in text_of(notebook, "column")
    assert "<svg" in (folder / "reviews.html").read_text(encoding="utf-8")
    with closing(sqlite3.connect(folder / "reviews.db")) as journal:
        assert journal.execute("pragma integrity_check").fetchone() == ("ok",)


def test_notebooks_are_kept_without_outputs():
    """What is in the repository shows nobody's run."""
    for path in (EXAMPLES / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path.name
