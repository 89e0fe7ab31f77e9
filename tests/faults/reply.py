"""One reply to one request: the parts that good answers and trouble are made of.

Every reply that says anything carries the tag of its request, so that whoever is given the wrong one sees it.
"""

from __future__ import annotations

import asyncio
import json
import random
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hostile import Connection

__all__ = ["Reply", "as_chunk", "as_json", "good", "text_for"]


def text_for(tag: str) -> str:
    """What a call with this tag is answered with."""
    return f"[{tag}] {tag}"


class Reply:
    """What is said to one request.

    Args:
        connection: where it came from.
        tag: its text.
        api: "chat" or "messages".
        stream: whether it asked for one.
        chance: what is still open.
    """

    def __init__(self, connection: Connection, tag: str, api: str, stream: bool, chance: random.Random) -> None:
        self.connection, self.tag, self.api, self.stream, self.chance = connection, tag, api, stream, chance

    def send(self, data: bytes) -> None:
        if self.connection.transport.is_closing():
            raise ConnectionError
        self.connection.transport.write(data)

    def close(self) -> None:
        self.connection.transport.close()

    def reset(self) -> None:
        self.connection.reset()

    def head(
        self, status: int, length: int | None, more: list[tuple[str, str]], kind: str = "application/json"
    ) -> bytes:
        lines = [f"HTTP/1.1 {status} Whatever", f"content-type: {kind}", f"date: {formatdate(usegmt=True)}"]
        lines += [f"content-length: {length}"] if length is not None else ["transfer-encoding: chunked"]
        lines += [f"{name}: {value}" for name, value in more]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def say(self, status: int, body: bytes, more: list[tuple[str, str]] | None = None) -> None:
        self.send(self.head(status, len(body), more or []) + body)

    def body(self) -> bytes:
        """The answer, whole."""
        if self.api == "messages":
            content = [{"type": "text", "text": text_for(self.tag)}]
            return as_json({
                "id": f"msg_{self.tag}", "type": "message", "role": "assistant", "model": "m", "content": content,
                "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 5},
            })  # fmt: skip
        message = {"role": "assistant", "content": text_for(self.tag)}
        return as_json({
            "id": f"chatcmpl-{self.tag}", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
        })  # fmt: skip

    def error(self, code: str = "server_error", message: str = "It went wrong") -> bytes:
        error = {"message": f"{message} <{self.tag}>", "type": code, "param": None, "code": code}
        return as_json({"type": "error", "error": error} if self.api == "messages" else {"error": error})

    def events(self) -> list[bytes]:
        """The answer, bit by bit."""
        pieces = [f"[{self.tag}]", " ", self.tag]
        if self.api == "messages":
            start = {"id": f"msg_{self.tag}", "type": "message", "role": "assistant", "model": "m", "content": [],
                     "stop_reason": None, "stop_sequence": None,
                     "usage": {"input_tokens": 5, "output_tokens": 1}}  # fmt: skip
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
            return [
                as_event({"type": "message_start", "message": start}),
                as_event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
                *(as_event({"type": "content_block_delta", "index": 0, "delta": delta}) for delta in deltas),
                as_event({"type": "content_block_stop", "index": 0}),
                as_event({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                        "usage": {"output_tokens": 5}}),
                as_event({"type": "message_stop"}),
            ]  # fmt: skip
        chunk = {"id": f"chatcmpl-{self.tag}", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        choices = [{"index": 0, "delta": {"content": piece}, "finish_reason": None} for piece in pieces]
        return [*(as_event({**chunk, "choices": [choice]}) for choice in choices), b"data: [DONE]\n\n"]

    def told(self) -> list[tuple[str, str]]:
        """The headers of a provider that tells the truth about its limit."""
        limit = self.connection.provider.limit
        if self.api == "messages":
            return [
                ("anthropic-ratelimit-requests-limit", str(limit)),
                ("anthropic-ratelimit-requests-remaining", str(limit - 1)),
            ]
        return [
            ("x-ratelimit-limit-requests", str(limit)), ("x-ratelimit-remaining-requests", str(limit - 1)),
            ("x-ratelimit-reset-requests", "1ms"),
        ]  # fmt: skip


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def as_event(value: Any) -> bytes:
    name = value.get("type")
    return (f"event: {name}\n" if name else "").encode() + b"data: " + as_json(value) + b"\n\n"


def as_chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def good(reply: Reply, more: list[tuple[str, str]] | None = None) -> None:
    headers = reply.told() if more is None else more
    if not reply.stream:
        reply.say(200, reply.body(), headers)
        return
    reply.send(reply.head(200, None, headers, "text/event-stream"))
    for event in reply.events():
        reply.send(as_chunk(event))
        await asyncio.sleep(0.001)
    reply.send(b"0\r\n\r\n")
