"""A local provider with real limits, on loopback: for tests, demos and rehearsals without a key.

    with Simulator("groq", rpm=30, tpm=6000) as simulator:
        client = Groq(base_url=simulator.base_url, api_key="any")
        ...
        print(simulator.counters, simulator.share_used())

`Enforcement` is the same provider without HTTP: pure, told the time, for simulations in virtual time. Names are
imported when they are first used, so that it costs neither asyncio nor h11.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .enforcement import Allowance as Allowance
    from .enforcement import Enforcement as Enforcement
    from .enforcement import Ticket as Ticket
    from .enforcement import Verdict as Verdict
    from .faults import Fault as Fault
    from .faults import Faults as Faults
    from .profiles import PROFILES as PROFILES
    from .records import Counters as Counters
    from .records import Record as Record
    from .server import Simulator as Simulator
    from .text import count_tokens as count_tokens

__all__ = [
    "PROFILES", "Allowance", "Counters", "Enforcement", "Fault", "Faults", "Record", "Simulator", "Ticket", "Verdict",
    "count_tokens",
]  # fmt: skip

_HOMES = {
    "Allowance": "enforcement", "Enforcement": "enforcement", "Ticket": "enforcement", "Verdict": "enforcement",
    "Fault": "faults", "Faults": "faults", "PROFILES": "profiles", "Counters": "records", "Record": "records",
    "Simulator": "server", "count_tokens": "text",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
