"""Makes the store that a spelling of `budget=` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .budget_spec import checked_budget

if TYPE_CHECKING:
    from .shared_store import SharedStore

__all__ = ["open_store"]


def open_store(spec: str) -> SharedStore:
    """The store of "sqlite", "sqlite:///path", "redis://...", "valkey://..." or "unix://..."; close it in the end.

    Raises:
        ValueError: it is no spelling of a budget that is shared.
        ImportError: it needs the `redis` package, which is missing.
        SharedStoreLost: its file cannot be opened. A server is looked for when it is first asked.
    """
    spec = checked_budget(spec)
    if spec in ("memory", "auto"):
        raise ValueError(f'budget="{spec}" is shared with nobody: give "sqlite", or the URL of a server')
    if spec.startswith("sqlite"):
        from .sqlite_store import SqliteStore

        return SqliteStore(spec.removeprefix("sqlite:///") if spec != "sqlite" else None)
    from .redis_store import RedisStore

    return RedisStore(spec)
