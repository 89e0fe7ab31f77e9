"""The meters of all clients of this process, those that are gone included: what a scrape reads.

Counters never fall: what a client counted stays when the client is collected. In the child of a fork they begin at
nought, since the parent goes on to tell its own.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.limiter import Survey
from ..forks import at_fork
from .meters import OTHER, Labels, Meter, Meters

if TYPE_CHECKING:
    from ..books.ledger import Ledger
    from ..books.tally import Tally

__all__ = ["LimitLabels", "dialect_name", "forget", "limits", "meter_for", "provider_of", "totals", "watch"]

_log = logging.getLogger("ratelimited_llm.metrics")
MOST_MODELS = 200  # that are told apart; the rest are "other", since every label set stays for ever
LONGEST_NAME = 100  # characters of a model's name
MANY = 64  # ledgers after which those that are gone are added up; a script may make a client for each call
EVERYTHING = "all"  # the bucket of a provider whose limits know no models
# The GenAI conventions' names for those that have another one here.
NAMES = {
    "azure": "azure.ai.openai", "botocore": "aws.bedrock", "gemini": "gcp.gemini", "google": "gcp.gemini",
    "mistral": "mistral_ai", "mistralai": "mistral_ai",
}  # fmt: skip


class LimitLabels(NamedTuple):
    """Whose limit: provider and bucket as in `Labels`, and "rpm", "tpm", ..., "concurrency"."""

    provider: str
    bucket: str
    limit: str


class _Watched(NamedTuple):
    ledger: weakref.ref[Ledger | Tally]
    meters: Meters
    budget: weakref.ref[Any]  # a shared one has a thread and a file, which go with its last client


_lock = threading.RLock()  # a finalizer may run inside
_watched: list[_Watched] = []
_past = Meters()  # of ledgers that are gone
_models: dict[tuple[str, str], str] = {}  # the name that a model of a provider has in labels


def watch(ledger: Ledger | Tally, budget: Any) -> None:
    """Have the meters of a ledger or a tally told from now on; only they are kept when it is gone.

    Args:
        ledger: of a client, or what another door has for one.
        budget: what knows how the limits of its pools stand (`survey`); held by whoever holds the ledger.
    """
    with _lock:
        if len(_watched) >= MANY:
            _add_up()
        _watched.append(_Watched(weakref.ref(ledger), ledger.meters, weakref.ref(budget)))


def _add_up() -> None:
    """Nobody writes any more in the meters of a ledger that is gone. Under the lock."""
    for each in [each for each in _watched if each.ledger() is None]:
        _watched.remove(each)
        _past.join(each.meters)


def provider_of(pool: Any) -> str:
    """Who answers, as the GenAI conventions call it; of a host that is not known, whose kind of client asks."""
    name = dialect_name(pool)
    if name in ("", "compatible"):
        name = pool.provider
    return NAMES.get(name, name)


def dialect_name(pool: Any) -> str:
    """Whose dialect the answers to a pool's calls are in; "" for a pool that has none."""
    return getattr(getattr(pool, "dialect", None), "name", "")


def meter_for(meters: Meters, book: Any, model: str, operation: str, priority: int) -> Meter:
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


def _living() -> list[tuple[Ledger | Tally, _Watched]]:
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
            flying = ledger.in_flight()
        for pool, count in flying.items():
            survey, so_far = surveyed.get(pool, (None, 0))
            if survey is None:
                survey = _survey(each.budget(), pool)
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


at_fork(_after_fork_in_child)
