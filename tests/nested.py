"""Bodies that no JSON can be made of for their shape."""

from __future__ import annotations

from typing import Any

__all__ = ["cyclic", "deep"]


def cyclic() -> dict[str, Any]:
    """It holds itself."""
    body: dict[str, Any] = {}
    body["self"] = body
    return body


def deep(levels: int) -> list[Any]:
    """Lists in lists."""
    body: list[Any] = []
    for _ in range(levels):
        body = [body]
    return body
