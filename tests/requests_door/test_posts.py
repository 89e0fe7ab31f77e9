"""Calls to a provider that `responses` plays: what is waited out, what is handed on, what passes straight through."""

import concurrent.futures
import io
import json
import pickle
import sys
import threading
from pathlib import Path

import pytest
import requests as plain
import responses as responses_library
from responses import matchers

from ratelimited_llm import ResponseFuture, requests

sys.path.insert(0, str(Path(__file__).parent))
from asking import CHAT, KEY, answer, question, refusal, text_of


def test_a_post_returns_at_once_a_future_that_is_its_response(responses):
    """Attributes, truth, iteration, `with`, isinstance and pickling are the Response's."""
    responses.post(CHAT, json=answer("yes"), headers={"x-request-id": "r1"})
    r = requests.post(CHAT, headers=KEY, json=question(), timeout=25)
    assert type(r).__mro__[1] is ResponseFuture
    assert isinstance(r, concurrent.futures.Future)
    assert isinstance(r, requests.Response)
    assert r
    assert (r.status_code, r.ok, r.reason, r.headers["X-Request-Id"]) == (200, True, "OK", "r1")
    assert text_of(r) == "yes"
    assert json.loads(b"".join(r)) == json.loads(r.text) == r.json()
    r.raise_for_status()
    assert r.request.url == CHAT
    assert r.ratelimit.state == "done"
    assert type(pickle.loads(pickle.dumps(r))) is plain.Response
    with requests.post(CHAT, json=question()) as other:
        assert other.ok


def test_a_429_is_waited_out_inside(responses):
    """The user's own `if r.status_code == 429` branch simply stops firing."""
    responses.post(CHAT, json=refusal(), status=429, headers={"retry-after-ms": "30"})
    responses.post(CHAT, json=refusal(), status=429, headers={"retry-after-ms": "30"})
    responses.post(CHAT, json=answer("third"))
    r = requests.post(CHAT, headers=KEY, json=question())
    assert (r.status_code, text_of(r), len(responses.calls)) == (200, "third", 3)
    assert (requests.status().refused, requests.status().answered) == (2, 1)


def test_hooks_never_meet_an_answer_that_is_waited_out(responses, session):
    """raise_for_status as a hook, which many sessions have, sees the last answer only."""
    seen = []
    s = session()
    s.hooks["response"] = [lambda r, *args, **kwargs: seen.append(r.status_code)]
    s.hooks["response"].append(lambda r, *args, **kwargs: r.raise_for_status())
    responses.post(CHAT, json=refusal(), status=429, headers={"retry-after-ms": "30"})
    responses.post(CHAT, json=answer())
    assert s.post(CHAT, json=question()).ok
    responses.replace("POST", CHAT, json={"error": {"code": "invalid_api_key"}}, status=401)
    with pytest.raises(plain.HTTPError, match="401"):
        s.post(CHAT, json=question()).result()
    assert seen == [200, 401]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"code": "invalid_value"}}),
        (401, {"error": {"code": "invalid_api_key"}}),
        (404, {}),
        (413, {}),
        (429, refusal("insufficient_quota")),
    ],
)
def test_what_waiting_does_not_help_is_handed_on_at_once(responses, status, body):
    """As a Response with its status, and no exception: one request, no retry."""
    responses.post(CHAT, json=body, status=status)
    r = requests.post(CHAT, headers=KEY, json=question())
    assert not r
    assert (r.status_code, r.json(), len(responses.calls)) == (status, body, 1)
    with pytest.raises(plain.HTTPError):
        r.raise_for_status()
    assert requests.status().failed == 1


@pytest.mark.parametrize("status", [408, 409, 500, 503, 529])
def test_trouble_is_retried_and_then_handed_on_as_it_is(responses, no_rest, status):
    """Two retries, then the Response with its status."""
    responses.post(CHAT, json={"error": {"message": "trouble"}}, status=status)
    r = requests.post(CHAT, headers=KEY, json=question())
    assert (r.status_code, len(responses.calls)) == (status, 3)
    assert r.json() == {"error": {"message": "trouble"}}
    assert requests.status().retries == 2


def test_trouble_that_passes_is_never_seen(responses, no_rest):
    """A 503, a broken connection, an answer that breaks off: then the answer."""
    responses.post(CHAT, status=503)
    responses.post(CHAT, body=plain.ConnectionError("reset"))
    responses.post(CHAT, body=plain.exceptions.ChunkedEncodingError("broken off"))
    responses.post(CHAT, json=answer("at last"))
    requests.configure(max_retries=3)
    assert text_of(requests.post(CHAT, json=question())) == "at last"


