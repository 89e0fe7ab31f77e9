"""What a person acts on, said once through logging: limits that were learned or changed, and a first refusal.

The logger is `ratelimited_llm`; each record carries its facts as attributes (`event`, `pool`, `limits`, `wait_s`).
`RATELIMITED_LLM_LOG=info` (or debug, warning, error, critical) shows them on stderr without a line of code.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from urllib.parse import urlsplit

from .core.feedback import Outcome, Reading

__all__ = ["News", "log_as_environment_says", "say_perhaps_paid"]

_log = logging.getLogger("ratelimited_llm.limits")
_journal = logging.getLogger("ratelimited_llm.journal")
LEVELS = {name: getattr(logging, name.upper()) for name in ("debug", "info", "warning", "error", "critical")}
FORMAT = "[%(asctime)s - %(name)s:%(lineno)d - %(levelname)s] %(message)s"  # the SDKs' own


class News:
    """Remembers what was said about one account, so that it is said again only when it changes.

    Thread-safe as far as it matters: two threads that hear the same news at once may both say it.

    Args:
        base_url: where the account is; only its host is ever named.
    """

    __slots__ = ("_host", "_refused", "_told")

    def __init__(self, base_url: str) -> None:
        self._host = urlsplit(base_url).hostname or "the provider"
        self._told: dict[str, dict[str, float]] = {}
        self._refused: set[str] = set()

    def answered(self, family: str, readings: Iterable[Reading]) -> None:
        """An answer told the limits of a model family."""
        told = self._told.get(family)
        if told is None:
            told = self._told[family] = {}
        fresh = {r.dimension: r.limit for r in readings if r.limit is not None and told.get(r.dimension) != r.limit}
        if not fresh:
            return
        first = not told
        told.update(fresh)
        text = ", ".join(f"{limit:,.0f} {name}" for name, limit in fresh.items())
        facts = {"event": "limits_learned" if first else "limits_changed", "pool": family, "limits": dict(fresh)}
        word = "limits learned from" if first else "limits changed at"
        _log.info("%s %s: %s (%s)", word, self._host, text, family or "any model", extra=facts)

    def refused(self, family: str, outcome: Outcome) -> None:
        """A limit refused a call; its queue waits."""
        wait = f"{outcome.retry_after:.1f} s" if outcome.retry_after is not None else "unsaid"
        level = logging.DEBUG if family in self._refused else logging.INFO
        self._refused.add(family)
        facts = {"event": "refused", "pool": family, "limit": outcome.dimension, "wait_s": outcome.retry_after}
        _log.log(
            level, "refused by %s (%s, limit: %s, wait: %s); the queue of this model waits, nothing is lost",
            self._host, family or "any model", outcome.dimension or "unsaid", wait, extra=facts,
        )  # fmt: skip


def say_perhaps_paid() -> None:
    """Calls are sent again that an earlier run had sent."""
    _journal.warning(
        "perhaps_paid: calls that were in flight when an earlier run ended are sent again, and may be paid twice; "
        "status().perhaps_paid counts them",
        extra={"event": "perhaps_paid"},
    )


def log_as_environment_says() -> None:
    """Show this package's log on stderr at the level that `RATELIMITED_LLM_LOG` names; do nothing when it is unset."""
    stated = os.environ.get("RATELIMITED_LLM_LOG", "").strip().lower()
    level = LEVELS.get(stated)
    if level is None:
        if stated:
            words = "RATELIMITED_LLM_LOG must be one of %s, not %r; nothing is shown"
            logging.getLogger("ratelimited_llm").warning(words, ", ".join(LEVELS), stated)
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(FORMAT, datefmt="%Y-%m-%d %H:%M:%S"))
    logger = logging.getLogger("ratelimited_llm")
    logger.addHandler(handler)
    logger.setLevel(level)
