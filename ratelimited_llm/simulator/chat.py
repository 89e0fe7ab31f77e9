"""Chat completions and the older completions: what a body asks for, and how an answer is worded."""

from __future__ import annotations

import json
from typing import Any

from .replies import Answer, Ask, BadRequest, Endpoint, Events, read_messages, text_of, whole_number
from .text import count_tokens, pieces

__all__ = ["CHAT", "COMPLETIONS", "forced_tool", "json_bytes"]

DONE = b"data: [DONE]\n\n"


# json.dumps would make an encoder of these settings for every answer.
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


def json_bytes(value: Any) -> bytes:
    """Compact JSON, as the providers send it."""
    return _ENCODE(value).encode()


def forced_tool(tools: Any, choice: Any) -> tuple[str, Any] | None:
    """(name, schema) of the function that a request insists on, or None; any provider's spelling."""
    functions = [t.get("function", t) for t in tools or () if isinstance(t, dict)]
    schemas = {f.get("name"): f.get("parameters", f.get("input_schema", {})) for f in functions}
    if choice in ("required", "any") or (isinstance(choice, dict) and choice.get("type") in ("any", "required")):
        return next(iter(schemas.items()), None)
    if isinstance(choice, dict):
        name = choice.get("function", choice).get("name")
        return (name, schemas.get(name, {})) if name else None
    return None


def _schema(form: Any) -> Any:
    if not isinstance(form, dict) or form.get("type", "text") == "text":
        return None
    return form.get("json_schema", form).get("schema", {})


def read_chat(body: dict[str, Any]) -> Ask:
    tokens, last = read_messages(body.get("messages"))
    options = body.get("stream_options") or {}
    return Ask(
        model=str(body.get("model", "")),
        input_tokens=tokens,
        max_output=whole_number(body, "max_completion_tokens", "max_tokens"),
        prompt=last,
        stream=bool(body.get("stream")),
        n=whole_number(body, "n") or 1,
        schema=_schema(body.get("response_format")),
        tool=forced_tool(body.get("tools"), body.get("tool_choice")),
        include_usage=bool(options.get("include_usage")),
        body=body,
    )


def usage(answer: Answer) -> dict[str, Any]:
    """The usage as chat completions, completions and embeddings word it."""
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
    }


def _finish(ask: Ask, answer: Answer) -> str:
    return "length" if answer.cut_off else "tool_calls" if ask.tool else "stop"


def chat_body(ask: Ask, answer: Answer) -> dict[str, Any]:
    choices = []
    for index, text in enumerate(answer.texts):
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if ask.tool:
            call = {"id": f"call_{answer.id}{index}", "type": "function"}
            message |= {"content": None, "tool_calls": [call | {"function": {"name": ask.tool[0], "arguments": text}}]}
        choices.append({"index": index, "message": message, "logprobs": None, "finish_reason": _finish(ask, answer)})
    return {
        "id": f"chatcmpl-{answer.id}",
        "object": "chat.completion",
        "created": answer.created,
        "model": ask.model,
        "choices": choices,
        "usage": usage(answer),
        "system_fingerprint": "fp_simulated",
    }


def _wrap(ask: Ask, answer: Answer, name: str, kind: str, choices: list[Any], used: Any = None) -> bytes:
    chunk = {"id": f"{name}-{answer.id}", "object": kind, "created": answer.created, "model": ask.model}
    chunk["choices"] = choices
    if ask.include_usage:
        chunk["usage"] = used
    return b"data: " + json_bytes(chunk) + b"\n\n"


def chat_events(ask: Ask, answer: Answer) -> Events:
    events: Events = []

    def add(index: int, delta: dict[str, Any], finish: str | None = None, tokens: int = 0) -> None:
        choice = {"index": index, "delta": delta, "finish_reason": finish}
        events.append((_wrap(ask, answer, "chatcmpl", "chat.completion.chunk", [choice]), tokens))

    for index, text in enumerate(answer.texts):
        first: dict[str, Any] = {"role": "assistant", "content": "" if not ask.tool else None}
        if ask.tool:
            call = {"index": 0, "id": f"call_{answer.id}{index}", "type": "function"}
            first["tool_calls"] = [call | {"function": {"name": ask.tool[0], "arguments": ""}}]
        add(index, first)
        for piece in pieces(text):
            tool = {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
            add(index, tool if ask.tool else {"content": piece}, tokens=count_tokens(piece))
        add(index, {}, _finish(ask, answer))
    if ask.include_usage:
        events.append((_wrap(ask, answer, "chatcmpl", "chat.completion.chunk", [], usage(answer)), 0))
    return [*events, (DONE, 0)]


def read_completions(body: dict[str, Any]) -> Ask:
    prompt = body.get("prompt")
    prompts = prompt if isinstance(prompt, list) and all(isinstance(p, str) for p in prompt) else [prompt]
    if prompt is None or not prompts:
        raise BadRequest("'prompt' is missing")
    texts = [text_of(p)[0] for p in prompts] if not isinstance(prompts[0], list) else [""]
    return Ask(
        model=str(body.get("model", "")),
        input_tokens=max(1, sum(map(count_tokens, texts))),
        max_output=whole_number(body, "max_tokens") or 16,  # the documented default of this endpoint
        prompt=texts[-1],
        stream=bool(body.get("stream")),
        n=(whole_number(body, "n") or 1) * len(prompts),
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        body=body,
    )


def completions_body(ask: Ask, answer: Answer) -> dict[str, Any]:
    choices = [
        {"index": i, "text": text, "logprobs": None, "finish_reason": _finish(ask, answer)}
        for i, text in enumerate(answer.texts)
    ]
    head = {"id": f"cmpl-{answer.id}", "object": "text_completion", "created": answer.created, "model": ask.model}
    return {**head, "choices": choices, "usage": usage(answer)}


def completions_events(ask: Ask, answer: Answer) -> Events:
    events: Events = []
    for index, text in enumerate(answer.texts):
        parts = pieces(text)
        for place, piece in enumerate(parts, start=1):
            finish = _finish(ask, answer) if place == len(parts) else None
            choice = {"index": index, "text": piece, "logprobs": None, "finish_reason": finish}
            events.append((_wrap(ask, answer, "cmpl", "text_completion", [choice]), count_tokens(piece)))
    if ask.include_usage:
        events.append((_wrap(ask, answer, "cmpl", "text_completion", [], usage(answer)), 0))
    return [*events, (DONE, 0)]


CHAT = Endpoint("chat", read_chat, chat_body, chat_events)
COMPLETIONS = Endpoint("completions", read_completions, completions_body, completions_events)
