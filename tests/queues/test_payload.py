"""What a queue may carry: both sides check it, so that a hostile queue can spend, and nothing else."""

from __future__ import annotations

import json

import pytest
from working import job

from ratelimited_llm.queues.answers import Delivered, failure_of, read_answer, write_answer, write_failure
from ratelimited_llm.queues.payload import LARGEST, InvalidJob, Job, check, sender_of
from ratelimited_llm.stores.journal_values import Recorded


def deep(levels):
    value: dict = {}
    for _ in range(levels):
        value = {"a": value}
    return value


HOSTILE = {
    "no object": [],
    "nothing": None,
    "another version": job(v=2),
    "true for 1": job(v=True),
    "an extra key": {**job(), "base_url": "https://evil.example"},
    "GET": job(method="GET"),
    "DELETE": job(method="DELETE"),
    "no provider": job(provider="evil"),
    "a list for a provider": job(provider=["openai"]),
    "another host": job(path="https://evil.example/v1/chat/completions"),
    "another host, short": job(path="//evil.example/chat/completions"),
    "an @": job(path="@evil.example/chat/completions"),
    "a path above": job(path="/../files"),
    "a path that ends well": job(path="/../../chat/completions"),
    "an encoded path": job(path="/%2e%2e/chat/completions"),
    "a path that spends nothing": job(path="/files"),
    "another provider's path": job(path="/v1/messages"),
    "a query in the path": job(path="/chat/completions?x=1"),
    "a line in the path": job(path="/chat/completions\r\nHost: evil"),
    "a query": job(query={"api-version": "1"}),
    "a query's value": job(query={"beta": "true&x=1"}),
    "a list of a query": job(query={"beta": ["true"]}),
    "a key": job(headers={"Authorization": "Bearer x"}),
    "another key": job(headers={"api-key": "x"}),
    "anthropic's key": job(headers={"X-Api-Key": "x"}),
    "a host": job(headers={"host": "evil"}),
    "a proxy": job(headers={"proxy-authorization": "x"}),
    "a header of two lines": job(headers={"accept": "a\r\nhost: evil"}),
    "a header that is a number": job(headers={"accept": 1}),
    "no body": job(body=None),
    "a body that is text": job(body="x"),
    "a body too large": job(body={"x": "y" * LARGEST}),
    "a body too deep": job(body=deep(150)),
    "a body much too deep": job(body=deep(5_000)),
    "NaN": job(body={"temperature": float("nan")}),
    "an id that is a key": job(id="a:b"),
    "a short id": job(id="ab"),
    "a long id": job(id="a" * 65),
    "no submitter": job(submitter="*"),
    "a priority too low": job(priority=11),
    "a priority that is text": job(priority="high"),
    "a tenant of two lines": job(tenant="a\nb"),
    "a tenant too long": job(tenant="a" * 201),
    "a negative deadline": job(deadline=-1),
    "an endless deadline": job(deadline=float("inf")),
    "a wait that is text": job(max_wait="1"),
    "too many retries": job(max_retries=1_000),
    "a moment that is none": job(submitted="now"),
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_payload_is_refused(payload):
    """InvalidJob, in words that quote nothing of it."""
    with pytest.raises(InvalidJob) as caught:
        check(payload)
    assert "evil" not in str(caught.value)


def test_a_job_comes_back_as_it_was_sent():
    """What `payload` writes, `check` reads; what says nothing does not travel."""
    made = Job(
        id="a" * 32, submitter="b" * 32, provider="anthropic", path="/v1/messages", body={"stream": True},
        query={"beta": "true"}, headers={"anthropic-beta": "x"}, priority=1, tenant="acme", tag="night",
        submitted=5.0, deadline=30.0, max_wait=10.0, timeout=3.0, max_retries=0, idempotency_key="k",
    )  # fmt: skip
    assert check(json.loads(json.dumps(made.payload()))) == made
    assert made.stream
    assert "tenant" not in Job(id="a" * 32, submitter="b" * 32, provider="openai", path="/responses", body={}).payload()


@pytest.mark.parametrize(("now", "left"), [(100.0, 30.0), (110.0, 20.0), (200.0, 0.0), (-3_600.0, 30.0), (1e12, 0.0)])
def test_what_is_left_of_a_deadline_is_never_more_than_was_given(now, left):
    """However the clocks stand."""
    assert check(job(submitted=100.0, deadline=30.0)).left(now) == left
    assert check(job(submitted=100.0, max_wait=30.0)).wait_left(now) == left
    assert check(job()).left(now) is None


def test_only_a_real_submitter_is_told_of_a_refusal():
    """Who is told is read as strictly as the rest."""
    assert sender_of(job(v=7)) is not None
    assert sender_of(job(id="*")) is None
    assert sender_of("x") is None


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b'{"a": "\xc3\xa9"}', b"\xff\x00\x01", b""])
def test_an_answer_comes_back_as_it_was_written_without_what_tells_the_account(body):
    """Text or bytes, and only harmless headers."""
    headers = (("content-type", "application/json"), ("openai-organization", "org"), ("set-cookie", "x"))
    read = read_answer(write_answer(Recorded(200, headers, body, 0.25), None, 2))
    assert read == Delivered(Recorded(200, (("content-type", "application/json"),), body, 0.25), tries=2)
    assert read.good


LIES = [
    b"", b"null", b"[]", b"{}", b'{"v": 2}', b'{"v": 1}', b'{"v": 1, "status": "200", "headers": [], "text": ""}',
    b'{"v": 1, "status": 99999, "headers": [], "text": "", "seconds": 1, "tries": 1}',
    b'{"v": 1, "status": 200, "headers": [["content-type", "a\\r\\nb"]], "text": "", "seconds": 1, "tries": 1}',
    b'{"v": 1, "status": 200, "headers": 3, "text": "", "seconds": 1, "tries": 1}',
    b'{"v": 1, "status": 200, "headers": [], "base64": "###", "seconds": 1, "tries": 1}',
    b'{"v": 1, "status": 200, "headers": [], "text": "", "seconds": NaN, "tries": 1}',
    b'{"v": 1, "error": 7}', b'{"v": 1, "error": "BudgetExceeded", "values": []}',
    b'{"v": 1, "error": "BudgetExceeded", "values": ["tpm", "x", 1]}', b'{"v": 1, "error": "a\\nb"}',
    b"[" * 100_000, b"\xff\xfe",
]  # fmt: skip


@pytest.mark.parametrize("text", LIES)
def test_an_answer_that_lies_is_an_error_of_its_call_and_of_nothing_else(text):
    """Never an exception where answers are waited for."""
    read = read_answer(text)
    assert read.answer is None
    assert read.error
    assert not read.good


def test_errors_of_ours_travel_as_their_numbers():
    """And others as their class, without their text."""
    assert failure_of(ValueError("secret")) == ("ValueError", ())
    assert read_answer(write_failure("BudgetExceeded", ("tpm", 10.0, 20.0))).values == ("tpm", 10.0, 20.0)
