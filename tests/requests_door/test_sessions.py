"""What a session is told, what it tells, and what it keeps to itself."""

import copy
import logging
import pickle
import sys
import warnings
from pathlib import Path

import pytest
import requests as plain

from ratelimited_llm import BudgetExceeded, QueueFull, RequestExpired, requests

sys.path.insert(0, str(Path(__file__).parent))
from asking import CHAT, KEY, answer, question, text_of

SECRET = "sk-do-not-show-this"


def test_options_of_a_session_are_on_top_of_the_common_ones(responses, session):
    """`configure` says what sessions begin with; what it said before stays, and None takes it back."""
    requests.configure(rpm=500, tpm=1000)
    assert session(tpm=2000)._runtime.limits.rpm == 500
    assert session(tpm=2000)._runtime.limits.tpm == 2000
    requests.configure(priority="high")
    assert session()._runtime.options.rank == 1
    assert session()._runtime.limits.tpm == 1000
    requests.configure(tpm=None)
    assert session()._runtime.limits.tpm is None
    with pytest.raises(ValueError, match="rpm"):
        requests.configure(rpm=-3, tpm=7)
    assert session()._runtime.limits.rpm == 500


def test_limits_of_the_environment_are_read(monkeypatch, session):
    """As by the clients of the SDKs."""
    monkeypatch.setenv("RATELIMITED_LLM_RPM", "2k")
    assert session()._runtime.limits.rpm == 2000


def test_errors_of_ours_are_raised_where_a_clients_are(responses, session):
    """A call that can never fit and a full queue at the call; an expired one at first use."""
    responses.post(CHAT, json=answer())
    with pytest.raises(BudgetExceeded):
        session(tpm=10).post(CHAT, json=question(max_tokens=500))
    s = session(max_queue=1, on_full="raise", rpm=1, max_wait=0.05)
    answers = [s.post(CHAT, json=question())]
    with pytest.raises(QueueFull):
        answers.extend(s.post(CHAT, json=question()) for _ in range(9))
    assert answers[0].ok
    with pytest.raises(RequestExpired):
        answers[-1].json()


def test_a_users_subclass_is_queued_as_well(responses):
    """With its own send, request and attributes: a session with a base URL, say."""

    class Based(requests.Session):
        def __init__(self, base):
            super().__init__()
            self.base = base
            self.sent = 0

        def request(self, method, url, *args, **kwargs):
            return super().request(method, self.base + url, *args, **kwargs)

        def send(self, request, **kwargs):
            self.sent += 1
            return super().send(request, **kwargs)

    responses.post(CHAT, json=answer("based"))
    with Based("https://api.openai.com/v1") as s:
        r = s.post("/chat/completions", json=question())
        assert isinstance(r, requests.Response)
        assert type(r) is not plain.Response
        assert text_of(r) == "based"
        assert s.sent == 1


def test_sessions_can_be_pickled_and_copied(responses):
    """With their options, and without what runs."""
    responses.post(CHAT, json=answer("again"))
    with requests.Session(rpm=77) as s:
        s.headers["X-Tag"] = "one"
        assert s.post(CHAT, json=question()).ok
        for twin in (pickle.loads(pickle.dumps(s)), copy.copy(s)):
            with twin:
                assert twin.headers["X-Tag"] == "one"
                assert twin._runtime.limits.rpm == 77
                assert text_of(twin.post(CHAT, json=question())) == "again"
    adapter = pickle.loads(pickle.dumps(requests.LLMAdapter(rpm=77, pool_maxsize=5)))
    assert (adapter._runtime_now().limits.rpm, adapter._runtime_now().lane.width) == (77, 5)
    adapter.close()


def test_what_a_session_adds_works(responses, session, tmp_path):
    """status, wait, gather, cancel, map and report, as of a client; and no files of calls."""
    responses.post(CHAT, json=answer("yes"))
    s = session()
    texts = s.gather([s.post(CHAT, json=question()) for _ in range(3)], lambda r: r.json()["usage"]["total_tokens"])
    assert texts == [2, 2, 2]
    assert s.map(lambda n: type(s.post(CHAT, json=question(str(n)))), range(3)) == [plain.Response] * 3
    assert s.wait(5)
    assert s.status().answered == 6
    assert "<html" in s.report(tmp_path / "report.html").lower()
    assert s.cancel() == 0
    for files in (s.batch, s.estimate):
        with pytest.raises(TypeError, match="OpenAI"):
            files("in.jsonl", "out.jsonl") if files == s.batch else files("in.jsonl")


def test_a_session_that_never_calls_a_provider_makes_nothing(responses):
    """It costs what a session of requests costs."""
    responses.get("https://example.com/", body=b"")
    with requests.Session() as s:
        assert s.get("https://example.com/").ok
    assert s._queue_runtime is None
    assert s._queue_adapter is None


def test_keys_are_nowhere(responses, session, caplog, no_rest):
    """Not in a repr, a log record, a status or an error of ours."""
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        headers = {"Authorization": f"Bearer {SECRET}"}
        s = session(max_wait=5)
        s.headers.update(headers)
        responses.post(CHAT, status=500)
        responses.post("https://api.anthropic.com/v1/messages", body=plain.ConnectionError("gone"))
        r = s.post(CHAT, json=question())
        queued = repr(r)
        bad = s.post("https://api.anthropic.com/v1/messages", json=question(), headers={"x-api-key": SECRET})
        texts = [queued, repr(bad.exception()), str(bad.exception().__notes__), repr(r.result()), repr(r), repr(bad)]
        runtime = s._runtime
        texts += [repr(s), repr(s.status()), repr(runtime.worker), repr(list(runtime.ledger.pools)), repr(KEY)]
        texts += [record.getMessage() for record in caplog.records] + [str(each.message) for each in said]
    assert SECRET not in "\n".join(texts)
