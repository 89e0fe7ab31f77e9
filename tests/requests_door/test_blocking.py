"""Calls that wait: by mode, by a mounted adapter, by patching; they return plain Responses."""

import concurrent.futures
import sys
from pathlib import Path

import pytest
import requests as plain

from ratelimited_llm import requests

sys.path.insert(0, str(Path(__file__).parent))
from asking import CHAT, KEY, answer, question, refusal, text_of

REFUSED = {"status": 429, "headers": {"retry-after-ms": "20"}}


@pytest.fixture
def mounted():
    """A session of plain requests with an LLMAdapter: `mounted(rpm=500)`."""
    sessions = []

    def make(**options):
        s = plain.Session()
        s.mount("https://api.openai.com/", requests.LLMAdapter(**options))
        s.mount("http://127.0.0.1", requests.LLMAdapter(**options))
        sessions.append(s)
        return s

    yield make
    for s in sessions:
        s.close()


def refused_then(responses, text):
    """Play a provider that refuses once."""
    responses.post(CHAT, json=refusal(), **REFUSED)
    responses.post(CHAT, json=answer(text))


@pytest.mark.parametrize("how", ["session", "configure", "environment"])
def test_in_blocking_mode_a_call_returns_the_plain_response(responses, session, monkeypatch, how):
    """With the 429 waited out inside, and hooks called once."""
    if how == "configure":
        requests.configure(mode="blocking")
    if how == "environment":
        monkeypatch.setenv("RATELIMITED_LLM_MODE", "blocking")
    seen = []
    s = session(mode="blocking") if how == "session" else requests
    refused_then(responses, "there")
    r = s.post(CHAT, json=question(), headers=KEY, hooks={"response": lambda r, *a, **k: seen.append(r.status_code)})
    assert type(r) is plain.Response
    assert (text_of(r), seen) == ("there", [200])
    assert r.elapsed.total_seconds() < 0.02


def test_blocking_calls_of_many_threads_share_the_queue(simulator, session):
    """As scripts with their own pool have them; nothing is refused."""
    provider = simulator(rpm=60, period=0.5)
    s = session(mode="blocking")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(s.post, provider.base_url + "/chat/completions", json=question(str(n))) for n in range(64)]
        assert [text_of(each.result()) for each in calls] == [str(n) for n in range(64)]
    assert provider.counters.refused == 0


def test_a_mounted_adapter_paces_a_session_of_plain_requests(responses, mounted):
    """LLM calls wait for their limits; everything else goes straight."""
    s = mounted(rpm=500)
    refused_then(responses, "there")
    responses.get("https://api.openai.com/v1/models", status=429)
    r = s.post(CHAT, json=question(), headers=KEY, timeout=(5, 12))
    assert type(r) is plain.Response
    assert text_of(r) == "there"
    assert r.request.req_kwargs["timeout"] == (5, 12)
    assert s.get("https://api.openai.com/v1/models").status_code == 429


def test_a_mounted_adapter_hands_on_what_is_left(responses, mounted, no_rest):
    """The Response with its status, or the exception of requests."""
    s = mounted()
    responses.post(CHAT, json={}, status=500)
    assert s.post(CHAT, json=question()).status_code == 500
    assert len(responses.calls) == 3
    responses.replace("POST", CHAT, body=plain.ConnectTimeout("slow"))
    with pytest.raises(plain.ConnectTimeout, match="slow"):
        s.post(CHAT, json=question())
    assert len(responses.calls) == 6


def test_a_mounted_adapter_streams(simulator, mounted):
    """The place is held until the stream has ended."""
    provider = simulator()
    s = mounted(max_concurrency=1)
    url = provider.base_url + "/chat/completions"
    for _ in range(3):
        with s.post(url, json=question("a b c", stream=True), stream=True) as r:
            assert list(r.iter_lines())
    assert s.post(url, json=question()).ok


def test_an_adapter_mounted_on_a_session_of_ours_does_the_pacing(responses, session):
    """Once, and blocking: it was mounted for that."""
    s = session()
    s.mount("https://api.openai.com/", requests.LLMAdapter(rpm=500))
    refused_then(responses, "there")
    r = s.post(CHAT, json=question())
    assert type(r) is plain.Response
    assert text_of(r) == "there"
    assert len(responses.calls) == 2


@pytest.mark.parametrize("options", [{"rpm": 0}, {"nonsense": 1}, {"max_retries": -1}, {"priority": "soon"}])
def test_options_that_make_no_sense_are_refused_at_once(options):
    """Wherever they can be given, and nothing is changed by it."""
    for take in (requests.LLMAdapter, requests.Session, requests.configure, requests.patch_requests):
        with pytest.raises((TypeError, ValueError)):
            take(**options)
    assert plain.Session.get_adapter.__module__ == "requests.sessions"


def test_patched_every_session_of_the_process_is_paced(responses):
    """Those of third-party code, and `requests.post` itself; until it is undone."""
    before = plain.Session.get_adapter
    requests.patch_requests(rpm=500)
    requests.patch_requests()
    refused_then(responses, "there")
    r = plain.post(CHAT, json=question(), headers=KEY)
    assert type(r) is plain.Response
    assert text_of(r) == "there"
    with plain.Session() as s:
        assert isinstance(s.get_adapter(CHAT), plain.adapters.HTTPAdapter)
        assert s.get_adapter(CHAT).max_retries.total == 0
        responses.get("https://example.com/", status=429)
        assert s.get("https://example.com/").status_code == 429
    assert requests.post(CHAT, json=question()).running() in (True, False)  # ours stay futures
    requests.unpatch_requests()
    requests.unpatch_requests()
    assert plain.Session.get_adapter is before
    responses.replace("POST", CHAT, json={}, status=429)
    assert plain.post(CHAT, json=question()).status_code == 429


def test_patched_calls_of_many_threads_share_one_limit(simulator):
    """max_concurrency holds for all of them."""
    provider = simulator(latency=0.02)
    requests.patch_requests(max_concurrency=2, rpm=60_000)
    url = provider.base_url + "/chat/completions"
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert all(pool.map(lambda n: plain.post(url, json=question(str(n))).ok, range(12)))
    assert provider.counters.max_in_flight <= 2


def test_an_interrupt_while_it_waits_leaves_no_place_taken(responses, session):
    """Ctrl-C in a blocking call is the caller's, and the next call goes."""
    s = session(mode="blocking", max_concurrency=1, max_retries=0)

    def interrupted(request):
        raise KeyboardInterrupt

    responses.add_callback("POST", CHAT, interrupted)
    with pytest.raises(KeyboardInterrupt):
        s.post(CHAT, json=question())
    responses.reset()
    responses.post(CHAT, json=answer())
    assert s.post(CHAT, json=question()).ok
