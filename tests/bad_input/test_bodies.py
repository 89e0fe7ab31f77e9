"""Strange things in requests, through every door: what the plain SDK sends is sent, what it refuses is refused at the
call; who only passes things on passes them on; and a good call right after is answered.
"""

from __future__ import annotations

import asyncio
import io
import json
import threading
from contextlib import suppress
from pathlib import Path

import anthropic
import groq
import openai
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strange import STRANGE
from talking import Stub

from ratelimited_llm import (
    Anthropic,
    AsyncOpenAI,
    AsyncRateLimitedWorker,
    Groq,
    OpenAI,
    Processor,
    QueueManager,
    RateLimitedExecutor,
    queued,
)
from ratelimited_llm.batch import InputError, read_lines
from ratelimited_llm.core.estimate import prompt_bytes
from ratelimited_llm.queues.payload import InvalidJob, check

EMBEDDED = {"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [1.0]}],
            "usage": {"prompt_tokens": 1, "total_tokens": 1}}  # fmt: skip
RESPONSE = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "output": [], "status": "completed",
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}  # fmt: skip
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [],
           "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}}  # fmt: skip
SAY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def hello(value):
    return {"role": "user", "content": value}


WAYS = {
    "chat": lambda client, value: client.chat.completions.create(**SAY, extra_body={"x": value}),
    "content": lambda client, value: client.chat.completions.create(model="m", messages=[hello(value)]),
    "responses": lambda client, value: client.responses.create(model="m", input=value),
    "embeddings": lambda client, value: client.embeddings.create(model="m", input=value),
    "messages": lambda client, value: client.messages.create(**SAY, max_tokens=5, extra_body={"x": value}),
}  # fmt: skip
ANSWERS = {"responses": RESPONSE, "embeddings": EMBEDDED, "messages": MESSAGE}
SDKS = {"openai": (openai, openai.OpenAI, OpenAI), "groq": (groq, groq.Groq, Groq),
        "anthropic": (anthropic, anthropic.Anthropic, Anthropic)}  # fmt: skip
DOORS = [("openai", way) for way in ("chat", "content", "responses", "embeddings")] + [
    ("groq", "chat"), ("groq", "content"), ("anthropic", "messages"),
]  # fmt: skip
REFUSALS = (TypeError, ValueError, RecursionError, ZeroDivisionError)


def of(name, kind, way):
    """A client of a class, and who answers it."""
    answer = (lambda number, body: (200, ANSWERS[way], {})) if way in ANSWERS else None
    stub = Stub(answer, sdk=SDKS[name][0])
    return kind(api_key="sk", http_client=stub.client, max_retries=0), stub


def became(call, stub):
    """What was sent; or that it was refused at the call, or after it."""
    before = len(stub.requests)
    try:
        answer = call()
    except REFUSALS:
        return "refused" if len(stub.requests) == before else "refused and sent"
    try:
        getattr(answer, "result", lambda: answer)()
    except REFUSALS:
        return "refused too late"
    return json.loads(stub.requests[-1].content)


@pytest.mark.parametrize(("name", "way"), DOORS)
def test_a_door_takes_and_refuses_what_the_plain_sdk_does(name, way):
    """At the call; nothing of what is refused was sent, and the next call is answered."""
    _, plain_class, our_class = SDKS[name]
    (plain, their_stub), (ours, our_stub) = of(name, plain_class, way), of(name, our_class, way)
    wrong = {}
    for label, make in STRANGE.items():
        if way in ("content", "embeddings", "messages") and label == "an endless iterator":
            continue  # the SDK itself makes a list of it, for ever
        theirs = became(lambda make=make: WAYS[way](plain, make()), their_stub)
        mine = became(lambda make=make: WAYS[way](ours, make()), our_stub)
        if mine != theirs:
            wrong[label] = (theirs, mine)
    assert wrong == {}
    assert WAYS[way](ours, "good").result(timeout=5)
    ours.close()


def test_a_task_is_refused_and_answered_alike():
    """AsyncOpenAI, where it awaits."""
    stub, sent = Stub(), []
    httpx = stub.httpx

    def answer(request):
        sent.append(request)
        return stub._handle(request)

    async def run():
        client = AsyncOpenAI(
            api_key="sk", http_client=httpx.AsyncClient(transport=httpx.MockTransport(answer)), max_retries=0
        )
        refused = {}
        for label, make in STRANGE.items():
            try:
                await WAYS["chat"](client, make())
            except REFUSALS:
                refused[label] = len(sent)
                sent.clear()
            else:
                sent.clear()
        answered = await WAYS["chat"](client, "good")
        await client.close()
        return refused, answered

    refused, answered = asyncio.run(run())
    plain, their_stub = of("openai", openai.OpenAI, "chat")
    sent = {label: became(lambda make=make: WAYS["chat"](plain, make()), their_stub) for label, make in STRANGE.items()}
    theirs = {label for label, what in sent.items() if what == "refused"}
    assert (set(refused), set(refused.values())) == (theirs, {0})
    assert answered.id


class Sdk:
    """A client of somebody's, which takes anything."""

    def create(self, **kwargs):
        return "answer"


class Echo(Processor):
    def process(self, payload):
        return "answer"


async def answer(value):
    return "answer"


