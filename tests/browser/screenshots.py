"""Pictures of the report and of the notebook's displays in a real browser, for a person to look at.

Run by hand, like the benchmarks: `python tests/browser/screenshots.py FOLDER [report] [lab]`. It needs `playwright` and
`jupyterlab` from PyPI, and a Chromium (Debian's `chromium`; `CHROMIUM=` says where, /usr/bin/chromium by default). It
talks to the loopback address only.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from ratelimited_llm.books.status import ErrorStatus, History, LimitStatus, ModelStatus, Moment, PoolStatus, Status
from ratelimited_llm.display.report import report
from ratelimited_llm.simulator import Simulator

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), headless=True, args=list(FLAGS)
        )
        yield chromium
        chromium.close()


# -- the report -------------------------------------------------------------------------------------------------------


def a_run() -> tuple[Status, History]:
    """A run of two thousand calls at 500 rpm, with a disturbance in the middle; every figure is made up."""
    chance = random.Random(7)
    width, moments, left, bucket = 2.5, [], 2_000, 500.0
    for index in range(80):
        refused = chance.choice((2, 3, 5)) if 31 <= index <= 33 else 0
        bucket = min(500.0, bucket + 500 / 60 * width)
        most = 0 if 32 <= index <= 36 else 120 if index < 4 else 1_000
        sent = min(left, int(bucket), most)
        bucket -= sent
        left -= sent
        latency = 0.9 + 0.3 * math.sin(index / 9) + chance.uniform(-0.1, 0.25) + (2.2 if 33 <= index <= 38 else 0)
        moments.append(
            Moment(
                index * width, sent, max(0, sent - refused), 1 if 36 <= index < 40 else 0, refused, sent * 310, left,
                min(40, sent + 6) if left else chance.randint(0, 5), latency if sent else None,
            )
        )  # fmt: skip
        if not left and index % 2:
            break
    latencies = tuple(sorted(chance.lognormvariate(0, 0.4) for _ in range(1_000)))
    limits = ((0.4, "rpm", 500.0), (0.4, "tpm", 200_000.0))
    pool = PoolStatus(
        "api.openai.com", "gpt-4.1-mini", 0, 0, 480, 148_800,
        (LimitStatus("rpm", 488, 500, 12, 60, True), LimitStatus("tpm", 148_800, 200_000, 51_200, 60)),
    )  # fmt: skip
    models = (
        ModelStatus("gpt-4.1-mini", 1_612, 4, 412_330, 88_100, 0.31, 0.94),
        ModelStatus("gpt-4.1", 384, 0, 98_004, 21_870, 0.37, 1.42),
        ModelStatus("ft:gpt-4.1-nano:acme:reviews:9aZ", 240, 0, 12_000, 1_400, None, 0.41),
    )
    errors = (ErrorStatus("BadRequestError 400 (context_length_exceeded)", 3), ErrorStatus("APITimeoutError", 1))
    elapsed = width * len(moments)
    status = Status(
        time.time(), elapsed, 3_240, 3_240, 1_996, 1_240, 4, 0, 0, 0, sum(m.refused for m in moments), 7, 2,
        522_334, 111_370, 0.68, 0.68, 0.0, 0.94, 2.1, (pool,), models, errors,
    )  # fmt: skip
    return status, History(width, tuple(moments), latencies, limits)


def shoot_report(chromium: Browser, folder: Path) -> None:
    page_file = folder / "report.html"
    page_file.write_text(report(*a_run(), title="reviews.jsonl"), encoding="utf-8")
    looks = {"light": ("light", 1_280), "dark": ("dark", 1_280), "wide": ("light", 1_400), "narrow": ("light", 360)}
    for name, (scheme, width) in looks.items():
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.goto(page_file.as_uri())
        sideways = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        page.screenshot(path=folder / f"report-{name}.png", full_page=True)
        print(f"report-{name}.png{'   SCROLLS SIDEWAYS' if sideways else ''}")
        page.close()


# -- JupyterLab -------------------------------------------------------------------------------------------------------

# The third one shows a pending future.
CELLS = [
    """from ratelimited_llm import OpenAI
