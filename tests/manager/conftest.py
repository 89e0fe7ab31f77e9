"""Managers that are stopped at the end of each test, whatever it did with them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ratelimited_llm import shared_workers
from ratelimited_llm.manager import QueueManager

sys.path.insert(0, str(Path(__file__).parent))  # for parts.py: pytest imports files without their directory

Make = Callable[..., QueueManager]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test knows what another has learned, and no loop of a manager outlives its test; back-offs are short."""
    monkeypatch.setattr("ratelimited_llm.engine.steps.random.random", lambda: 0.02)
    shared_workers.forget()
    yield
    shared_workers.forget()
    assert [each.name for each in threading.enumerate() if each.name.startswith("ratelimited-llm-loop")] == []


@pytest.fixture
def make() -> Iterator[Make]:
    """Make a manager: `make(processor, rpm=...)`."""
    made: list[QueueManager] = []

    def manager(*args: Any, **options: Any) -> QueueManager:
        made.append(QueueManager(*args, **options))
        return made[-1]

    yield manager
    for each in made:
        each.stop(cancel_pending=True)