PASSING = {
    "queued": lambda value: queued(Sdk()).create(messages=value).result(timeout=5),
    "queued, inside": lambda value: queued(Sdk()).create(messages=[{"content": value}]).result(timeout=5),
    "executor": lambda value: EXECUTOR.submit(lambda given: "answer", value).result(timeout=5),
    "executor, by name": lambda value: EXECUTOR.submit(lambda given: "answer", given=value).result(timeout=5),
    "tasks": lambda value: asyncio.run(AsyncRateLimitedWorker().run(answer, value)),
}
EXECUTOR = RateLimitedExecutor()


@pytest.mark.parametrize("way", PASSING)
def test_what_is_only_passed_on_is_passed_on(way):
    """However deep, cyclic or strange: an estimate that cannot be made is no reason to fail."""
    assert {label for label, make in STRANGE.items() if PASSING[way](make()) != "answer"} == set()
    assert PASSING[way]("x" * 50_000_000) == "answer"


@pytest.fixture(scope="module", autouse=True)
def ended():
    yield
    EXECUTOR.shutdown()


@pytest.mark.parametrize("inside", [False, True])
def test_a_manager_keeps_a_payload_as_it_is_or_refuses_it_at_once(inside):
    """It is answered, or refused when it is enqueued; nothing of what is refused is counted as waiting."""
    with QueueManager(Echo()) as manager:
        for make in STRANGE.values():
            try:
                request_id = manager.enqueue_request("e", {"prompt": [make()]} if inside else make())
            except REFUSALS:
                continue
            assert manager.get_request_status(request_id)["status"] in ("queued", "processing", "completed")
            assert manager.get_result(request_id, timeout=5) == "answer"
        assert manager.get_queue_length()["total"] == 0
        assert manager.get_result(manager.enqueue_request("e", {}), timeout=5) == "answer"


def test_a_dict_that_another_thread_changes_is_sent_or_refused_at_the_call():
    """As with the plain SDK; and the estimate does not mind."""
    body, stop = {str(number): number for number in range(2_000)}, threading.Event()

    def change():
        number = 0
        while not stop.is_set():
            number += 1
            body[f"more {number}"] = number
            body.pop(f"more {number - 50}", None)

    client, _ = of("openai", OpenAI, "chat")
    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(10):
            assert prompt_bytes({"messages": body}) >= 0
            try:
                future = WAYS["chat"](client, body)
            except RuntimeError:  # it changed its size
                continue
            assert future.result(timeout=5).id
    finally:
        stop.set()
        thread.join()
    assert WAYS["chat"](client, "good").id
    client.close()


LINES = {
    "half a pair": b'{"messages": [{"role": "user", "content": "\\ud83d"}]}', "null": b"null", "a number": b"1",
    "half a pair as a key": b'{"\\ud83d": 1, "messages": []}', "endless": b'{"messages": [], "x": 1e999}',
    "deep": b'{"messages": [], "x": ' + b"[" * 500 + b"]" * 500 + b"}", "much too deep": b"[" * 100_000,
    "a huge number": b'{"messages": [], "x": 1' + b"0" * 400 + b"}", "NaN": b'{"messages": NaN}',
    "too many digits": b'{"messages": [], "x": ' + b"9" * 5000 + b"}", "no UTF-8": b'{"a": "\xff"}',
    "NUL": b'{"messages": "\x00"}',
}  # fmt: skip


def test_a_line_that_cannot_be_sent_is_a_row_of_its_own_and_stops_nothing(tmp_path):
    """Whether JSON, we or the client refuse it: each line has one row, and the good one is answered."""
    client, _ = of("openai", OpenAI, "chat")
    good = b'{"custom_id": "good", "body": {"messages": []}}'
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b"\n".join([*LINES.values(), good]) + b"\n")
    result = client.batch(source, target, model="m")
    rows = target.read_bytes() + Path(result.errors_path).read_bytes()
    assert len(rows.splitlines()) == result.total == len(LINES) + 1
    assert (result.answered + result.failed + result.bad, result.unfinished) == (result.total, 0)
    assert b'"good"' in target.read_bytes()
    client.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=6),
    max_leaves=10,
)
KEYS = ["v", "id", "submitter", "method", "provider", "path", "query", "headers", "body", "priority", "deadline"]
GOOD = {"v": 1, "method": "POST", "provider": "openai", "path": "/chat/completions", "body": {}, "id": "a" * 32,
        "submitter": "b" * 32}  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=9), json_values) | json_values)
def test_a_job_out_of_a_queue_is_one_or_is_refused(payload):
    """Whatever somebody has written into it."""
    for each in (payload, {**GOOD, **payload} if isinstance(payload, dict) else payload):
        with suppress(InvalidJob):
            assert check(each).body is not None


@settings(max_examples=40, deadline=None)
@example([b"\r\0"], True)
@given(
    st.lists(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()), max_size=8),
    st.booleans(),
)
def test_lines_of_anything_are_lines_or_bad_lines(pieces, table):
    """Bytes, JSON of any shape; as JSON lines and as a table."""
    source = io.BytesIO(b"\n".join(pieces))
    source.name = "in.csv" if table else "in.jsonl"
    with suppress(InputError):  # no such column
        for line in read_lines(source, model="m", prompt="{a}" if table else None):
            assert line.number > 0
