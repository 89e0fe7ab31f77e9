"""What is answered to a call: the tokens of its prompt, the answer drawn for it, and which endpoint words it.

Everything is drawn from the seed and the body of the request: the same call always gets the same answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .text import count_tokens, cut, pseudo_text, sample

__all__ = ["Answer", "Ask", "BadRequest", "Endpoint", "Events", "Script", "text_of"]

Events = list[tuple[bytes, int]]  # of a stream: what is sent, and how many of the answer's tokens it carries

# What a call may be asked to end with: tens of tokens, the size of a short classification with its reason.
OUTPUT_TOKENS = (20, 100)
# Vision models charge 85 tokens for an image of low detail; other parts without text are treated alike.
TOKENS_OF_A_PART = 85


class BadRequest(ValueError):
    """The body is not what the endpoint takes; the message is what its caller is told."""


@dataclass(slots=True)
class Ask:
    """What one request asks for, whatever the endpoint.

    Attributes:
        model: the model's name as given.
        input_tokens: tokens of the prompt.
        max_output: the most tokens of each answer; None when not said.
        prompt: the text that an echo answers with: the last user message, or the input.
        stream: events instead of a body.
        n: how many answers.
        schema: the JSON schema that the answer has to fit; {} for any JSON object; None for text.
        tool: (name, schema of its arguments) of the function that has to be called, or None.
        include_usage: a stream ends with its usage.
        body: the whole request.
        produces: it generates tokens (embeddings and moderations do not).
    """

    model: str
    input_tokens: int
    max_output: int | None = None
    prompt: str = ""
    stream: bool = False
    n: int = 1
    schema: Any = None
    tool: tuple[str, Any] | None = None
    include_usage: bool = False
    body: dict[str, Any] = field(default_factory=dict)
    produces: bool = True


@dataclass(slots=True)
class Answer:
    """What a call is answered with, before an endpoint words it.

    Attributes:
        id: hex digits, different for each answer.
        created: Unix time in whole seconds.
        texts: one for each choice; the arguments, as JSON, when a tool is called.
        cut_off: one of the texts was cut at the most tokens allowed.
        input_tokens, output_tokens: its usage.
        seed: for whatever else has to be drawn.
    """

    id: str
    created: int
    texts: list[str]
    cut_off: bool
    input_tokens: int
    output_tokens: int
    seed: int


@dataclass(frozen=True)
class Endpoint:
    """One path of the API.

    Attributes:
        kind: its name ("chat", "responses", ...).
        read: turns a body into an `Ask`; raises BadRequest, or KeyError, TypeError... for nonsense.
        body: words an answer as the JSON of a plain reply.
        events: words it as the events of a stream, each with the tokens it carries; None when it cannot stream.
    """

    kind: str
    read: Callable[[dict[str, Any]], Ask]
    body: Callable[[Ask, Answer], Any]
    events: Callable[[Ask, Answer], Events] | None = None


class Script:
    """Draws the answers: how long, and which text.

    Args:
        answer: "text" for pseudo-text, "echo" for the last user message.
        output_tokens: how many tokens an answer has: a number, or (lowest, highest) to draw from.
        seed: the same seed and the same request give the same answer.
    """

    def __init__(self, answer: str = "text", output_tokens: int | tuple[int, int] | None = None, seed: int = 0) -> None:
        if answer not in ("text", "echo"):
            raise ValueError(f"unknown answer {answer!r}: use 'text' or 'echo'")
        span = output_tokens if output_tokens is not None else OUTPUT_TOKENS
        both = span if isinstance(span, tuple) else (span, span)
        numbers = len(both) == 2 and all(isinstance(each, int) and not isinstance(each, bool) for each in both)
        if not numbers or not 0 <= both[0] <= both[1]:
            raise ValueError(f"output_tokens={output_tokens!r}: give a number >= 0, or (lowest, highest)")
        self.low, self.high = both
        self.echo = answer == "echo"
        self.seed = seed

    def draw(self, raw: bytes) -> int:
        """The number that everything about the answer to this body is drawn from."""
        key = (self.seed & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big")
        return int.from_bytes(hashlib.blake2b(raw, digest_size=4, key=key).digest(), "big")

    def answer(self, ask: Ask, drawn: int, number: int, created: int) -> Answer:
        """The answer to a request.

        Args:
            ask: the request.
            drawn: from `draw`.
            number: of the request; makes the id.
            created: Unix time in whole seconds.
        """
        identity = f"{number:08x}{drawn:08x}"
        if not ask.produces:
            return Answer(identity, created, [], False, ask.input_tokens, 0, drawn)
        texts, cut_off = [], False
        most = ask.max_output
        for choice in range(ask.n):
            text = self._text(ask, drawn + choice)
            if most is not None and count_tokens(text) > most:
                text, cut_off = cut(text, most), True
            texts.append(text)
        used = sum(map(count_tokens, texts))
        return Answer(identity, created, texts, cut_off, ask.input_tokens, used, drawn)

    def _text(self, ask: Ask, drawn: int) -> str:
        if ask.tool is not None:
            return json.dumps(sample(ask.tool[1], drawn))
        if ask.schema is not None:
            return json.dumps(sample(ask.schema, drawn) if ask.schema else {"answer": pseudo_text(4, drawn)})
        if self.echo:
            return ask.prompt
        return pseudo_text(self.low + drawn % (self.high - self.low + 1), drawn)


def text_of(content: Any) -> tuple[str, int]:
    """The text of a message's content, and the tokens of the parts of it that are no text."""
    if isinstance(content, str):
        return content, 0
    if content is None:
        return "", 0
    texts, other = [], 0
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            other += TOKENS_OF_A_PART
    return "\n".join(texts), other


def read_messages(messages: Any, system: Any = None) -> tuple[int, str]:
    """The tokens of a conversation, and its last user text.

    Raises:
        BadRequest: when it is no list of messages.
    """
    if not isinstance(messages, list) or not messages:
        raise BadRequest("'messages' has to be a list with at least one message")
    text, tokens = text_of(system)
    tokens += count_tokens(text)
    last = ""
    for message in messages:
        if not isinstance(message, dict):
            raise BadRequest("each of 'messages' has to be an object")
        text, other = text_of(message.get("content"))
        tokens += count_tokens(text) + other
        if message.get("role", "user") == "user":
            last = text
    return max(1, tokens), last


def whole_number(body: dict[str, Any], *names: str) -> int | None:
    """The first of these parameters that is set, as an int >= 1; None when none is.

    Raises:
        BadRequest: when it is set to something else.
    """
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BadRequest(f"'{name}' has to be a whole number of at least 1, got {value!r}")
        return value
    return None