@pytest.mark.parametrize("kind", [plain.ConnectionError, plain.ConnectTimeout, plain.ReadTimeout])
def test_a_connection_that_stays_broken_raises_what_requests_raises(responses, no_rest, kind):
    """At the first use, the very exception; and the submit is noted on it."""
    error = kind("gone")
    responses.post(CHAT, body=error)
    r = requests.post(CHAT, json=question(), timeout=(5, 12))
    with pytest.raises(kind) as caught:
        _ = r.status_code
    assert caught.value is error
    assert any("test_posts.py" in note for note in caught.value.__notes__)
    assert len(responses.calls) == 3


def test_max_retries_is_how_often(responses, session):
    """0 for never; refusals by a limit are waited out all the same."""
    responses.post(CHAT, json=refusal(), status=429, headers={"retry-after-ms": "20"})
    responses.post(CHAT, status=500)
    assert session(max_retries=0).post(CHAT, json=question()).status_code == 500
    assert len(responses.calls) == 2


@pytest.mark.parametrize("timeout", [25, 0.5, (5, 12), (None, 3), None])
def test_timeouts_reach_the_adapter_as_they_were_given(responses, timeout):
    """A number, or (connect, read)."""
    responses.post(CHAT, json=answer())
    r = requests.post(CHAT, json=question(), timeout=timeout)
    assert r.request.req_kwargs["timeout"] == timeout


def test_a_deadline_shortens_timeouts(responses, session):
    """An attempt does not last longer than what is left of the call's life."""
    responses.post(CHAT, json=answer())
    s = session(deadline=2.0)
    for timeout in (25, (0.5, 30), None):
        given = s.post(CHAT, json=question(), timeout=timeout).request.req_kwargs["timeout"]
        assert all(part <= 2.0 for part in (given if isinstance(given, tuple) else (given,)))


@pytest.mark.parametrize("timeout", [(1, 2, 3), "soon", -1, 0])
def test_a_timeout_that_makes_no_sense_raises_at_the_call(timeout):
    """As requests does, and not when the answer is read."""
    with pytest.raises(ValueError, match=r"(?i)timeout"):
        requests.post(CHAT, json=question(), timeout=timeout)


def test_bad_input_raises_at_the_call():
    """What requests refuses when it prepares a request."""
    with pytest.raises(plain.exceptions.MissingSchema):
        requests.post("api.openai.com/v1/chat/completions", json=question())
    with pytest.raises(plain.exceptions.InvalidURL):
        requests.post("https://[/v1/chat/completions", json=question())
    with pytest.raises(plain.exceptions.InvalidJSONError):
        requests.post(CHAT, json={"temperature": float("nan")})
    with pytest.raises(TypeError):
        requests.post(CHAT, json={"file": object()})
    with pytest.raises(plain.exceptions.InvalidHeader):
        requests.post(CHAT, json=question(), headers={"Authorization": "two\nlines"})
    with pytest.raises(TypeError):
        requests.post(CHAT, json=question(), no_such_argument=1)


def test_a_body_that_is_no_json_raises_when_it_is_read_as_such(responses):
    """The exception of requests, as ever."""
    responses.post(CHAT, body=b"<html>")
    r = requests.post(CHAT, json=question())
    assert r.text == "<html>"
    with pytest.raises(plain.exceptions.JSONDecodeError):
        r.json()


def test_everything_else_passes_straight_through(responses):
    """Other methods and other hosts return the plain Response."""
    responses.get("https://api.openai.com/v1/models", json={"data": []})
    responses.post("https://example.com/chat/completions", json={}, status=429)
    responses.put("https://example.com/x", body=b"")
    for r in (
        requests.get("https://api.openai.com/v1/models"),
        requests.post("https://example.com/chat/completions", data={"a": 1}),
        requests.request("PUT", "https://example.com/x"),
    ):
        assert type(r) is plain.Response
    with pytest.raises(plain.ConnectionError):
        requests.delete("https://nowhere.example")


def test_what_is_sent_is_the_request_as_of_the_call(responses, session):
    """Body, headers, cookies, params, auth of the session: none of it changes any more."""
    gate = threading.Event()
    bodies = []

    def reply(request):
        gate.wait(5)
        bodies.append((json.loads(request.body)["messages"][0]["content"], request.headers["X-Tag"], request.url))
        return 200, {}, json.dumps(answer())

    responses.add_callback("POST", CHAT, reply)
    s, body = session(max_concurrency=1), question("first")
    s.headers["X-Tag"] = "one"
    s.params = {"q": "1"}
    first = s.post(CHAT, json=body)
    second = s.post(CHAT, json=body)
    body["messages"][0]["content"] = "changed"
    s.headers["X-Tag"] = "two"
    s.params = {}
    gate.set()
    assert first.ok
    assert second.ok
    assert bodies == [("first", "one", CHAT + "?q=1")] * 2


