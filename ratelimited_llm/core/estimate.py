"""What a call will probably cost: bytes, and what earlier answers taught about them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

from .request import Usage

__all__ = ["TokenEstimator", "prompt_bytes"]

BYTES_PER_TOKEN = 4.0  # English prose has 4.4 characters to a token, code 4.3, JSON 3.6; the ratio learns the rest
MEMORY = 0.1  # how much of each answer goes into what is remembered
IMAGE_BYTES = 4 * 765  # a high-detail image is 765 tokens at OpenAI; a data URL's own length says nothing
MESSAGE_BYTES = 12  # a message's frame is about three tokens
UNGUARDED = 10_000  # parts of a body that are counted before it is asked whether they were counted already
NUMBERS = (int, float, type(None))
LABELS = frozenset({"model", "role", "type", "id", "name", "user", "detail", "format", "encoding_format"})


def prompt_bytes(body: object) -> int:
    """Count the UTF-8 bytes of all text in a request body: prompts, messages, tools, in whatever shape.

    What cannot be looked into counts as nothing: an estimate is no reason for a call to fail.
    """
    total = looked_at = 0
    stack = [body]
    seen: set[int] = set()
    while stack:
        item = stack.pop()
        if type(item) is str or isinstance(item, str):
            total += len(item) if item.isascii() and not item.startswith("data:") else _text_bytes(item)
            continue
        looked_at += 1
        if looked_at > UNGUARDED:  # it may contain itself, and a set from the start would cost every call
            if id(item) in seen:
                continue
            seen.add(id(item))
        try:
            if isinstance(item, (list, tuple)):
                if item and isinstance(item[0], int):
                    total += int(BYTES_PER_TOKEN) * len(item)  # a prompt that is tokens already
                else:
                    stack += item
            elif isinstance(item, NUMBERS):
                continue
            elif type(item) is dict or isinstance(item, Mapping):  # to ask the second costs more than all the rest
                if "role" in item:
                    total += MESSAGE_BYTES
                stack += [value for key, value in item.items() if key not in LABELS]
        except Exception:  # of somebody's own mapping, or one that another thread changes
            continue
    return total


def _text_bytes(text: str) -> int:
    if text.isascii():
        return IMAGE_BYTES if text.startswith("data:") else len(text)
    return len(text.encode("utf-8", "surrogatepass"))


class TokenEstimator:
    """Learns, per model and endpoint, how many tokens a byte is and how long answers are.

    Not thread-safe for learning; estimating while another thread learns is harmless.
    """

    def __init__(self) -> None:
        self._ratios: dict[Hashable, float] = {}
        self._outputs: dict[Hashable, float] = {}
        self.version = 0  # rises with every answer that taught something

    def prompt_tokens(self, key: Hashable, size: int) -> int:
        """Estimate the prompt tokens of a body of `size` text bytes; `key` says whose (model and endpoint)."""
        return math.ceil(size / BYTES_PER_TOKEN * self._ratios.get(key, 1.0))

    def output_tokens(self, key: Hashable) -> int | None:
        """The learned length of an answer, or None before the first one."""
        learned = self._outputs.get(key)
        return None if learned is None else math.ceil(learned)

    def learn(self, key: Hashable, size: int, usage: Usage) -> None:
        """Take in what an answer really used."""
        if size > 0 and usage.input_tokens > 0:
            seen = usage.input_tokens / (size / BYTES_PER_TOKEN)
            before = self._ratios.get(key, seen)
            self._ratios[key] = before + MEMORY * (seen - before)
        before = self._outputs.get(key, float(usage.output_tokens))
        self._outputs[key] = before + MEMORY * (usage.output_tokens - before)
        self.version += 1


def body_of(value: Any) -> Mapping[str, Any]:
    """A request body as a mapping, whatever was given."""
    return value if type(value) is dict or isinstance(value, Mapping) else {}
