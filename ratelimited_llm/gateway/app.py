"""create_app: a gateway as a Starlette app, to run by itself (`serve`) or to mount in a service."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from ..options import LIMIT_NAMES
from . import dashboard, queue_api
from .errors import Refusal
from .gateway import Gateway
from .queue_api import Handler
from .relay import Relay, path_below
from .routing import shape_of
from .settings import Settings
from .stats import health, health_told

__all__ = ["create_app"]


def create_app(
    *,
    token: str | None = None,
    hosts: str | Iterable[str] = (),
    base_urls: Mapping[str, str] | None = None,
    api_keys: Mapping[str, str] | None = None,
    pass_through_keys: bool = False,
    max_queue: int | None = 10_000,
    max_body: int = 64 * 1024 * 1024,
    budget: Any = None,
    journal: Any = None,
    **options: Any,
) -> Starlette:
    """Make an app that queues, paces, retries and streams what any client of OpenAI, Groq or Anthropic sends to it.

    Args:
        token: what clients have to send as their api key; None for no token, and then only requests to loopback names
            are answered.
        hosts: another host name, or several, that are answered without a token, "*" for any: for an app that is mounted
            in a service which has its own ways to tell who may use it.
        base_urls, api_keys: by provider ("openai", "groq", "anthropic", "azure"); else of the SDKs' own variables.
        pass_through_keys: send each client's own key to the provider, with limits for each key; else the gateway's.
        max_queue: requests that may wait; more are answered with 429 and Retry-After. None for no cap.
        max_body: bytes that a request may have.
        budget, journal: who shares the limits, and the file that keeps the answers; see `OpenAI`.
        **options: of the clients that it makes: limits (`rpm=`, `tpm=`...), and the others of `OpenAI`.

    Returns:
        The app, which makes its clients when the first requests come, so that it needs no lifespan: it can be mounted
        in FastAPI as it is (`app.mount("/llm", create_app())`). `app.state.gateway` is the gateway: `status()` tells
        about it, and `await app.state.gateway.aclose()` ends it; run by itself, its own lifespan does.

    Raises:
        ValueError, TypeError: for an argument that makes no sense, at once.
    """
    limits = {name: options.pop(name) for name in list(options) if name in LIMIT_NAMES}
    settings = Settings(
        limits=limits, base_urls={} if base_urls is None else base_urls, api_keys={} if api_keys is None else api_keys,
        hosts=hosts, pass_through_keys=pass_through_keys, token=token, max_queue=max_queue, max_body=max_body,
        budget=budget, journal=journal, options=options,
    )  # fmt: skip
    gateway = Gateway(settings)
    app = Starlette(routes=_routes(gateway), lifespan=_lifespan)
    app.state.gateway = gateway
    return app


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    yield
    await app.state.gateway.aclose()


def _routes(gateway: Gateway) -> list[BaseRoute]:
    def guarded(handler: Handler) -> Any:
        return _endpoint(gateway, handler, secret=True)

    def open_to_all(handler: Handler) -> Any:
        return _endpoint(gateway, handler, secret=False)

    return [
        Route("/healthz", open_to_all(_alive), methods=["GET"]),
        Route("/readyz", open_to_all(_ready), methods=["GET"]),
        *_metrics(guarded),
        *queue_api.routes(guarded),
        *dashboard.routes,
        Mount("/", Relay(gateway)),
    ]


def _endpoint(gateway: Gateway, handler: Handler, *, secret: bool) -> Any:
    """An endpoint whose refusals are answered as errors; `secret` when not everybody may use it."""

    async def endpoint(request: Request) -> Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            if secret:
                gateway.guard.check(headers)
            return await handler(gateway, request)
        except Refusal as refusal:
            shape = shape_of(path_below(request.scope), headers)
            return Response(refusal.body(shape), refusal.status, dict(refusal.header_list()))

    return endpoint


async def _alive(gateway: Gateway, request: Request) -> Response:
    """Whether a restart is needless. A provider's outage makes no gateway dead: it lowers the score."""
    return JSONResponse(health_told(gateway), 200 if health(gateway).alive else 503)


async def _ready(gateway: Gateway, request: Request) -> Response:
    """200 when new requests are welcome, else 503 with the reasons."""
    verdict = health(gateway)
    if gateway.ready and verdict.ready:
        return JSONResponse({"ready": True})
    reasons = list(verdict.reasons) or ["no provider is configured"]
    return JSONResponse({"ready": False, "reasons": reasons}, 503, {"retry-after": "2"})


def _metrics(guarded: Any) -> list[BaseRoute]:
    """`/metrics`, where the package for it is installed."""
    try:
        prometheus = importlib.import_module("ratelimited_llm.telemetry.prometheus")
        prometheus.exposition()
    except ImportError:
        return []

    async def metrics(gateway: Gateway, request: Request) -> Response:
        body, content_type = prometheus.exposition()
        return Response(body, headers={"content-type": content_type})

    return [Route("/metrics", guarded(metrics), methods=["GET"])]
