"""Pictures of the gateway's dashboard in a real browser, for a person to look at, and what only that can tell.

Run by hand: `python tests/browser/dashboard.py FOLDER`. It needs `playwright` and `uvicorn` from PyPI, and a Chromium
(`CHROMIUM=` says where, /usr/bin/chromium by default). The figures are made up; it talks to the loopback address only.
"""

from __future__ import annotations

import math
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from ratelimited_llm.books.fleet import fleet
from ratelimited_llm.core.booking import Shared
from ratelimited_llm.gateway import dashboard
from ratelimited_llm.stores.shared_store import Control, Member, PoolFacts

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
HOSTILE = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>'
LOOKS = {
    "light": ("light", 1_280), "dark": ("dark", 1_280), "narrow": ("light", 400), "wide": ("light", 1_600),
    "narrow-dark": ("dark", 400),
}  # fmt: skip


class Made:
    """Figures of a busy gateway, made up; `scene` is "busy", "quiet", "paused", "ill" or "locked"."""

    def __init__(self) -> None:
        self.scene = "busy"
        self.orders: list[tuple[str, str]] = []
        self.refused_at = 0.0

    def told(self) -> dict[str, Any]:
        if self.scene == "quiet":
            return {**QUIET, "at": time.time()}
        told = busy(time.time())
        if self.scene == "paused":
            told["state"] = "paused"
            told["health"] = {"status": "degraded", "score": 60, "reasons": ["paused by an operator"]}
        if self.scene == "ill":
            reasons = [
                "412 of 1,020 calls failed", "the shared budget is lost: this process keeps to its own share",
                "9,890 of 10,000 places in the queue are taken",
            ]  # fmt: skip
            told["health"] = {"status": "unhealthy", "score": 12, "reasons": reasons}
            told["pools"][0]["paused"] = 14.0
            told["totals"] = {**told["totals"], "failed": 412, "refused": 5_310}
        return told


QUIET: dict[str, Any] = {
    "uptime": 4.0, "state": "running", "health": {"status": "ok", "score": 100, "reasons": []}, "queued": 0,
    "in_flight": 0, "streams": 0, "by_priority": {n: {"queued": 0, "in_flight": 0} for n in ("high", "normal", "low")},
    "by_tenant": {}, "by_upstream": {}, "pools": [], "totals": {"answered": 0, "spent": None},
    "latency": {"p50": None, "p95": None}, "queue_wait": {"p50": None, "p95": None}, "models": [], "errors": [],
    "history": [], "limits_configured": {}, "max_queue": 10_000, "budget": "memory", "budget_lost": False,
}  # fmt: skip


