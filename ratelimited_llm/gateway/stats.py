"""What a gateway tells about itself as JSON: `GET /v1/queue/stats`, and the score of `/healthz`.

`stats(gateway)` answers a dict of plain JSON values. Seconds are floats, tokens ints, money US dollars; null is "not
known". A field is never removed; look for the ones that you know.

    at                    seconds since the epoch, now
    uptime                seconds since the gateway was made
    state                 "running", "paused" (nothing is sent until it is resumed) or "draining" (it is about to end)
    health                {"status": "ok" | "degraded" | "unhealthy", "score": 0..100, "reasons": [text, ...]}
    queued                requests that wait: over HTTP, and those enqueued at /v1/queue/requests
    in_flight             requests that were sent and have no (whole) answer; open streams count
    streams               open streams among these
    by_priority           {"high": {"queued": n, "in_flight": n}, "normal": ..., "low": ..., and others in use}
    by_tenant             {name: {"queued": n, "in_flight": n}}, of the tenants with open requests; "" is no tenant
    by_upstream           {"openai": {"queued": n, "in_flight": n, "configured": bool, "base_url": text}, "groq": ...}
    pools                 the limits as they stand, the busiest first; one for each upstream, key and model family:
        upstream          "openai", "groq", "anthropic" or "azure"
        provider          the provider's host name
        family            the model family whose limits these are; "" for all models
        queued, in_flight
        requests_per_minute, tokens_per_minute     sent, and spent, in the last 60 s
        eta               seconds until the last waiting request is answered
        paused            seconds that a refusal (429) still holds it back; 0.0 when none does
        limits            [{"dimension": "rpm" | "tpm" | "rpd" | "tpd" | "itpm" | "otpm", "used", "limit", "remaining",
                          "period", "binds"}, ...]; `used` by this gateway in the last 60 s, `remaining` of all users of
                          the key, `period` in seconds, `binds` when the waiting requests wait for this one
    totals                since the start: requests, answered, replayed (out of the journal), failed, cancelled, refused
                          (429s of the provider), retries, queue_full, expired, too_large, unauthorized, input_tokens,
                          output_tokens, spent, by_status {"200": n, ...} as the clients saw them
    latency               {"p50", "p95"}: seconds from dispatch to the answer (a stream: to its begin), latest thousand
    queue_wait            {"p50", "p95"}: seconds from the arrival to the dispatch, latest thousand
    models                [{"model", "answered", "failed", "input_tokens", "output_tokens", "spent", "latency"}, ...]
    errors                [{"text", "count"}, ...]: kinds of failures, never a prompt
    history               the last 15 minutes in slices of 5 s, the oldest first, quiet ones left out: [{"at" (epoch),
                          "requests", "answered", "failed", "refused", "rejected", "waited" (longest), "queued" and
                          "in_flight" (at its begin), "p50" and "p95" (seconds of latency)}, ...]
    limits_configured     {"rpm": n, "tpm": n, ...}: what was given by option or environment; {} when all is learned
    max_queue             requests that may wait; null for no cap
    budget                who shares the limits: "memory" for this process alone, else the kind of store ("sqlite",
                          "redis"); never a URL with a password
    budget_lost           whether that store is out of reach, and this process goes by its own share
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..books.health import Health, Vitals
from ..books.health import health as judge
from ..core.request import Priority
from .history import percentiles

if TYPE_CHECKING:
    from .gateway import Gateway

__all__ = ["health", "health_told", "stats"]

RECENT = 300.0  # seconds that the health goes by
COUNTS = (
    "answered", "replayed", "failed", "cancelled", "refused", "retries", "input_tokens", "output_tokens",
)  # fmt: skip
_WORDS = {int(level): level.name.lower() for level in Priority}


def stats(gateway: Gateway) -> dict[str, Any]:
    """Everything that the module's docstring lists, as of now; takes a millisecond or two, and waits for nobody."""
    told = [(upstream.name, client.status()) for upstream, client in gateway.clients()]
    queued, in_flight = sum(status.queued for _, status in told), sum(status.in_flight for _, status in told)
    priorities, tenants, streams = _open_requests(gateway)
    spent = [status.spent for _, status in told if status.spent is not None]
    pools = [{"upstream": name, **_pool(pool)} for name, status in told for pool in status.pools]
    errors: Counter[str] = Counter()
    for _, status in told:
        errors.update({error.text: error.count for error in status.errors})
    totals: dict[str, Any] = {name: sum(getattr(status, name) for _, status in told) for name in COUNTS}
    return {
        "at": time.time(),
        "uptime": time.monotonic() - gateway.began,
        "state": gateway.state,
        "health": health_told(gateway),
        "queued": queued,
        "in_flight": in_flight,
        "streams": streams,
        "by_priority": priorities,
        "by_tenant": tenants,
        "by_upstream": _upstreams(gateway, told),
        "pools": sorted(pools, key=lambda each: -(each["queued"] + each["in_flight"] + each["requests_per_minute"])),
        "totals": {
            "requests": gateway.counts["requests"],
            **totals,
            "spent": sum(spent) if spent else None,
            **{name: gateway.counts[name] for name in ("queue_full", "expired", "too_large", "unauthorized")},
            "by_status": {str(code): count for code, count in sorted(gateway.statuses.items())},
        },
        "latency": percentiles(gateway.history.latencies),
        "queue_wait": percentiles(gateway.history.waits),
        "models": [asdict(model) for _, status in told for model in status.models],
        "errors": [{"text": text, "count": count} for text, count in errors.most_common(20)],
        "history": gateway.history.told(),
        "limits_configured": gateway.settings.limits,
        "max_queue": gateway.settings.max_queue,
        "budget": gateway.settings.budget_kind,
        "budget_lost": gateway.budget_lost,
    }


