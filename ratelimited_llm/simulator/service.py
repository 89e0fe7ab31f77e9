"""What happens to one request: routed, checked, admitted or refused, struck by a fault, answered.

It belongs to the server's loop thread and does no I/O: a request goes in, a `Plan` of what to send comes out, and
`finish` closes the books on it.
"""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from .chat import CHAT, COMPLETIONS, json_bytes
from .enforcement import Allowance, Enforcement
from .faults import Fault, Faults
from .messages import COUNT_TOKENS, MESSAGES
from .plan import Plan, override, spoil
from .profile import Headers, Problem, Profile
from .profiles import PROFILES
from .records import Record, Tally
from .replies import Answer, Ask, BadRequest, Endpoint, Script
from .responses import RESPONSES
from .vectors import EMBEDDINGS, MODERATIONS, model_card, model_list

__all__ = ["Service"]

RawHeaders = list[tuple[bytes, bytes]]

ENDPOINTS = {
    "/chat/completions": CHAT,
    "/completions": COMPLETIONS,
    "/responses": RESPONSES,
    "/embeddings": EMBEDDINGS,
    "/moderations": MODERATIONS,
    "/messages": MESSAGES,
    "/messages/count_tokens": COUNT_TOKENS,
}
# The bare path, OpenAI's, Groq's, Azure's with and without a deployment.
PREFIX = re.compile(r"^(?:/openai/deployments/(?P<deployment>[^/]+)|/openai/v1|/openai|/v1)?(?P<path>/.*)$")
JSON = ("content-type", "application/json")
EVENTS = ("content-type", "text/event-stream; charset=utf-8")
PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><center>nginx</center></body></html>\n"


@lru_cache(maxsize=256)
def route(target: str) -> tuple[str, str | None]:
    """The path of a target without the provider's prefix, and Azure's deployment when it names one."""
    found = PREFIX.match(target.partition("?")[0])
    if found is None:
        return target, None
    deployment = found["deployment"]
    return found["path"].rstrip("/"), unquote(deployment) if deployment else None


