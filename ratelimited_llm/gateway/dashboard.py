"""The gateway's dashboard: one page that asks for the figures of `v1/queue/stats`, and the orders of its buttons.

    GET  /dashboard           the page; it holds no data, so it needs no token, and asks for one where there is one
    GET  /dashboard/fleet     who shares the budget, as JSON (`fleet.Fleet`); 404 when nobody does
    POST /dashboard/pause     stop sending
    POST /dashboard/resume    go on
    POST /dashboard/cancel    cancel what waits: {"tenant": name}, or {} for everybody's; answers {"cancelled": n}

All but the page ask the gateway's guard, as every other route does. An order must besides carry a header that no form
and no page of another site can send, and come from the gateway's own page where the browser says whence it comes.

The page loads nothing and is allowed nothing but its own script and style, by their hashes; whatever it shows from
outside it puts there as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..books.fleet import fleet_of
from ..display.page import STYLE
from ..exceptions import SharedStoreLost
from ..options import PREFIX
from ..stores.opening import open_store
from .errors import Refusal
from .guard import own_page

if TYPE_CHECKING:
    from starlette.requests import Request

    from .gateway import Gateway

__all__ = ["HEADER", "routes"]

HEADER = "x-ratelimited-dashboard"  # on every request of the page; a foreign page cannot send it without our consent
LARGEST = 10_000  # bytes of an order
FOLDER = Path(__file__).parent


@lru_cache(maxsize=1)
def page() -> tuple[bytes, dict[str, str]]:
    """The page and its headers; put together once."""
    style = STYLE + (FOLDER / "dashboard.css").read_text(encoding="utf-8")
    script = (FOLDER / "dashboard.js").read_text(encoding="utf-8")
    html = (FOLDER / "dashboard.html").read_text(encoding="utf-8")
    html = html.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    policy = {
        "default-src": "'none'", "script-src": _hash(script), "style-src": _hash(style), "img-src": "data:",
        "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
    }  # fmt: skip
    headers = {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-store",
    }
    return html.encode(), headers


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


async def _page(request: Request) -> Response:
    html, headers = page()
    return Response(html, media_type="text/html", headers=headers)


# -- what needs the gateway's leave -----------------------------------------------------------------------------------


def _guarded(answer: Callable[[Gateway, Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """A route that only those may use whom the gateway's guard lets in."""

    async def route(request: Request) -> Response:
        gateway: Gateway = request.app.state.gateway
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            gateway.guard.check(headers)
            if request.method == "POST":
                _own_order(headers)
            return await answer(gateway, request)
        except Refusal as refusal:
            return Response(refusal.body("openai"), refusal.status, dict(refusal.header_list()))

    return route


def _own_order(headers: dict[str, str]) -> None:
    """Refuse an order that another page made a browser send.

    Raises:
        Refusal: 403.
    """
    own_page(headers)
    if HEADER not in headers:
        raise Refusal(403, f"an order needs the header {HEADER}: 1", "missing_header")


async def _pause(gateway: Gateway, request: Request) -> Response:
    gateway.pause()
    return _told({"state": gateway.state})


async def _resume(gateway: Gateway, request: Request) -> Response:
    gateway.resume()
    return _told({"state": gateway.state})


async def _cancel(gateway: Gateway, request: Request) -> Response:
    order = await _order(request)
    tenant = order.get("tenant")
    if set(order) - {"tenant"} or not (tenant is None or isinstance(tenant, str)):
        raise Refusal(400, 'say {"tenant": name}, or {} for everybody', "invalid_order")
    count = sum(
        int(worker.cancel_queued(lambda job: tenant is None or getattr(job, "tenant", None) == tenant))
        for worker in gateway.workers
    )
    return _told({"cancelled": count})


async def _order(request: Request) -> dict[str, Any]:
    """The JSON object of an order; nothing is {}.

    Raises:
        Refusal: 400 for anything else, 413 when it is too long.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST:
            raise Refusal(413, "an order is short", "request_too_large")
    try:
        order = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        order = None
    if not isinstance(order, dict):
        raise Refusal(400, "an order is a JSON object", "invalid_json")
    return order


async def _fleet(gateway: Gateway, request: Request) -> Response:
    budget = gateway.settings.budget or os.environ.get(PREFIX + "BUDGET")
    if not isinstance(budget, str) or budget.strip() in ("", "memory", "auto"):
        raise Refusal(404, "this gateway shares its limits with nobody", "not_found")
    try:
        return _told(await run_in_threadpool(_look, budget))
    except SharedStoreLost as error:
        raise Refusal(503, str(error), "budget_lost", 2.0) from None


def _look(budget: str) -> dict[str, Any]:
    """Everybody who shares a budget; blocks for three round trips to its store."""
    with closing(open_store(budget)) as store:
        return fleet_of(store).as_json()


def _told(value: dict[str, Any]) -> Response:
    return JSONResponse(value, headers={"cache-control": "no-store", "x-content-type-options": "nosniff"})


routes = [
    Route("/dashboard", _page, methods=["GET"]),
    Route("/dashboard/fleet", _guarded(_fleet), methods=["GET"]),
    Route("/dashboard/pause", _guarded(_pause), methods=["POST"]),
    Route("/dashboard/resume", _guarded(_resume), methods=["POST"]),
    Route("/dashboard/cancel", _guarded(_cancel), methods=["POST"]),
]
