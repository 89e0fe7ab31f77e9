"""How well a queue is doing: a score of 0 to 100, and what it lost points for. Pure: values in, values out.

    verdict = health(Vitals(answered=480, failed=12, refused=3, wait=4.0))
    verdict.score, verdict.status, verdict.reasons     # 97, "ok", ("12 of 492 calls failed",)

A long queue is no illness: waiting is what a queue is for. What counts is calls that fail, refusals that should not
happen, waits that nobody sits out, a queue about to be full, limits that are not shared any more, and a pause.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEGRADED", "OK", "UNHEALTHY", "Health", "Vitals", "health"]

OK, DEGRADED, UNHEALTHY = "ok", "degraded", "unhealthy"
FINE, POOR = 80, 50  # the least score that is "ok", and "degraded"

# The most points that each trouble takes. Two halves make an illness; only failures can do it nearly alone.
FAILURES, REJECTIONS, REFUSALS, WAIT, FULL, LOST, PAUSED = 60.0, 40.0, 25.0, 25.0, 25.0, 30.0, 40.0
FEW = 9  # calls that are taken to have gone well besides: one failure of one call is no verdict
NEARLY_FULL = 0.8  # of the queue; the points begin here
TOLERABLE = 0.01  # share of calls that fail, or are refused, before it costs points


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a score is made of; numbers that are no numbers, or below zero, count as 0.

    Attributes:
        answered, failed, refused: calls answered and failed for good, and 429s, in the last few minutes.
        rejected: calls that were never sent then: the queue was full, or they expired in it.
        wait: seconds that calls have waited in the queue lately (their 95th percentile); None when none has.
        patience: seconds of waiting that are too long; points are lost from half of it on.
        queued, max_queue: calls that wait, and how many may; None for no cap.
        paused: whether an operator has paused everything.
        budget_lost: whether the shared budget cannot be reached, so that this process keeps to its own share.
        draining: whether it takes no new calls, since it is about to end.
        alive: whether whatever sends the calls still runs.
    """

    answered: float = 0
    failed: float = 0
    refused: float = 0
    rejected: float = 0
    wait: float | None = None
    patience: float = 300.0
    queued: float = 0
    max_queue: float | None = None
    paused: bool = False
    budget_lost: bool = False
    draining: bool = False
    alive: bool = True


@dataclass(frozen=True, slots=True)
class Health:
    """A verdict.

    Attributes:
        score: 100 is perfect, 0 is dead.
        status: "ok" from 80 on, "degraded" from 50 on, else "unhealthy".
        reasons: what took points or is worth knowing, the worst first; no key, name or prompt is in it.
        ready: whether new calls are welcome: for a load balancer (`/readyz`).
        alive: whether a restart is needless: for a supervisor (`/healthz`). A provider's outage makes nothing dead.
    """

    score: int
    status: str
    reasons: tuple[str, ...]
    ready: bool = True
    alive: bool = True


def health(vitals: Vitals) -> Health:
    """Judge how well a queue is doing; never raises for a number, whatever it is."""
    if not vitals.alive:
        return Health(0, UNHEALTHY, ("the worker has died",), ready=False, alive=False)
    troubles = [
        *_failures(vitals), *_rejections(vitals), *_refusals(vitals), *_wait(vitals), *_fullness(vitals),
        *([(LOST, "the shared budget is lost: this process keeps to its own share")] if vitals.budget_lost else ()),
        *([(PAUSED, "paused by an operator")] if vitals.paused else ()),
    ]  # fmt: skip
    troubles.sort(key=lambda trouble: -trouble[0])
    score = max(0, round(100.0 - sum(points for points, _ in troubles)))
    status = OK if score >= FINE else DEGRADED if score >= POOR else UNHEALTHY
    reasons = [text for _, text in troubles]
    if vitals.draining:
        reasons.insert(0, "ending: no new calls are taken")
    return Health(score, status, tuple(reasons), ready=not vitals.draining and not _is_full(vitals))


def _failures(vitals: Vitals) -> list[tuple[float, str]]:
    failed, ended = _count(vitals.failed), _count(vitals.answered) + _count(vitals.failed)
    return _share(failed, ended, 2.0, FAILURES, f"{failed:,.0f} of {ended:,.0f} calls failed")


def _rejections(vitals: Vitals) -> list[tuple[float, str]]:
    rejected = _count(vitals.rejected)
    all_calls = rejected + _count(vitals.answered) + _count(vitals.failed)
    return _share(rejected, all_calls, 2.0, REJECTIONS, f"{rejected:,.0f} of {all_calls:,.0f} calls were never sent")


def _refusals(vitals: Vitals) -> list[tuple[float, str]]:
    refused = _count(vitals.refused)
    sent = refused + _count(vitals.answered) + _count(vitals.failed)
    return _share(refused, sent, 1.0, REFUSALS, f"{refused:,.0f} of {sent:,.0f} requests were refused (429)")


def _share(part: float, whole: float, weight: float, most: float, text: str) -> list[tuple[float, str]]:
    """Points by a share of calls: all of them when `weight` times the share is the whole."""
    share = part / (whole + FEW)
    return [(min(most, most * weight * share), text)] if share > TOLERABLE else []


def _wait(vitals: Vitals) -> list[tuple[float, str]]:
    wait, patience = _count(vitals.wait), _count(vitals.patience)
    if not patience or wait <= patience / 2:
        return []
    words = f"{wait:,.0f} s" if wait < 600 else f"{wait / 60:,.0f} min" if wait < 36_000 else "for hours"
    return [(min(WAIT, WAIT * (2 * wait / patience - 1)), f"calls wait {words} in the queue")]


def _fullness(vitals: Vitals) -> list[tuple[float, str]]:
    cap, queued = _count(vitals.max_queue), _count(vitals.queued)
    if not cap or queued / cap <= NEARLY_FULL:
        return []
    points = FULL * min(1.0, (queued / cap - NEARLY_FULL) / (1 - NEARLY_FULL))
    return [(points, f"{queued:,.0f} of {cap:,.0f} places in the queue are taken")]


def _is_full(vitals: Vitals) -> bool:
    cap = _count(vitals.max_queue)
    return bool(cap) and _count(vitals.queued) >= cap


def _count(value: float | None) -> float:
    """The number if it is one, else 0; capped, so that no sum is infinite."""
    if value is None or not value >= 0:  # NaN is not
        return 0.0
    return float(min(value, 1e15))
