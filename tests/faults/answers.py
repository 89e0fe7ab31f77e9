"""What was answered, as text, out of what each SDK makes of it."""

from __future__ import annotations

from typing import Any

__all__ = ["Odd", "piece_of", "text_of", "text_of_json", "text_of_message", "text_of_message_stream", "text_of_stream"]


class Odd(Exception):
    """The SDK made something of the answer that is none."""


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


def text_of_stream(stream: Any) -> str:
    return "".join(piece_of(chunk) for chunk in stream)


def text_of_message_stream(stream: Any) -> str:
    return "".join(event.delta.text for event in stream if event.type == "content_block_delta")