def _open_requests(gateway: Gateway) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The open requests by priority and by tenant, and how many streams are among them."""
    priorities: dict[str, dict[str, int]] = {name: {"queued": 0, "in_flight": 0} for name in ("high", "normal", "low")}
    tenants: dict[str, dict[str, int]] = {}
    streams = 0
    for rank, tenant, where in gateway.open_requests():
        streams += where == "stream"
        stage = "queued" if where == "queued" else "in_flight"
        priorities.setdefault(_WORDS.get(rank, str(rank)), {"queued": 0, "in_flight": 0})[stage] += 1
        tenants.setdefault(tenant, {"queued": 0, "in_flight": 0})[stage] += 1
    return priorities, tenants, streams


def _upstreams(gateway: Gateway, told: list[tuple[str, Any]]) -> dict[str, Any]:
    return {
        upstream.name: {
            "queued": sum(status.queued for name, status in told if name == upstream.name),
            "in_flight": sum(status.in_flight for name, status in told if name == upstream.name),
            "configured": upstream.configured,
            "base_url": upstream.shown_url,
        }
        for upstream in gateway.upstreams.values()
    }


def _pool(pool: Any) -> dict[str, Any]:
    return {**asdict(pool), "limits": [asdict(limit) for limit in pool.limits]}


def health(gateway: Gateway) -> Health:
    """How well it does, by the last five minutes; see `ratelimited_llm.health` for what costs points."""
    sums = gateway.history.sums(RECENT)
    return judge(
        Vitals(
            answered=sums["answered"], failed=sums["failed"], refused=sums["refused"], rejected=sums["rejected"],
            wait=percentiles(gateway.history.waits)["p95"], queued=gateway.queued, max_queue=gateway.settings.max_queue,
            paused=gateway.state == "paused", budget_lost=gateway.budget_lost, draining=gateway.draining,
        )
    )  # fmt: skip


def health_told(gateway: Gateway) -> dict[str, Any]:
    """The health as JSON: status, score and reasons."""
    verdict = health(gateway)
    return {"status": verdict.status, "score": verdict.score, "reasons": list(verdict.reasons)}