def busy(now: float) -> dict[str, Any]:
    chance = random.Random(int(now))
    start = now - now % 5
    history = []
    for index in range(-180, 1):
        at, wave = start + 5 * index, 1 + 0.4 * math.sin(index / 14)
        trouble = -60 < index < -48
        history.append(
            {
                "at": at, "requests": round(34 * wave) if index > -170 else 4, "answered": round(33 * wave),
                "failed": 2 if trouble and index % 3 == 0 else 0, "refused": 4 if trouble else 0,
                "rejected": 1 if index == -50 else 0, "waited": 3.0, "queued": round(700 + 300 * math.sin(index / 20)),
                "in_flight": 41 - index % 7, "p50": 0.9 + 0.1 * wave, "p95": 2.2 + 0.5 * wave + 2 * trouble,
            }
        )  # fmt: skip
    queued = 812 + round(40 * math.sin(now / 9))
    limits = [
        {"dimension": "rpm", "used": 488, "limit": 500, "remaining": 3, "period": 60, "binds": True},
        {"dimension": "tpm", "used": 148_800, "limit": 200_000, "remaining": 51_200, "period": 60, "binds": False},
    ]
    daily = [
        {"dimension": "rpm", "used": 12, "limit": 30, "remaining": 18, "period": 60, "binds": False},
        {"dimension": "rpd", "used": 9_120, "limit": 14_400, "remaining": 5_280, "period": 86_400, "binds": False},
        {"dimension": "tpm", "used": 5_400, "limit": 6_000, "remaining": 600, "period": 60, "binds": False},
    ]
    pools = [
        {"upstream": "openai", "provider": "api.openai.com", "family": "gpt-4.1-mini", "queued": queued - 3,
         "in_flight": 37, "requests_per_minute": 488.0, "tokens_per_minute": 148_800.0, "eta": 98.0, "paused": 0.0,
         "limits": limits},
        {"upstream": "groq", "provider": "api.groq.com", "family": "llama-3.3-70b-versatile", "queued": 3,
         "in_flight": 4, "requests_per_minute": 12.0, "tokens_per_minute": 5_400.0, "eta": 4.0, "paused": 0.0,
         "limits": daily},
        {"upstream": "anthropic", "provider": "api.anthropic.com", "family": HOSTILE, "queued": 0, "in_flight": 0,
         "requests_per_minute": 0.0, "tokens_per_minute": 0.0, "eta": 0.0, "paused": 0.0, "limits": []},
    ]  # fmt: skip
    models = [
        {"model": "gpt-4.1-mini", "answered": 16_120, "failed": 4, "input_tokens": 4_123_300, "output_tokens": 881_000,
         "spent": 3.06, "latency": 0.94},
        {"model": "llama-3.3-70b-versatile", "answered": 384, "failed": 0, "input_tokens": 98_004,
         "output_tokens": 21_870, "spent": 0.37, "latency": 0.42},
        {"model": HOSTILE, "answered": 0, "failed": 3, "input_tokens": 0, "output_tokens": 0, "spent": None,
         "latency": None},
    ]  # fmt: skip
    return {
        "at": now, "uptime": 273_600.0, "state": "running",
        "health": {"status": "ok", "score": 94, "reasons": ["44 of 4,120 requests were refused (429)"]},
        "queued": queued, "in_flight": 41, "streams": 9,
        "by_priority": {"high": {"queued": 0, "in_flight": 6}, "normal": {"queued": 220, "in_flight": 30},
                        "low": {"queued": queued - 220, "in_flight": 5}},
        "by_tenant": {"reviews": {"queued": queued - 260, "in_flight": 12}, "web": {"queued": 0, "in_flight": 20},
                      "": {"queued": 40, "in_flight": 4}, HOSTILE: {"queued": 220, "in_flight": 5},
                      "a-tenant-with-quite-a-long-name-indeed-0123456789": {"queued": 2, "in_flight": 0}},
        "by_upstream": {}, "pools": pools,
        "totals": {"requests": 17_004, "answered": 16_504, "replayed": 120, "failed": 7, "cancelled": 3, "refused": 44,
                   "retries": 9, "spent": 3.43},
        "latency": {"p50": 0.91 + chance.uniform(-0.1, 0.1), "p95": 2.4 + chance.uniform(-0.3, 0.3)},
        "queue_wait": {"p50": 41.0, "p95": 97.0}, "models": models,
        "errors": [{"text": "BadRequestError 400 (context_length)", "count": 4}, {"text": HOSTILE, "count": 3}],
        "history": history, "limits_configured": {}, "max_queue": 10_000, "budget": "redis", "budget_lost": False,
    }  # fmt: skip


def a_fleet() -> dict[str, Any]:
    limits = (Shared("rpm", 10_000, 120, 60), Shared("tpm", 10_000_000, 2_900_000, 60))
    facts = {"role": "worker", "in_flight": 61, "queued": 9_812, "rpm": 1_700, "wait_p50": 14.0, "wait_p95": 21.0,
             "refused": 0, "answered": 40_120, "failed": 2, "spent": 69.2}  # fmt: skip
    members = [Member(f"batch-{n}-{4711 + n}-ab12cd34", 0.4 * n, facts) for n in range(1, 6)]
    members.append(Member(HOSTILE, 0.2, {"role": HOSTILE, "queued": "many"}))
    pool = PoolFacts("api.openai.com gpt-4.1-mini", 0.0, limits)
    return fleet([pool], members, Control(3, False, {"rpm": 8_000.0})).as_json()


