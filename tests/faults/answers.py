"""What was answered, as text, out of what each SDK makes of it."""

from __future__ import annotations

from typing import Any

__all__ = ["GivenUp", "Odd", "piece_of", "piece_of_message", "text_of", "text_of_json", "text_of_message"]


class Odd(Exception):
    """The SDK made something of the answer that is none."""


class GivenUp(Exception):
    """Its caller did not wait for the answer."""


def text_of(answer: Any) -> str:
    try:
        return str(answer.choices[0].message.content)
    except (AttributeError, TypeError, IndexError, KeyError) as error:
        raise Odd(repr(answer)[:100]) from error


def text_of_json(answer: Any) -> str:
    try:
        return str(answer["choices"][0]["message"]["content"])
    except (TypeError, IndexError, KeyError) as error:
        raise Odd(repr(answer)[:100]) from error


def text_of_message(answer: Any) -> str:
    try:
        return str(answer.content[0].text)
    except (AttributeError, TypeError, IndexError) as error:
        raise Odd(repr(answer)[:100]) from error


def piece_of(chunk: Any) -> str:
    try:
        return str(chunk.choices[0].delta.content or "")
    except (AttributeError, TypeError, IndexError) as error:
        raise Odd(repr(chunk)[:100]) from error


def piece_of_message(event: Any) -> str:
    return str(event.delta.text) if event.type == "content_block_delta" else ""
