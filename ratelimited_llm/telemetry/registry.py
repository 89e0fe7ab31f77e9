"""The meters of all clients of this process, those that are gone included: what a scrape reads.

Counters never fall: what a client counted stays when the client is collected. In the child of a fork they begin at
nought, since the parent goes on to tell its own.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.limiter import Survey
from .meters import OTHER, Labels, Meter, Meters

if TYPE_CHECKING:
    from ..accounts import CallPool
    from ..books.call_records import PoolBook
    from ..books.ledger import Ledger

__all__ = ["LimitLabels", "forget", "limits", "meter_for", "provider_of", "totals", "watch"]

_log = logging.getLogger("ratelimited_llm.metrics")
MOST_MODELS = 200  # that are told apart; the rest are "other", since every label set stays for ever
LONGEST_NAME = 100  # characters of a model's name
MANY = 64  # ledgers after which those that are gone are added up; a script may make a client for each call
EVERYTHING = "all"  # the bucket of a provider whose limits know no models
# The GenAI conventions' names for those that have another one here.
NAMES = {"azure": "azure.ai.openai", "gemini": "gcp.gemini", "mistral": "mistral_ai"}


class LimitLabels(NamedTuple):
    """Whose limit: provider and bucket as in `Labels`, and "rpm", "tpm", ..., "concurrency"."""

    provider: str
    bucket: str
    limit: str


class _Watched(NamedTuple):
    ledger: weakref.ref[Ledger]
    meters: Meters
    budget: Any


_lock = threading.RLock()  # a finalizer may run inside
_watched: list[_Watched] = []
_past = Meters()  # of ledgers that are gone
_models: dict[tuple[str, str], str] = {}  # the name that a model of a provider has in labels


def watch(ledger: Ledger, budget: Any) -> None:
    """Have a ledger's meters told from now on; only they are kept when it is gone.

    Args:
        ledger: of a client.
        budget: what knows how the limits of its pools stand (`survey`).
    """
    with _lock:
        if len(_watched) >= MANY:
            _add_up()
        _watched.append(_Watched(weakref.ref(ledger), ledger.meters, budget))


def _add_up() -> None:
    """Nobody writes any more in the meters of a ledger that is gone. Under the lock."""
    for each in [each for each in _watched if each.ledger() is None]:
        _watched.remove(each)
        _past.join(each.meters)


def provider_of(pool: CallPool) -> str:
    """Who answers, as the GenAI conventions call it; of a host that is not known, whose kind of client asks."""
    name = pool.dialect.name
    if name == "compatible":
        name = pool.provider
    return NAMES.get(name, name)


def meter_for(meters: Meters, book: PoolBook, model: str, operation: str, priority: int) -> Meter:
    """The meter of a kind of calls, which its pool's book remembers. Under the ledger's lock."""
    provider = provider_of(book.pool)
    name = _name(provider, model)
    bucket = _clean(book.pool.family) or EVERYTHING
    labels = Labels(provider, name, OTHER if name == OTHER else bucket, operation, priority)
    meter = book.meters[model, operation, priority] = meters[labels]
    return meter


def _name(provider: str, model: str) -> str:
    with _lock:
        known = _models.get((provider, model))
        if known is None:
            if len(_models) >= MOST_MODELS:
                return OTHER
            known = _models[provider, model] = _clean(model)
        return known


def _clean(text: str) -> str:
    """A label that every exporter can write: half of a surrogate pair would stop them all."""
    return text[:LONGEST_NAME].encode("utf-8", "replace").decode("utf-8")


# -- reading ----------------------------------------------------------------------------------------------------------


def _living() -> list[tuple[Ledger, _Watched]]:
    with _lock:
        _add_up()
        found = [(each.ledger(), each) for each in _watched]
    return [(ledger, each) for ledger, each in found if ledger is not None]


def totals() -> Meters:
    """What was counted so far, by everybody; a copy. Blocks for no longer than a note takes."""
    found = Meters()
    living = _living()
    with _lock:
        found.join(_past)
    for ledger, each in living:  # held here, so that none of them can be added to the past meanwhile
        with ledger.lock:
            ledger.take_in()
            found.join(each.meters)
    return found


def limits() -> dict[LimitLabels, tuple[float, float]]:
    """Every limit that clients alive have met, and what remains of it; of several keys for one bucket, the sums."""
    surveyed: dict[Any, tuple[Survey, int]] = {}
    for ledger, each in _living():
        with ledger.lock:
            flying = {pool: book.flying for pool, book in ledger.pools.items()}
        for pool, count in flying.items():
            survey, so_far = surveyed.get(pool, (None, 0))
            if survey is None:
                survey = _survey(each.budget, pool)
            surveyed[pool] = survey, so_far + count
    found: dict[LimitLabels, tuple[float, float]] = {}
    for pool, (survey, flying_now) in surveyed.items():
        provider, bucket = provider_of(pool), _clean(pool.family) or EVERYTHING
        stand = [(each.dimension, each.limit, each.remaining) for each in survey.standings]
        if math.isfinite(survey.concurrency):
            stand.append(("concurrency", survey.concurrency, max(0.0, survey.concurrency - flying_now)))
        for dimension, limit, remaining in stand:
            labels = LimitLabels(provider, bucket, dimension)
            if labels not in found and len(found) >= 8 * MOST_MODELS:
                labels = LimitLabels(provider, OTHER, dimension)
            more = found.get(labels, (0.0, 0.0))
            found[labels] = more[0] + limit, more[1] + remaining
    return found


def _survey(budget: Any, pool: Any) -> Survey:
    try:
        survey: Survey = budget.survey(pool, time.monotonic())
    except Exception:  # a shared budget that cannot be reached says so elsewhere; the rest is told all the same
        _log.debug("survey_failed", exc_info=True)
        return Survey()
    return survey


def forget() -> None:
    """Forget all that was counted, as after a new start of the process; for tests."""
    with _lock:
        _watched.clear()
        _past.clear()
        _models.clear()


def _after_fork_in_child() -> None:
    # Threads that are not there may have held it.
    global _lock
    _lock = threading.RLock()
    _past.clear()
    for each in _watched:
        for meter in each.meters.values():
            meter.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
