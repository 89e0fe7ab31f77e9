"""The few words of an answer that its future's repr shows: read from data only, since a property may do anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["shorten", "summarize", "texts"]


def summarize(response: Any, room: int) -> str:
    """Say "'Positive' 214 tok" in at most `room` characters; without a text it begins with the type's name."""
    tokens = _total_tokens(response)
    suffix = "" if tokens is None else f" {tokens} tok"
    text = next(texts(response), None)
    if text is None:
        return shorten(type(response).__name__, room - len(suffix)) + suffix
    return _quote(text, room - len(suffix)) + suffix


def shorten(text: str, room: int) -> str:
    """Keep one line of ASCII of at most `room` characters."""
    line = " ".join(text[: room + 1].split())
    if not (line.isascii() and line.isprintable()):
        line = ascii(line)[1:-1]
    return line if len(line) <= room else line[: room - 3] + "..."


def _quote(text: str, room: int) -> str:
    line = " ".join(text[: 4 * room].split())
    quoted = ascii(line)
    kept = len(line)
    while len(quoted) > room:  # cut characters, not the escape of one
        kept = min(kept, room) - 1
        quoted = ascii(line[:kept] + "...")
    return quoted


def _read(thing: Any, name: str) -> Any:
    """Read a field as stored: an attribute could be a property that reads a socket or waits."""
    fields = thing if isinstance(thing, dict) else getattr(thing, "__dict__", None)
    return fields.get(name) if isinstance(fields, dict) else None


def texts(response: Any) -> Iterator[str]:
    """The texts of an answer, of whichever kind it is."""
    for choice in _first(_read(response, "choices")):  # chat completions, completions
        yield from _strings(_read(_read(choice, "message"), "content"), _read(choice, "text"))
    for item in _first(_read(response, "output")):  # responses
        for part in _first(_read(item, "content")):
            yield from _strings(_read(part, "text"))
    for block in _first(_read(response, "content")):  # messages
        yield from _strings(_read(block, "text"))


def _first(items: Any) -> list[Any]:
    return items[:8] if isinstance(items, list) else []


def _strings(*values: Any) -> Iterator[str]:
    return (value for value in values if isinstance(value, str) and value)


def _total_tokens(response: Any) -> int | None:
    usage = _read(response, "usage")
    total = _read(usage, "total_tokens")
    if total is None:
        total = [_read(usage, "input_tokens"), _read(usage, "output_tokens")]
        total = sum(total) if all(isinstance(part, int) for part in total) else None
    return total if isinstance(total, int) and 0 <= total < 10**9 else None  # it is the server's, so it may be anything