@contextmanager
def served(made: Made) -> Iterator[str]:
    async def figures(request: Any) -> Any:
        if made.scene == "locked" and request.headers.get("x-ratelimited-token") != "open sesame":
            return JSONResponse({"error": {"message": "no"}}, 401)
        return JSONResponse(made.told())

    async def its_fleet(request: Any) -> Any:
        return JSONResponse(a_fleet())

    async def order(request: Any) -> Any:
        made.orders.append((request.path_params["order"], (await request.body()).decode()))
        made.scene = {"pause": "paused", "resume": "busy"}.get(request.path_params["order"], made.scene)
        return JSONResponse({"cancelled": 812})

    page = next(route for route in dashboard.routes if route.path == "/dashboard")
    app = Starlette(
        routes=[page, Route("/v1/queue/stats", figures), Route("/dashboard/fleet", its_fleet),
                Route("/dashboard/{order}", order, methods=["POST"])]
    )  # fmt: skip
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/dashboard"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def opened(chromium: Browser, address: str, scheme: str, width: int) -> tuple[Page, list[str]]:
    said: list[str] = []
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    return page, said


def check(name: str, holds: bool, what: object = "") -> None:
    print(f"{'ok  ' if holds else 'FAIL'} {name}{'' if holds else f': {what}'}")


def shoot(chromium: Browser, folder: Path, address: str, made: Made) -> None:
    shots = [("busy", name) for name in LOOKS] + [("quiet", "light"), ("paused", "light"), ("ill", "dark")]
    for scene, look in shots:
        made.scene = scene
        page, said = opened(chromium, address, *LOOKS[look])
        page.wait_for_selector("#all:not([hidden])")
        page.wait_for_timeout(6_500 if look in ("light", "dark") and scene == "busy" else 600)
        page.screenshot(path=folder / f"dashboard-{scene}-{look}.png", full_page=True)
        sideways = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        check(f"dashboard-{scene}-{look}.png: nothing scrolls sideways", not sideways)
        check("  no name became markup", page.evaluate("window.hit === undefined && !document.querySelector('img')"))
        check("  the console is quiet", not said, said)
        page.close()


def use(chromium: Browser, folder: Path, address: str, made: Made) -> None:
    """With the keyboard alone."""
    made.scene = "busy"
    page, said = opened(chromium, address, "light", 1_280)
    page.wait_for_selector("#orders:not([hidden])")
    page.locator("#pause").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#resume:not([hidden])")
    check("pausing leaves the focus on its opposite", page.evaluate("document.activeElement.id") == "resume")
    page.keyboard.press("Enter")
    page.wait_for_selector("#pause:not([hidden])")
    page.locator("#cancel").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#ask[open]")
    page.screenshot(path=folder / "dashboard-ask.png")
    page.keyboard.press("Escape")
    page.wait_for_timeout(200)
    check("Escape cancels nothing", [name for name, _ in made.orders] == ["pause", "resume"], made.orders)
    page.locator("#cancel").focus()
    page.keyboard.press("Enter")
    page.locator("#whose").select_option(HOSTILE)
    page.locator("#ask .grave").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#notice:not([hidden])")
    check("a tenant's requests are cancelled", made.orders[-1][0] == "cancel" and "onerror" in made.orders[-1][1])
    check("the console is quiet", not said, said)
    page.close()


def sign_in(chromium: Browser, folder: Path, address: str, made: Made) -> None:
    made.scene = "locked"
    page, _ = opened(chromium, address, "light", 1_280)
    page.wait_for_selector("#sign:not([hidden])")
    page.screenshot(path=folder / "dashboard-locked.png")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#trouble:not([hidden])")
    page.keyboard.type("open sesame")
    page.keyboard.press("Enter")
    page.wait_for_selector("#all:not([hidden])")
    check("the token opens it", True)
    page.reload()
    page.wait_for_selector("#all:not([hidden])")
    check("and it is kept for the tab", True)
    page.close()


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made = Made()
    with served(made) as address, sync_playwright() as playwright:
        where = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        chromium = playwright.chromium.launch(executable_path=where, headless=True, args=list(FLAGS))
        shoot(chromium, folder, address, made)
        use(chromium, folder, address, made)
        sign_in(chromium, folder, address, made)
        chromium.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
