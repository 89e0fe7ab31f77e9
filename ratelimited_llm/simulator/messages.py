"""Anthropic's Messages API: what a body asks for, and how an answer is worded, plain and as events."""

from __future__ import annotations

import json
from typing import Any

from .chat import forced_tool, json_bytes
from .replies import Answer, Ask, BadRequest, Endpoint, Events, read_messages, whole_number
from .text import count_tokens, pieces

__all__ = ["COUNT_TOKENS", "MESSAGES"]


def read(body: dict[str, Any]) -> Ask:
    tokens, last = read_messages(body.get("messages"), body.get("system"))
    most = whole_number(body, "max_tokens")
    if most is None:
        raise BadRequest("max_tokens: Field required")
    form = (body.get("output_config") or {}).get("format") or body.get("output_format")
    return Ask(
        model=str(body.get("model", "")),
        input_tokens=tokens,
        max_output=most,
        prompt=last,
        stream=bool(body.get("stream")),
        schema=form.get("schema", {}) if isinstance(form, dict) else None,
        tool=forced_tool(body.get("tools"), body.get("tool_choice")),
        body=body,
    )


def _block(ask: Ask, answer: Answer) -> dict[str, Any]:
    text = answer.texts[0]
    if not ask.tool:
        return {"type": "text", "text": text, "citations": None}
    try:
        arguments = json.loads(text)
    except ValueError:  # cut off at max_tokens
        arguments = {}
    return {"type": "tool_use", "id": f"toolu_{answer.id}", "name": ask.tool[0], "input": arguments}


def _stop(ask: Ask, answer: Answer) -> str:
    return "max_tokens" if answer.cut_off else "tool_use" if ask.tool else "end_turn"


def _message(ask: Ask, answer: Answer, content: list[Any], stop: str | None, output: int) -> dict[str, Any]:
    used = {"input_tokens": answer.input_tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {
        "id": f"msg_{answer.id}",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {**used, "output_tokens": output, "service_tier": "standard"},
    }


def body(ask: Ask, answer: Answer) -> dict[str, Any]:
    return _message(ask, answer, [_block(ask, answer)], _stop(ask, answer), answer.output_tokens)


def events(ask: Ask, answer: Answer) -> Events:
    sent: Events = []

    def add(kind: str, tokens: int = 0, **fields: Any) -> None:
        data = json_bytes({"type": kind, **fields})
        sent.append((b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n", tokens))

    empty: dict[str, Any] = {"input": {}} if ask.tool else {"text": ""}
    block = _block(ask, answer) | empty
    kind, part = ("input_json_delta", "partial_json") if ask.tool else ("text_delta", "text")
    add("message_start", message=_message(ask, answer, [], None, 1))
    add("content_block_start", index=0, content_block=block)
    add("ping")
    for piece in pieces(answer.texts[0]):
        add("content_block_delta", count_tokens(piece), index=0, delta={"type": kind, part: piece})
    add("content_block_stop", index=0)
    ending = {"stop_reason": _stop(ask, answer), "stop_sequence": None}
    add("message_delta", delta=ending, usage={"output_tokens": answer.output_tokens})
    add("message_stop")
    return sent


def _read_count(request: dict[str, Any]) -> Ask:
    tokens, last = read_messages(request.get("messages"), request.get("system"))
    return Ask(str(request.get("model", "")), tokens, prompt=last, body=request, produces=False)


MESSAGES = Endpoint("messages", read, body, events)
COUNT_TOKENS = Endpoint("count_tokens", _read_count, lambda ask, answer: {"input_tokens": ask.input_tokens})
