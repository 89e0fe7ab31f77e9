"""From a ledger's counts and the limits as they stand: a `Status`, and what a waiting call has before it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..core.limiter import Standing, Survey
from ..core.outlook import Flow, Outlook
from .status import ErrorStatus, LimitStatus, ModelStatus, PoolStatus, Status

if TYPE_CHECKING:
    from ..accounts import CallPool
    from .call_records import PoolBook
    from .ledger import Ledger

__all__ = ["outlook_for", "status_of"]

MINUTE = 60.0
# Which of a minute's sums a limit counts; see `Minute.add` in the ledger.
COLUMNS = {"rpm": 0, "tpm": 1, "itpm": 2, "otpm": 3}


def status_of(ledger: Ledger, survey: Callable[[CallPool, float], Survey]) -> Status:
    """Everything about a client's calls at this moment.

    Args:
        ledger: what became of them.
        survey: a budget's, which is asked about each pool.
    """
    now = ledger.clock()
    with ledger.lock:
        ledger.take_in()
        surveys = {pool: survey(pool, now) for pool in ledger.pools}
        later = _later(ledger)
        pools = [_pool(book, surveys[pool], ledger, later[pool], now) for pool, book in ledger.pools.items()]
        busiest = sorted(pools, key=lambda each: -(each.queued + each.in_flight + each.requests_per_minute))
        if busiest:
            for limit in busiest[0].limits:
                ledger.chronicle.limit(limit.dimension, limit.limit, now)
        etas = [each.eta for each in pools if each.eta is not None]
        unknown = any(each.eta is None and each.queued for each in pools)
        open_calls = ledger.waiting + ledger.flying + sum(later.values())
        latest = sorted(ledger.latest)
        return Status(
            at=datetime.now().timestamp(),
            elapsed=_elapsed(ledger, now),
            total=max(ledger.to_come, ledger.submitted_calls),
            submitted=ledger.submitted_calls,
            answered=ledger.answered_calls,
            replayed=ledger.replayed_calls,
            failed=ledger.failed_calls,
            cancelled=ledger.cancelled_calls,
            queued=ledger.waiting,
            in_flight=ledger.flying,
            refused=ledger.refused,
            retries=ledger.retries,
            perhaps_paid=ledger.perhaps_paid,
            input_tokens=sum(model.input_tokens for model in ledger.models.values()),
            output_tokens=sum(model.output_tokens for model in ledger.models.values()),
            spent=ledger.spending.spent,
            expected=ledger.spending.expected,
            eta=0.0 if not open_calls else None if unknown else max(etas, default=None),
            latency=statistics.median(latest) if latest else None,
            latency_p95=latest[int(0.95 * (len(latest) - 1))] if latest else None,
            pools=tuple(busiest),
            models=tuple(sorted(_models(ledger), key=lambda each: -each.answered)),
            errors=tuple(ErrorStatus(text, count) for text, count in ledger.errors.most_common()),
        )


def _later(ledger: Ledger) -> dict[CallPool, float]:
    """The calls that a batch has not submitted yet, shared out as those were that it has."""
    left = max(0, ledger.to_come - ledger.submitted_calls) if ledger.waiting or ledger.flying else 0
    sent = {pool: book.requests + book.waiting for pool, book in ledger.pools.items()}
    every = sum(sent.values())
    return {pool: left * count / every if every else 0.0 for pool, count in sent.items()}


def _elapsed(ledger: Ledger, now: float) -> float:
    if ledger.since is None:
        return 0.0
    busy = ledger.waiting or ledger.flying
    return max(0.0, (now if busy else ledger.seen_at) - ledger.since)


def _models(ledger: Ledger) -> list[ModelStatus]:
    return [
        ModelStatus(
            model, book.answered, book.failed, book.input_tokens, book.output_tokens, ledger.spending.spent_on(model),
            statistics.median(book.latencies) if book.latencies else None,
        )
        for model, book in ledger.models.items()
    ]  # fmt: skip


def _pool(book: PoolBook, survey: Survey, ledger: Ledger, later: float, now: float) -> PoolStatus:
    sums = book.minute.sums(now, 4)
    outlook = _outlook(book, survey, ledger.mean_latency)
    held_by = outlook.wait(max(1, book.waiting))[1] if book.waiting else None
    held = survey.holding
    return PoolStatus(
        provider=urlsplit(book.pool.base_url).hostname or book.pool.provider,
        family=book.pool.family,
        queued=book.waiting,
        in_flight=book.flying,
        requests_per_minute=float(sums[0]),
        tokens_per_minute=float(sums[1]),
        limits=tuple(_limit(each, book, sums, held_by, now) for each in survey.standings),
        eta=_eta(outlook, book.waiting + later, sums[0], _elapsed(ledger, now)) if book.waiting + book.flying else 0.0,
        paused=held[1] if held is not None and held[0] == "pause" else 0.0,
    )


def _eta(outlook: Outlook, calls: float, sent: float, elapsed: float) -> float | None:
    """Seconds until so many calls are answered: by the limits, and no sooner than at the pace of the last minute.

    Limits tell the future better than the past does, but not when something else is slower: the provider, the line, or
    the processor of this machine.
    """
    eta = outlook.answered_in(calls)
    if elapsed < MINUTE or sent < 1:
        return eta
    return max(eta or 0.0, calls * MINUTE / sent)


def _limit(standing: Standing, book: PoolBook, sums: list[int], held_by: str | None, now: float) -> LimitStatus:
    name = standing.dimension
    column = COLUMNS.get(name)
    used = sums[column] if column is not None else book.requests if name == "rpd" else book.tokens
    learned = None if standing.learned_at is None else max(0.0, now - standing.learned_at)
    return LimitStatus(
        name,
        float(used),
        standing.limit,
        standing.remaining,
        standing.period,
        name == held_by,
        standing.source,
        learned,
    )


def _outlook(book: PoolBook, survey: Survey, latency: float | None) -> Outlook:
    """What the waiting calls of a pool have before them."""
    flows = []
    for standing in survey.standings:
        need = _need(book, standing.dimension)
        if need > 0.0:
            flows.append(Flow(standing.dimension, standing.remaining, standing.limit / standing.period, need))
    if math.isfinite(survey.concurrency) and latency:
        free = max(0.0, survey.concurrency - book.flying)
        flows.append(Flow("concurrency", free, survey.concurrency / latency, 1.0))
    return Outlook(tuple(flows), survey.holding, latency)


def outlook_for(ledger: Ledger, pool: CallPool, survey: Survey) -> Outlook:
    """What the waiting calls of one client to a pool have before them."""
    with ledger.lock:
        return _outlook(ledger.pools[pool], survey, ledger.mean_latency)


def _need(book: PoolBook, dimension: str) -> float:
    """What a waiting call needs of a limit, on average."""
    if dimension in ("rpm", "rpd"):
        return 1.0
    amount = {"itpm": book.waiting_input, "otpm": book.waiting_output}.get(dimension, book.reserved)
    return amount / book.waiting if book.waiting > 0 else 0.0
