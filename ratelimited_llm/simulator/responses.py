"""The Responses API: what a body asks for, and how an answer is worded, plain and as events."""

from __future__ import annotations

from typing import Any

from .chat import forced_tool, json_bytes
from .replies import Answer, Ask, BadRequest, Endpoint, Events, read_messages, text_of, whole_number
from .text import count_tokens, pieces

__all__ = ["RESPONSES"]


def read_responses(body: dict[str, Any]) -> Ask:
    given = body.get("input")
    if given is None:
        raise BadRequest("'input' is missing")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    tokens, last = read_messages(items, body.get("instructions"))
    form = (body.get("text") or {}).get("format") or {}
    return Ask(
        model=str(body.get("model", "")),
        input_tokens=tokens,
        max_output=whole_number(body, "max_output_tokens"),
        prompt=last or text_of(given)[0],
        stream=bool(body.get("stream")),
        schema=None if form.get("type", "text") == "text" else form.get("schema", {}),
        tool=forced_tool(body.get("tools"), body.get("tool_choice")),
        body=body,
    )


def _item(ask: Ask, answer: Answer, text: str, status: str) -> dict[str, Any]:
    if ask.tool:
        call = {"id": f"fc_{answer.id}", "type": "function_call", "status": status, "call_id": f"call_{answer.id}"}
        return {**call, "name": ask.tool[0], "arguments": text}
    item = {"id": f"msg_{answer.id}", "type": "message", "status": status, "role": "assistant"}
    return {**item, "content": [_part(text)] if status != "in_progress" else []}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "input_tokens": answer.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": answer.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.input_tokens + answer.output_tokens,
    }


def _response(ask: Ask, answer: Answer, status: str) -> dict[str, Any]:
    ended = status != "in_progress"
    reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
    return {
        "id": f"resp_{answer.id}",
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "error": None,
        "incomplete_details": reason,
        "instructions": ask.body.get("instructions"),
        "max_output_tokens": ask.max_output,
        "metadata": ask.body.get("metadata") or {},
        "model": ask.model,
        "output": [_item(ask, answer, answer.texts[0], status)] if ended else [],
        "parallel_tool_calls": True,
        "previous_response_id": ask.body.get("previous_response_id"),
        "temperature": ask.body.get("temperature", 1.0),
        "text": ask.body.get("text") or {"format": {"type": "text"}},
        "tool_choice": ask.body.get("tool_choice") or "auto",
        "tools": ask.body.get("tools") or [],
        "top_p": ask.body.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": _usage(answer) if ended else None,
    }


def responses_body(ask: Ask, answer: Answer) -> dict[str, Any]:
    return _response(ask, answer, "incomplete" if answer.cut_off else "completed")


def responses_events(ask: Ask, answer: Answer) -> Events:
    events: Events = []

    def add(kind: str, tokens: int = 0, **fields: Any) -> None:
        data = json_bytes({"type": kind, "sequence_number": len(events), **fields})
        events.append((b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n", tokens))

    status = "incomplete" if answer.cut_off else "completed"
    text = answer.texts[0]
    add("response.created", response=_response(ask, answer, "in_progress"))
    add("response.in_progress", response=_response(ask, answer, "in_progress"))
    add("response.output_item.added", output_index=0, item=_item(ask, answer, "", "in_progress"))
    if ask.tool:
        at: dict[str, Any] = {"item_id": f"fc_{answer.id}", "output_index": 0}
        for piece in pieces(text):
            add("response.function_call_arguments.delta", count_tokens(piece), **at, delta=piece)
        add("response.function_call_arguments.done", **at, name=ask.tool[0], arguments=text)
    else:
        at = {"item_id": f"msg_{answer.id}", "output_index": 0, "content_index": 0}
        add("response.content_part.added", **at, part=_part(""))
        for piece in pieces(text):
            add("response.output_text.delta", count_tokens(piece), **at, delta=piece, logprobs=[])
        add("response.output_text.done", **at, text=text, logprobs=[])
        add("response.content_part.done", **at, part=_part(text))
    add("response.output_item.done", output_index=0, item=_item(ask, answer, text, status))
    add(f"response.{status}", response=_response(ask, answer, status))
    return events


RESPONSES = Endpoint("responses", read_responses, responses_body, responses_events)
