"""`/v1/queue/...`: requests by id, for clients that do not want to keep a connection open while they wait.

    POST   /v1/queue/requests            {"endpoint": "/v1/chat/completions", "body": {...}, "priority": "low",
                                         "tenant": "acme", "deadline": 600, "upstream": "groq"} -> {"id": ...}
    GET    /v1/queue/requests/{id}       its status; with the answer as `result`, or the `error`, when it has ended
    DELETE /v1/queue/requests/{id}       cancel it, if it still waits -> {"cancelled": true}
    GET    /v1/queue/stats               see `stats`
    POST   /v1/queue/pause, /resume      send nothing, and go on
    POST   /v1/queue/cancel              {"tag": "nightly"} -> {"cancelled": n}

Built on `QueueManager`: the same limits as everything else, results kept for an hour. Priorities "high", "normal",
"low", or 0 to 10; without one "low", as nobody sits and waits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..exceptions import QueueFull
from .errors import Refusal, refusal_of
from .guard import own_page
from .headers import call_options
from .relay import read_body
from .stats import stats
from .upstreams import UPSTREAMS

if TYPE_CHECKING:
    from .gateway import Gateway

__all__ = ["routes"]

KNOWN = ("body", "deadline", "endpoint", "path", "priority", "tenant", "timeout", "upstream")
Handler = Callable[["Gateway", Request], Awaitable[Response]]


def routes(guarded: Callable[[Handler], Any]) -> list[Route]:
    """The routes; `guarded` makes an endpoint of a handler."""
    return [
        Route("/v1/queue/requests", guarded(_enqueue), methods=["POST"]),
        Route("/v1/queue/requests/{id}", guarded(_look), methods=["GET"]),
        Route("/v1/queue/requests/{id}", guarded(_cancel), methods=["DELETE"]),
        Route("/v1/queue/stats", guarded(_stats), methods=["GET"]),
        Route("/v1/queue/pause", guarded(_pause), methods=["POST"]),
        Route("/v1/queue/resume", guarded(_resume), methods=["POST"]),
        Route("/v1/queue/cancel", guarded(_cancel_tag), methods=["POST"]),
    ]


async def _told(gateway: Gateway, request: Request) -> dict[str, Any]:
    headers = {name.lower(): value for name, value in request.headers.items()}
    body = await read_body(headers, request.receive, gateway.settings.max_body)
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body of this request is no JSON", "bad_json") from None
    if not isinstance(told, dict):
        raise Refusal(400, "the body of this request is no JSON object", "bad_json")
    return told


async def _enqueue(gateway: Gateway, request: Request) -> Response:
    if gateway.draining:
        raise Refusal(503, "this gateway is about to end: nothing new is accepted", "draining", 2.0)
    told = await _told(gateway, request)
    unknown = sorted(set(told) - set(KNOWN))
    if unknown:
        raise Refusal(400, f"unknown field {unknown[0][:40]!r}: there are {', '.join(KNOWN)}", "bad_request")
    headers = {name.lower(): value for name, value in request.headers.items()}
    options = {**call_options(headers), **{name: told[name] for name in ("priority", "tenant") if told.get(name)}}
    endpoint = told.get("endpoint", told.get("path"))
    body = told.get("body")
    if not isinstance(endpoint, str) or not isinstance(body, dict):
        raise Refusal(400, 'give endpoint (as "/v1/chat/completions") and body (an object)', "bad_request")
    if any(name.startswith("extra_") for name in body):
        raise Refusal(400, "body is the JSON of the request; arguments of SDKs (extra_...) are none", "bad_request")
    if body.get("stream"):
        raise Refusal(400, "an answer that is kept cannot be a stream: leave stream out", "bad_request")
    name = _upstream(told.get("upstream"), endpoint)
    manager = await asyncio.to_thread(gateway.manager, name)
    try:
        gateway.check_room(gateway.upstreams[name].sync())
        request_id = await asyncio.to_thread(
            manager.enqueue_request, endpoint, body,
            priority=options.get("priority", "low"), tenant=options.get("tenant"),
            deadline=told.get("deadline", options.get("deadline")), timeout=told.get("timeout"),
        )  # fmt: skip
    except (ValueError, TypeError, QueueFull) as error:
        raise refusal_of(error) or Refusal(400, str(error), "bad_request") from None
    return JSONResponse({"id": str(request_id), "status": "queued"}, 202)


def _upstream(given: Any, endpoint: str) -> str:
    if given is None:
        path = endpoint.strip("/")
        if path.startswith("openai/v1/"):
            return "groq"
        return "anthropic" if path.removeprefix("v1/") in ("messages", "complete") else "openai"
    if given not in UPSTREAMS:
        raise Refusal(400, f"upstream must be one of {', '.join(UPSTREAMS)}", "bad_request")
    return str(given)


def _find(gateway: Gateway, request: Request) -> Any:
    """The manager that knows a request, and its status."""
    request_id = request.path_params["id"]
    for manager in gateway.managers.values():
        status = manager.get_request_status(request_id)
        if status["status"] != "not_found":
            return manager, dict(status)
    raise Refusal(404, "no request has this id, or its result was forgotten", "not_found")


async def _look(gateway: Gateway, request: Request) -> Response:
    manager, status = _find(gateway, request)
    told = {"id": status.pop("request_id"), **status, "result": None}
    if status["status"] == "completed":
        answer = await asyncio.to_thread(manager.get_result, told["id"], 1.0)
        told["result"] = await asyncio.to_thread(_as_json, answer)
    return JSONResponse(told)


def _as_json(answer: Any) -> Any:
    dump = getattr(answer, "to_dict", None)
    if dump is not None:
        return dump(mode="json")
    content = getattr(answer, "content", answer)
    return content.decode("latin-1") if isinstance(content, bytes) else content


async def _cancel(gateway: Gateway, request: Request) -> Response:
    own_page(dict(request.headers))
    manager, _ = _find(gateway, request)
    cancelled = await asyncio.to_thread(manager.cancel_request, request.path_params["id"])
    return JSONResponse({"id": request.path_params["id"], "cancelled": bool(cancelled)})


async def _stats(gateway: Gateway, request: Request) -> Response:
    return JSONResponse(stats(gateway))


async def _pause(gateway: Gateway, request: Request) -> Response:
    own_page(dict(request.headers))
    await asyncio.to_thread(gateway.pause)
    return JSONResponse({"state": gateway.state})


async def _resume(gateway: Gateway, request: Request) -> Response:
    own_page(dict(request.headers))
    await asyncio.to_thread(gateway.resume)
    return JSONResponse({"state": gateway.state})


async def _cancel_tag(gateway: Gateway, request: Request) -> Response:
    tag = (await _told(gateway, request)).get("tag")
    if not isinstance(tag, str) or not tag:
        raise Refusal(400, 'say which: {"tag": "nightly"}', "bad_request")
    return JSONResponse({"cancelled": await asyncio.to_thread(gateway.cancel, tag)})