class Service:
    """A provider: its profile, its limits for each model, its answers, its faults and its books."""

    def __init__(
        self,
        profile: Profile,
        allowance: Allowance,
        script: Script,
        faults: Faults,
        *,
        latency: Callable[[int], float],
        per_token: float = 0.0,
        api_key: str | None = None,
        per_model: bool = True,
        log_size: int = 10_000,
    ) -> None:
        self.profile = profile
        self.allowance = allowance
        self.script = script
        self.faults = faults
        self.tally = Tally()
        self.log: deque[Record] = deque(maxlen=log_size)
        self.pools: dict[str, Enforcement] = {}
        self.calls = 0
        self.last = 0.0
        self._latency = latency
        self._per_token = per_token
        self._key = api_key
        self._per_model = per_model
        flags = {name: getattr(profile, name) for name in ("tell_limits", "tell_wait", "tell_in_body")}
        self._claude = profile if profile.name == "anthropic" else replace(PROFILES["anthropic"], **flags)
        self._other = profile if profile.name != "anthropic" else replace(PROFILES["openai"], **flags)

    def handle(self, method: str, target: str, headers: RawHeaders, raw: bytes, now: float) -> Plan:
        """Decide what is sent for a request; every plan must come back to `finish` once.

        Args:
            method, target, headers, raw: the request.
            now: seconds of the loop's clock.
        """
        path, deployment = route(target)
        self.tally.arrived()
        record = Record(self.tally.sums["requests"], now, method, target, headers)
        self.log.append(record)
        speaker = self._claude if path.startswith("/messages") else self._other
        try:
            plan = self._plan(method, path, deployment, raw, record, speaker, now)
        except BadRequest as error:
            plan = self._problem(speaker.error(400, str(error)), record)
        except (TypeError, KeyError, ValueError, AttributeError, IndexError, RecursionError) as error:
            # Whatever a body of the wrong shape makes an endpoint stumble over is the caller's mistake.
            plan = self._problem(speaker.error(400, f"the body has the wrong shape: {error!r}"), record)
        record.status = plan.status
        plan.headers.append(("request-id" if speaker is self._claude else "x-request-id", f"req_{record.number:08d}"))
        if plan.lies:
            plan.headers = override(plan.headers, plan.lies)
        return plan

    def finish(self, plan: Plan, now: float, *, tokens: int | None = None, abandoned: bool = False) -> None:
        """Settle a plan, just before its last byte goes out; a second time is no harm.

        Args:
            plan: from `handle`.
            now: seconds.
            tokens: of the output, those that were really sent; None is all.
            abandoned: its caller hung up before that.
        """
        if plan.finished:
            return
        plan.finished = True
        plan.record.finished = now
        answer = plan.answer
        given, made = (0, 0) if answer is None else (answer.input_tokens, answer.output_tokens)
        made = made if tokens is None else min(made, tokens)
        if plan.pool is not None and plan.ticket is not None:
            plan.pool.settle(plan.ticket, now, input_tokens=given, output_tokens=made)
        fault = plan.fault
        struck = fault is not None and fault.kind != "headers" and not (fault.kind == "stall" and fault.seconds)
        if fault is not None and fault.kind == "reset":
            plan.record.status = None
        self.tally.ended(plan.record.status, given, made, refused=plan.refused, failed=struck, abandoned=abandoned)

    def pool(self, model: str) -> Enforcement:
        """The limits of a model, fresh when it was never asked for."""
        name = model if self._per_model else ""
        found = self.pools.get(name)
        if found is None:
            found = self.pools[name] = Enforcement(self.allowance)
        return found

    def share_used(self, model: str | None, now: float) -> float:
        pools = self.pools.values() if model is None else [self.pool(model)]
        return max((pool.share_used(now) for pool in pools), default=0.0)

    def change(self, now: float, limits: dict[str, Any]) -> None:
        """Set other limits for every model, those not seen yet included."""
        Enforcement(self.allowance).change(now, **limits)  # refuses bad numbers before anything is changed
        self.allowance = replace(self.allowance, **limits)
        for pool in self.pools.values():
            pool.change(now, **limits)

    def _plan(
        self, method: str, path: str, deployment: str | None, raw: bytes, record: Record, speaker: Profile, now: float
    ) -> Plan:
        if self._key is not None and record.key() != self._key:
            return self._problem(speaker.error(401, "Incorrect API key provided.", code="invalid_api_key"), record)
        endpoint = ENDPOINTS.get(path)
        if endpoint is None or method != "POST":
            return self._lookup(method, path, record, speaker)
        try:
            body = json.loads(raw)
        except ValueError:
            raise BadRequest("We could not parse the JSON body of your request.") from None
        if not isinstance(body, dict):
            raise BadRequest("the body has to be a JSON object")
        if deployment is not None:
            body.setdefault("model", deployment)
        ask = endpoint.read(body)
        record.model, record.tag, record.stream = ask.model, ask.prompt[:80], ask.stream
        return self._call(endpoint, ask, raw, record, speaker, now)

    def _lookup(self, method: str, path: str, record: Record, speaker: Profile) -> Plan:
        """The requests that spend no limit: the models, and paths that do not exist."""
        if method == "GET" and path == "/models":
            names = sorted(filter(None, self.pools)) or ["simulated-large", "simulated-small"]
            return Plan(200, [JSON], json_bytes(model_list(names)), record)
        if method == "GET" and path.startswith("/models/"):
            return Plan(200, [JSON], json_bytes(model_card(unquote(path[len("/models/") :]))), record)
        return self._problem(speaker.error(404, f"Unknown request URL: {method} {path}."), record)

    def _call(self, endpoint: Endpoint, ask: Ask, raw: bytes, record: Record, speaker: Profile, now: float) -> Plan:
        self.calls += 1
        self.last = now
        fault = self.faults.pick(self.calls, ask.body)
        if fault is not None and fault.kind == "error_event" and not ask.stream:
            fault = None
        if endpoint is COUNT_TOKENS:
            answer = Answer("", 0, [], False, ask.input_tokens, 0, 0)
            return Plan(200, [JSON], json_bytes(endpoint.body(ask, answer)), record)
        ticket, pool = None, self.pool(ask.model)
        if fault is None or fault.charged:
            reserved = self.profile.reserve(ask.input_tokens, ask.max_output if ask.produces else None)
            verdict = pool.admit(now, reserved=reserved, input_tokens=ask.input_tokens)
            if not verdict.admitted:
                record.dimension = verdict.dimension
                plan = self._problem(speaker.refusal(verdict, ask.model), record, speaker, pool, now)
                plan.refused, plan.lies = True, fault.headers if fault is not None else None
                return plan
            ticket = verdict.ticket
        plan = self._answer(endpoint, ask, raw, record, speaker, pool, fault, now)
        plan.pool, plan.ticket, plan.fault = pool, ticket, fault
        plan.lies = fault.headers if fault is not None else None
        return plan

    def _answer(
        self, endpoint: Endpoint, ask: Ask, raw: bytes, record: Record, speaker: Profile, pool: Enforcement,
        fault: Fault | None, now: float,
    ) -> Plan:  # fmt: skip
        delay = self._latency(self.calls)
        if fault is not None and fault.kind in ("status", "exhausted", "html"):
            plan = self._struck(fault, record, speaker, pool, now)
            plan.delay = delay
            return plan
        answer = self.script.answer(ask, self.script.draw(raw), self.calls, int(time.time()))
        used = answer.input_tokens + answer.output_tokens
        told = self._told(speaker, pool, now, stream=ask.stream, used=used)
        plan = Plan(200, told, b"", record, delay=delay, per_token=self._per_token, answer=answer)
        if ask.stream and endpoint.events is not None:
            plan.headers.append(EVENTS)
            plan.events = endpoint.events(ask, answer)
            if fault is not None:
                plan.events = spoil(plan.events, fault, endpoint, speaker, answer)
            return plan
        plan.headers.append(JSON)
        plan.body = json_bytes(endpoint.body(ask, answer))
        plan.delay += self._per_token * answer.output_tokens
        if fault is not None and fault.kind == "malformed":
            plan.body = plan.body[: len(plan.body) // 2]
        return plan

    def _struck(self, fault: Fault, record: Record, speaker: Profile, pool: Enforcement, now: float) -> Plan:
        if fault.kind == "html":
            return Plan(fault.status, [("content-type", "text/html")], PAGE, record)
        if fault.kind == "exhausted":
            return self._problem(speaker.exhausted(), record)
        text = fault.message or "The server had an error while processing your request."
        problem = speaker.error(fault.status, text, code=fault.code, type=fault.type)
        return self._problem(problem, record, speaker, pool, now)

    def _told(self, speaker: Profile, pool: Enforcement, now: float, *, stream: bool = False, used: int = 0) -> Headers:
        if not speaker.tell_limits:
            return []
        return speaker.limits(pool.reading(now), wall=time.time(), stream=stream, used=used)

    def _problem(
        self, problem: Problem, record: Record, speaker: Profile | None = None, pool: Enforcement | None = None,
        now: float = 0.0,
    ) -> Plan:  # fmt: skip
        headers = [JSON, *problem.headers]
        if speaker is not None and pool is not None:
            headers += self._told(speaker, pool, now)
        return Plan(problem.status, headers, json_bytes(problem.body), record)
