"""What can happen to one request: every answer that a hostile provider gives, good ones included.

Every reply that says anything carries the tag of its request, so that whoever is given the wrong one sees it.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hostile import Connection

__all__ = ["LIES", "TROUBLE", "TROUBLE_OF_STREAMS", "WAITS", "Reply", "good", "text_for"]

STALL = 30.0  # seconds: longer than any client of these tests has patience

# Waits that a refusal may name, by all the ways to say them. None of them keeps a pool longer than a moment: how long
# a great one is believed is a question for virtual time, see `outages.py`.
WAITS: list[dict[str, str]] = [
    {"retry-after-ms": "15"}, {"retry-after": "0.02"}, {"retry-after": "0", "retry-after-ms": "0"},
    {"retry-after": "now"}, {"retry-after": ""}, {"retry-after": "nan"}, {"retry-after": "inf"},
    {"retry-after": "-7"}, {"retry-after": "1e308"}, {"retry-after": "\xb2"}, {"retry-after-ms": "1e3"},
    {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, {"retry-after": "Mon, 99 Foo 2026"}, {"retry-after": "0x10"},
    {"retry-after": "1_0"}, {"retry-after": "0.01, 0.02"}, {},
]  # fmt: skip

# Headers that cannot be true, or that no reader can make sense of. None is a limit that a provider could have.
LIES: list[list[tuple[str, str]]] = [
    [(f"x-ratelimit-{part}-{what}", value) for part in ("limit", "remaining") for what in ("requests", "tokens")]
    for value in ("nan", "inf", "-inf", "-1", "1e308", "999999999999", "", "\xb2\xbd", "0x7f", "1_000", "٣".encode()
                  .decode("latin-1"), "9" * 400, "0", "null", "true", " ", "1,2", "\x7f", "+-5")
] + [
    [("x-ratelimit-reset-requests", value), ("x-ratelimit-reset-tokens", value)]
    for value in ("1763800000", "1763800000000", "-1s", "99999999h", "1e308s", "nan", "6m0s6m0s", "s", "2026-01-01",
                  "2026-13-45T99:99:99Z", "\xb5s", "")
] + [
    [("x-ratelimit-limit-requests", "600"), ("x-ratelimit-limit-requests", "-1"), ("x-ratelimit-limit-requests", "x")],
    [("retry-after", "1"), ("retry-after", "nan"), ("date", "yesterday"), ("date", "")],
    [("ratelimit", '"a";r=nan;t=-1'), ("ratelimit-policy", '"a";q=1e400;w=0'), ("ratelimit", "\xff;" * 50)],
    [("anthropic-ratelimit-requests-limit", "-1"), ("anthropic-ratelimit-tokens-reset", "0000-00-00T00:00:00Z"),
     ("anthropic-ratelimit-input-tokens-remaining", "inf"), ("anthropic-ratelimit-output-tokens-limit", "1e999")],
    [("x-ratelimit-renewalperiod-requests", "nan"), ("x-ratelimit-tokens-query-cost", "-3")],
    [("x-should-retry", "maybe"), ("x-request-id", "\xff" * 300), ("content-type", "application/json; charset=no")],
]  # fmt: skip

STATUSES = (500, 502, 503, 504, 529, 408, 409)
FINAL = (400, 401, 403, 404, 413, 418, 422)


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
            return _json({
                "id": f"msg_{self.tag}", "type": "message", "role": "assistant", "model": "m", "content": content,
                "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 5},
            })  # fmt: skip
        message = {"role": "assistant", "content": text_for(self.tag)}
        return _json({
            "id": f"chatcmpl-{self.tag}", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
        })  # fmt: skip

    def error(self, code: str = "server_error", message: str = "It went wrong") -> bytes:
        error = {"message": f"{message} <{self.tag}>", "type": code, "param": None, "code": code}
        return _json({"type": "error", "error": error} if self.api == "messages" else {"error": error})

    def events(self) -> list[bytes]:
        """The answer, bit by bit."""
        pieces = [f"[{self.tag}]", " ", self.tag]
        if self.api == "messages":
            start = {"id": f"msg_{self.tag}", "type": "message", "role": "assistant", "model": "m", "content": [],
                     "stop_reason": None, "stop_sequence": None,
                     "usage": {"input_tokens": 5, "output_tokens": 1}}  # fmt: skip
            return [
                _event({"type": "message_start", "message": start}),
                _event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
                *(
                    _event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
                    for piece in pieces
                ),
                _event({"type": "content_block_stop", "index": 0}),
                _event({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                        "usage": {"output_tokens": 5}}),
                _event({"type": "message_stop"}),
            ]  # fmt: skip
        chunk = {"id": f"chatcmpl-{self.tag}", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        choices = [{"index": 0, "delta": {"content": piece}, "finish_reason": None} for piece in pieces]
        return [*(_event({**chunk, "choices": [choice]}) for choice in choices), b"data: [DONE]\n\n"]

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


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _event(value: Any) -> bytes:
    name = value.get("type")
    return (f"event: {name}\n" if name else "").encode() + b"data: " + _json(value) + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def good(reply: Reply, more: list[tuple[str, str]] | None = None) -> None:
    headers = reply.told() if more is None else more
    if not reply.stream:
        reply.say(200, reply.body(), headers)
        return
    reply.send(reply.head(200, None, headers, "text/event-stream"))
    for event in reply.events():
        reply.send(_chunk(event))
        await asyncio.sleep(0.001)
    reply.send(b"0\r\n\r\n")


# -- trouble ----------------------------------------------------------------------------------------------------------


async def refused(reply: Reply) -> None:
    message = reply.chance.choice(["Slow down", "Please try again in 12ms.", "Please retry after 0 seconds", ""])
    reply.say(429, reply.error("rate_limit_exceeded", message), list(reply.chance.choice(WAITS).items()))


async def refused_without_words(reply: Reply) -> None:
    body = reply.chance.choice(
        [b"", b"null", b"[]", b"<html>", b'{"error": 5}', b"\xff\xfe", b'[{"error": {"code": 429}}]']
    )
    reply.say(429, body, list(reply.chance.choice(WAITS).items()))


async def failed(reply: Reply) -> None:
    more = list(reply.chance.choice(WAITS).items()) if reply.chance.random() < 0.3 else []
    reply.say(reply.chance.choice(STATUSES), reply.error(), more)


async def failed_as_html(reply: Reply) -> None:
    page = b"<html><head><title>502 Bad Gateway</title></head><body>" + b"<p>nginx</p>" * 400 + b"</body></html>"
    reply.send(reply.head(502, len(page), [], "text/html; charset=klingon") + page)


async def rejected(reply: Reply) -> None:
    reply.say(reply.chance.choice(FINAL), reply.error("bad_request"))


async def reset_before(reply: Reply) -> None:
    reply.reset()


async def closed_before(reply: Reply) -> None:
    reply.close()


async def reset_in_headers(reply: Reply) -> None:
    reply.send(reply.head(200, 500, reply.told())[: reply.chance.randrange(5, 60)])
    await asyncio.sleep(0.002)
    reply.reset()


async def reset_in_body(reply: Reply) -> None:
    body = reply.body()
    reply.send(reply.head(200, len(body), []) + body[: len(body) // 2])
    await asyncio.sleep(0.002)
    reply.reset()


async def truncated(reply: Reply) -> None:
    body = reply.body()
    reply.send(reply.head(200, len(body), []) + body[: len(body) // 2])
    reply.close()


async def stalled(reply: Reply) -> None:
    await asyncio.sleep(STALL)


async def stalled_in_headers(reply: Reply) -> None:
    reply.send(b"HTTP/1.1 200 OK\r\ncontent-type: app")
    await asyncio.sleep(STALL)


async def stalled_in_body(reply: Reply) -> None:
    body = reply.body()
    reply.send(reply.head(200, len(body), []) + body[:20])
    await asyncio.sleep(STALL)


async def broken_json(reply: Reply) -> None:
    reply.say(200, reply.body()[:-9])


async def other_json(reply: Reply) -> None:
    reply.say(
        200, reply.chance.choice([b"", b"null", b"[]", b'"text"', b"{}", b'{"usage": {"prompt_tokens": -7}}', b"0"])
    )


async def deep_json(reply: Reply) -> None:
    reply.say(200, b"[" * 20_000 + b"]" * 20_000)


async def body_longer_than_told(reply: Reply) -> None:
    """The rest of it lies in the connection, where the next call on it would read it."""
    body = reply.body()
    reply.send(reply.head(200, len(body) // 2, []) + body)


async def gzip_garbage(reply: Reply) -> None:
    body = gzip.compress(reply.body())
    cut = bytearray(body)
    cut[len(cut) // 2] ^= 0xFF
    reply.say(200, bytes(cut), [("content-encoding", "gzip")])


async def no_gzip_at_all(reply: Reply) -> None:
    reply.say(200, reply.body(), [("content-encoding", reply.chance.choice(["gzip", "deflate"]))])


async def garbage_status(reply: Reply) -> None:
    reply.send(
        reply.chance.choice(
            [b"HTTP/9.9 abc\r\n\r\n", b"\x00\x01\x02\x03\r\n\r\n", b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 99 x\r\n\r\n"]
        )
    )
    reply.close()


async def huge_headers(reply: Reply) -> None:
    body = reply.body()
    reply.send(reply.head(200, len(body), [("x-filler", "x" * 300_000)]) + body)


async def many_continues(reply: Reply) -> None:
    reply.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 50)
    await good(reply)


async def empty_status(reply: Reply) -> None:
    reply.send(b"HTTP/1.1 %d X\r\ndate: x\r\n\r\n" % reply.chance.choice([204, 205, 304]))
    reply.close()


async def lying(reply: Reply) -> None:
    """A good answer under headers that lie."""
    await good(reply, reply.chance.choice(LIES))


async def both_lengths(reply: Reply) -> None:
    body = reply.body()
    reply.send(reply.head(200, len(body), [("content-length", "5"), ("transfer-encoding", "chunked")]) + body)
    reply.close()


TROUBLE: dict[str, Callable[[Reply], Any]] = {
    each.__name__: each
    for each in (
        refused, refused, refused_without_words, failed, failed_as_html, rejected, reset_before, closed_before,
        reset_in_headers, reset_in_body, truncated, stalled, stalled_in_headers, stalled_in_body, broken_json,
        other_json, deep_json, body_longer_than_told, gzip_garbage, no_gzip_at_all, garbage_status, huge_headers,
        many_continues, empty_status, lying, both_lengths,
    )
}  # fmt: skip


# -- trouble of streams -----------------------------------------------------------------------------------------------


async def _begun(reply: Reply) -> None:
    reply.send(reply.head(200, None, reply.told(), "text/event-stream"))
    for event in reply.events()[: reply.chance.randrange(1, 4)]:
        reply.send(_chunk(event))
    await asyncio.sleep(0.002)


async def stream_reset(reply: Reply) -> None:
    await _begun(reply)
    reply.reset()


async def stream_truncated(reply: Reply) -> None:
    await _begun(reply)
    reply.close()


async def stream_stalled(reply: Reply) -> None:
    await _begun(reply)
    await asyncio.sleep(STALL)


async def stream_error(reply: Reply) -> None:
    await _begun(reply)
    error = {"message": f"Please try again in 11ms. <{reply.tag}>", "type": "tokens", "code": "rate_limit_exceeded"}
    reply.send(_chunk(b"event: error\ndata: " + _json({"type": "error", "error": error}) + b"\n\n") + b"0\r\n\r\n")


async def stream_of_broken_json(reply: Reply) -> None:
    await _begun(reply)
    reply.send(_chunk(b'data: {"id": "\n\n') + b"0\r\n\r\n")


async def stream_of_broken_chunks(reply: Reply) -> None:
    await _begun(reply)
    reply.send(b"zz\r\nnonsense\r\n")
    reply.close()


async def stream_of_blank_lines(reply: Reply) -> None:
    reply.send(reply.head(200, None, reply.told(), "text/event-stream"))
    reply.send(_chunk(b": keep-alive\n\n" * 50 + b"\n" * 50))
    for event in reply.events():
        reply.send(_chunk(event))
    reply.send(b"0\r\n\r\n")


async def stream_that_is_none(reply: Reply) -> None:
    reply.say(200, reply.body())


TROUBLE_OF_STREAMS: dict[str, Callable[[Reply], Any]] = {
    each.__name__: each
    for each in (
        stream_reset, stream_truncated, stream_stalled, stream_error, stream_of_broken_json, stream_of_broken_chunks,
        stream_of_blank_lines, stream_that_is_none,
    )
}  # fmt: skip