def test_a_prepared_request_can_be_sent(responses, session):
    """`session.send(prepared)` is queued as `session.post` is."""
    responses.post(CHAT, json=answer("prepared"))
    s = session()
    prepared = s.prepare_request(plain.Request("POST", CHAT, json=question(), headers=KEY))
    r = s.send(prepared, timeout=3)
    prepared.headers["Authorization"] = "changed"
    assert text_of(r) == "prepared"
    assert r.request.headers["Authorization"] == KEY["Authorization"]
    with pytest.raises(ValueError, match="PreparedRequest"):
        s.send(plain.Request("POST", CHAT))


def test_redirects_are_followed(responses):
    """A 307 keeps the POST, and its answer is the future's; history is there."""
    other = "https://eu.api.openai.com/v1/chat/completions"
    responses.post(CHAT, status=307, headers={"Location": other})
    responses.post(other, json=answer("there"))
    r = requests.post(CHAT, json=question())
    assert (text_of(r), r.url, [each.status_code for each in r.history]) == ("there", other, [307])
    r = requests.post(CHAT, json=question(), allow_redirects=False)
    assert (r.status_code, r.is_redirect, r.next.url) == (307, True, other)


def test_cookies_stay_with_their_session(responses, session):
    """A session keeps them; calls without one do not share any."""
    responses.post(CHAT, json=answer(), headers={"Set-Cookie": "a=1"})
    s = session()
    assert s.post(CHAT, json=question()).cookies["a"] == "1"
    assert s.cookies["a"] == "1"
    assert requests.post(CHAT, json=question()).cookies["a"] == "1"
    assert "Cookie" not in requests.post(CHAT, json=question(), cookies={}).request.headers
    assert requests.post(CHAT, json=question(), cookies={"b": "2"}).request.headers["Cookie"] == "b=2"


def test_headers_teach_the_limits(responses):
    """The first answer tells them; status() shows them."""
    responses.post(CHAT, json=answer(), headers={
        "x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-limit-tokens": "30000", "x-ratelimit-remaining-tokens": "29000",
    })  # fmt: skip
    assert requests.post(CHAT, json=question(), headers=KEY).ok
    limits = {each.dimension: each.limit for each in requests.status().pools[0].limits}
    assert limits == {"rpm": 500, "tpm": 30_000}


def test_usage_is_counted_and_taught(responses):
    """The tokens of the body settle the call, and the next one's estimate; of a large body too."""
    responses.post(CHAT, json={"data": [[0.5] * 60_000], **answer(tokens=101)})
    assert requests.post(CHAT, json=question(), headers=KEY).ok
    status = requests.status()
    assert (status.input_tokens, status.output_tokens) == (100, 1)
    # An answer that speaks of usage inside a string has still said nothing.
    responses.replace("POST", CHAT, json={"text": "x" * 70_000 + json.dumps(answer())})
    assert requests.post(CHAT, json=question(), headers=KEY).ok
    assert requests.status().input_tokens == 100


def test_files_are_uploaded_with_the_model_that_the_form_names(responses):
    """The form is built at the call, so the file may be closed then."""
    url = "https://api.openai.com/v1/audio/transcriptions"
    responses.post(url, json={"text": "said"}, match=[matchers.header_matcher(KEY)])
    with io.BytesIO(b"sound") as file:
        r = requests.post(url, headers=KEY, files={"file": ("a.wav", file)}, data={"model": "whisper-1"})
    assert r.json() == {"text": "said"}
    assert requests.status().pools[0].family == "whisper-1"


@pytest.mark.parametrize("body", [io.BytesIO(b'{"model": "m"}'), (part for part in (b'{"model"', b': "m"}'))])
def test_a_body_that_is_read_while_it_is_sent_is_waited_for(responses, body):
    """An open file, a generator: the caller may close it as soon as the call returns, so it returns later."""
    responses.post(CHAT, json=answer())
    assert type(requests.post(CHAT, data=body)) is plain.Response


class Reading(requests.adapters.BaseAdapter):
    """An adapter of the user's own, which reads the bodies, and answers without urllib3."""

    def __init__(self, *statuses):
        super().__init__()
        self.statuses = list(statuses)
        self.bodies = []

    def send(self, request, **kwargs):
        self.bodies.append(request.body.read() if hasattr(request.body, "read") else b"".join(request.body))
        response = plain.Response()
        response.request, response.url, response.status_code = request, request.url, self.statuses.pop(0)
        response.raw = io.BytesIO(json.dumps(answer()).encode())
        response.headers["retry-after-ms"] = "20"
        return response

    def close(self):
        pass