client = OpenAI(max_retries=1)
def ask(text, model="gpt-4.1-mini"):
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}])""",
    """answers = [ask(f"Is review {n} positive?", "gpt-4.1-mini" if n % 3 else "gpt-4.1") for n in range(400)]
client""",
    """ask("Why does bread go stale faster in the fridge than on the counter?")""",
    """import time
client.wait()""",
]


@contextmanager
def lab(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """A JupyterLab of its own, with nothing of the user's; answers its address."""
    home = folder / "home"
    settle(folder, "JupyterLab Light")
    command = [
        sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser", "--ip=127.0.0.1", "--port=0",
        f"--ServerApp.root_dir={folder}", "--LabApp.news_url=", "--LabApp.extension_manager=readonly",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment, "HOME": str(home), **{name: str(home / name) for name in names},
             "JUPYTERLAB_SETTINGS_DIR": str(home / "settings")},
    )  # fmt: skip
    try:
        assert server.stderr is not None
        for line in server.stderr:
            found = re.search(r"(http://127\.0\.0\.1:\d+)/lab\?token=(\w+)", line)
            if found:
                yield f"{found[1]}/lab/tree/run.ipynb?reset&token={found[2]}"
                return
        raise RuntimeError("JupyterLab did not start")
    finally:
        server.terminate()
        assert server.stderr is not None
        server.stderr.close()
        server.wait()


def settle(folder: Path, theme: str) -> None:
    """A front end of this theme that asks nobody for news."""
    settings = folder / "home" / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "themes.jupyterlab-settings").write_text(json.dumps({"theme": theme}), encoding="utf-8")
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}', encoding="utf-8")


def notebook() -> dict[str, Any]:
    cells = [
        {"cell_type": "code", "id": f"cell{n}", "metadata": {}, "source": text, "outputs": [], "execution_count": None}
        for n, text in enumerate(CELLS)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def open_notebook(chromium: Browser, address: str, scheme: str = "light") -> Page:
    page = chromium.new_page(viewport={"width": 1_000, "height": 1_000}, color_scheme=scheme)
    page.goto(address)
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    return page


def shoot_lab(chromium: Browser, folder: Path) -> None:
    with (
        Simulator("openai", rpm=600, tpm=2_000_000, period=10.0, latency=(0.5, 1.5), seed=3) as provider,
        tempfile.TemporaryDirectory() as scratch,
    ):
        (Path(scratch) / "run.ipynb").write_text(json.dumps(notebook()), encoding="utf-8")
        with lab(Path(scratch), provider.env()) as address:
            page = open_notebook(chromium, address)
            page.wait_for_timeout(4_000)
            page.locator(".jp-CodeCell").first.click()
            for _ in CELLS:
                page.keyboard.press("Shift+Enter")
                page.wait_for_timeout(300)
            page.wait_for_selector("text=left", timeout=60_000)  # the first panel
            for name, pause in (("live-1", 500), ("live-2", 2_500), ("finished", 12_000)):
                page.wait_for_timeout(pause)
                page.screenshot(path=folder / f"lab-{name}.png")
            page.keyboard.press("Control+s")
            page.wait_for_timeout(2_000)
            page.close()
            settle(Path(scratch), "JupyterLab Dark")
            page = open_notebook(chromium, address)
            page.wait_for_timeout(3_000)
            page.screenshot(path=folder / "lab-reopened.png")
            page.close()
            # As somebody who got the file sees it: not trusted, so the front end cleans the HTML.
            stranger = Path(scratch) / "run.ipynb"
            saved = stranger.read_text(encoding="utf-8").replace("Is review", "Is  review")
            (Path(scratch) / "sent.ipynb").write_text(saved, encoding="utf-8")
            page = open_notebook(chromium, address.replace("run.ipynb", "sent.ipynb"))
            page.wait_for_timeout(3_000)
            page.screenshot(path=folder / "lab-untrusted.png")
            page.close()
    print("lab-live-1.png lab-live-2.png lab-finished.png lab-reopened.png lab-untrusted.png")


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    wanted = sys.argv[2:] or ["report", "lab"]
    with browser() as chromium:
        if "report" in wanted:
            shoot_report(chromium, folder)
        if "lab" in wanted:
            shoot_lab(chromium, folder)


if __name__ == "__main__":
    main()
