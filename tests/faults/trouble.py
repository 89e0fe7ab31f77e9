"""What can happen to one request at a hostile provider, or on the way to it: one function for each."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from typing import Any

from lies import LIES, WAITS
from reply import Reply, as_chunk, as_json, good

__all__ = ["TROUBLE", "TROUBLE_OF_STREAMS"]

STALL = 30.0  # seconds: longer than any client of these tests has patience
STATUSES = (500, 502, 503, 504, 529, 408, 409)
FINAL = (400, 401, 403, 404, 413, 418, 422)


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
        reply.send(as_chunk(event))
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
    reply.send(as_chunk(b"event: error\ndata: " + as_json({"type": "error", "error": error}) + b"\n\n") + b"0\r\n\r\n")


async def stream_of_broken_json(reply: Reply) -> None:
    await _begun(reply)
    reply.send(as_chunk(b'data: {"id": "\n\n') + b"0\r\n\r\n")


async def stream_of_broken_chunks(reply: Reply) -> None:
    await _begun(reply)
    reply.send(b"zz\r\nnonsense\r\n")
    reply.close()


async def stream_of_blank_lines(reply: Reply) -> None:
    reply.send(reply.head(200, None, reply.told(), "text/event-stream"))
    reply.send(as_chunk(b": keep-alive\n\n" * 50 + b"\n" * 50))
    for event in reply.events():
        reply.send(as_chunk(event))
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