def test_a_file_is_rewound_for_another_attempt_and_a_generator_is_not(session):
    """What cannot be sent again is not: its refusal is handed on."""
    s, adapter = session(), Reading(429, 200, 429)
    s.mount("https://", adapter)
    assert s.post(CHAT, data=io.BytesIO(b"whole")).status_code == 200
    assert adapter.bodies == [b"whole", b"whole"]
    assert s.post(CHAT, data=(part for part in (b"a", b"b"))).status_code == 429


def test_a_stream_of_an_adapter_of_the_users_own_keeps_its_place_until_it_is_forgotten(session):
    """Nobody says when its bytes have ended, so the end of the Response is the end."""
    s = session(max_concurrency=1)
    s.mount("https://", Reading(200, 200))
    first = s.post(CHAT, data=(part for part in (b"a",)), stream=True)
    assert s.status().in_flight == 1
    assert first.json()
    del first
    assert s.post(CHAT, data=(part for part in (b"b",)), stream=True).ok


def test_a_hook_that_fails_fails_its_call(responses):
    """And no retry; the place is given back."""
    responses.post(CHAT, json=answer())

    def hook(response, *args, **kwargs):
        raise KeyError("mine")

    requests.configure(max_concurrency=1)
    with pytest.raises(KeyError, match="mine"):
        requests.post(CHAT, json=question(), hooks={"response": hook}).result()
    assert requests.post(CHAT, json=question()).ok
    assert len(responses.calls) == 2


def test_a_hook_can_make_calls_of_its_own(responses, session):
    """They are paced, and waited for: it gets Responses, even where only one may be in flight."""
    responses.post(CHAT, json=answer("inner"))
    s = session(max_concurrency=1)
    seen = []

    def hook(response, *args, **kwargs):
        seen.append(s.post(CHAT, json=question(), hooks={"response": lambda r, *a, **k: r}))
        return response

    assert s.post(CHAT, json=question(), hooks={"response": hook}).ok
    assert type(seen[0]) is plain.Response


def test_digest_auth_is_answered_by_the_thread_that_asked(responses):
    """Its state belongs to a thread, so such calls wait."""
    challenge = {"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth"'}
    responses.post(CHAT, status=401, headers=challenge)
    responses.post(CHAT, json=answer("in"))
    r = requests.post(CHAT, json=question(), auth=requests.auth.HTTPDigestAuth("u", "p"))
    assert type(r) is plain.Response
    assert text_of(r) == "in"


def test_futures_can_be_cancelled_and_awaited_as_any(responses, session):
    """cancel, as_completed and callbacks; what was cancelled is never sent."""
    gate = threading.Event()

    def reply(request):
        gate.wait(5)
        return 200, {}, json.dumps(answer())

    responses.add_callback("POST", CHAT, reply)
    s = session(max_concurrency=1)
    futures = [s.post(CHAT, json=question(str(n))) for n in range(3)]
    assert futures[1].cancel()
    gate.set()
    done = [f for f in concurrent.futures.as_completed(futures) if not f.cancelled()]
    assert [f.result().status_code for f in done] == [200, 200]
    assert len(responses.calls) == 2


def test_disabled_it_is_requests(responses, monkeypatch):
    """RATELIMITED_LLM_DISABLE=1: not even a 429 is touched."""
    monkeypatch.setenv("RATELIMITED_LLM_DISABLE", "1")
    responses.post(CHAT, json=refusal(), status=429)
    with requests.Session() as s:
        for r in (requests.post(CHAT, json=question()), s.post(CHAT, json=question())):
            assert type(r) is plain.Response
            assert r.status_code == 429


def test_an_adapters_own_retries_are_left_alone(responses, no_rest, session):
    """urllib3's Retry on a mounted adapter: it has its say first, and RetryError after ours."""
    retry = requests.packages.urllib3.util.Retry(1, status_forcelist=[503], allowed_methods=["POST"], backoff_factor=0)
    s = session(max_retries=1)
    s.mount("https://api.openai.com/", requests.adapters.HTTPAdapter(max_retries=retry))
    responses.post(CHAT, status=503)
    with pytest.raises(plain.exceptions.RetryError):
        s.post(CHAT, json=question()).result()
    assert len(responses.calls) == 4
    assert isinstance(responses, responses_library.RequestsMock)


@pytest.mark.parametrize("read", [lambda r: list(r.iter_lines()), lambda r: r.text, lambda r: r.close()])
def test_a_stream_out_of_a_test_double_ends_as_well(responses, session, read):
    """What `responses` plays has no connection that could be given back."""
    events = "".join(f"data: {json.dumps(each)}\n\n" for each in ({"choices": []}, answer(tokens=9)))
    responses.post(CHAT, body=events + "data: [DONE]\n\n", content_type="text/event-stream")
    s = session(max_concurrency=1)
    for _ in range(2):
        r = s.post(CHAT, json=question(stream=True), stream=True)
        assert r.status_code == 200
        read(r)
    assert s.status().in_flight == 0
