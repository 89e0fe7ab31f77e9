"""What the simulated models say: pseudo-text of an exact length, and samples that fit a JSON schema."""

from __future__ import annotations

import random
from typing import Any

__all__ = ["PIECE", "count_tokens", "cut", "pieces", "pseudo_text", "sample"]

# The usual rule of thumb for English, and what providers estimate with before they tokenize.
BYTES_PER_TOKEN = 4
# Characters in one event of a stream. Real models send a token at a time; four make the same stream for less work.
PIECE = 16
DEPTH = 6
LINE = (
    "the limit holds while every call waits its turn and answers come back in order because a budget that is "
    "spent evenly lasts longer than one which is gone at once so we count tokens before they leave and settle "
    "afterwards with what was really used this text means nothing it only has the length of an answer"
)
WORDS = tuple(LINE.split(" "))


def count_tokens(text: str) -> int:
    """The tokens of a text: UTF-8 bytes / 4, rounded up; the one counter of admission and of usage."""
    if not isinstance(text, str):
        raise TypeError(f"text={text!r}: give a string")
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // BYTES_PER_TOKEN)


def cut(text: str, tokens: int) -> str:
    """The beginning of a text that has at most so many tokens; a character is never split."""
    room = tokens * BYTES_PER_TOKEN
    if text.isascii():
        return text[:room]
    return text.encode("utf-8", "surrogatepass")[:room].decode("utf-8", "ignore")


def pseudo_text(tokens: int, seed: int) -> str:
    """Words without meaning, always the same for a seed, of exactly so many tokens."""
    size = tokens * BYTES_PER_TOKEN
    start = seed % (len(_POOL) // 2)
    text = _POOL[start : start + size]
    while len(text) < size:
        text += _POOL[: size - len(text)]
    # A text that begins or ends with a blank does not survive the strip() that callers love.
    return text if not text or (text[0] != " " and text[-1] != " ") else "." + text[1:-1] + "."


def pieces(text: str) -> list[str]:
    """A text as the pieces that a stream sends one after the other; at least one."""
    return [text[i : i + PIECE] for i in range(0, len(text), PIECE)] or [""]


def sample(schema: Any, seed: int = 0) -> Any:
    """A value that fits a JSON schema (the part of JSON Schema that structured outputs use).

    A schema that refers to itself ends where it may be null, absent or empty, after six levels at the latest.
    """
    return _sample(schema, schema if isinstance(schema, dict) else {}, seed, 0)


def _sample(schema: Any, root: dict[str, Any], seed: int, depth: int) -> Any:
    if not isinstance(schema, dict):
        return None
    if "$ref" in schema:
        return _sample(_resolve(schema["$ref"], root), root, seed, depth + 1) if depth < 4 * DEPTH else None
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][seed % len(schema["enum"])]
    choices = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if choices:
        return _sample(_choose(choices, depth), root, seed, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0] if depth < DEPTH or "null" not in kind else "null"
    if kind == "object":
        return _object(schema, root, seed, depth)
    if kind == "array":
        count = schema.get("minItems", 1 if depth < DEPTH else 0)
        return [_sample(schema.get("items", {}), root, seed + i, depth + 1) for i in range(count)]
    return _scalar(kind, schema, seed)


def _object(schema: dict[str, Any], root: dict[str, Any], seed: int, depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    required = schema.get("required", ())
    return {
        name: _sample(inner, root, seed + i, depth + 1)
        for i, (name, inner) in enumerate(properties.items())
        if depth < DEPTH or name in required
    }


def _scalar(kind: str, schema: dict[str, Any], seed: int) -> Any:
    if kind in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0) + (1 if "exclusiveMinimum" in schema else 0))
        high = schema.get("maximum", low + 9)
        value = low + seed % (int(high - low) + 1 or 1)
        return value if kind == "integer" else float(value)
    if kind == "boolean":
        return seed % 2 == 0
    if kind == "null":
        return None
    known = {
        "date-time": "2025-02-24T22:25:47Z", "date": "2025-02-24", "time": "22:25:47Z", "email": "a@example.com",
        "uuid": "00000000-0000-4000-8000-000000000000", "uri": "https://example.com/", "ipv4": "192.0.2.1",
    }  # fmt: skip
    return known.get(schema.get("format", ""), WORDS[seed % len(WORDS)])


def _choose(choices: list[Any], depth: int) -> Any:
    null = [c for c in choices if isinstance(c, dict) and c.get("type") == "null"]
    other = [c for c in choices if c not in null]
    return null[0] if null and (depth >= DEPTH or not other) else other[0]


def _resolve(reference: str, root: dict[str, Any]) -> Any:
    found: Any = root
    for step in reference.lstrip("#/").split("/") if reference != "#" else ():
        found = found.get(step, {}) if isinstance(found, dict) else {}
    return found


def _pool() -> str:
    words = random.Random(1)
    return " ".join(words.choice(WORDS) for _ in range(3000))


_POOL = _pool()
