"""Outages, hooks that wait, adapters and environments of other people: nothing hangs, nothing is lost."""

import json
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import requests as plain

from ratelimited_llm import requests

sys.path.insert(0, str(Path(__file__).parent))
from asking import CHAT, answer, question, text_of
from waiting import wait_until_collected


def test_in_an_outage_every_call_ends_with_its_response(responses, no_rest, session):
    """Retries have a budget for all, so that most are given up early: with their Response all the same."""
    responses.post(CHAT, json={"error": {"message": "down"}}, status=503)
    s = session(rpm=1_000_000)
    answers = [s.post(CHAT, json=question(str(n))) for n in range(56)]
    assert {r.status_code for r in answers} == {503}
    assert 56 < len(responses.calls) < 168
    assert s.wait(10)  # an answer may be seen before it is counted
    status = s.status()
    assert (status.failed, status.in_flight, status.queued) == (56, 0, 0)
    assert status.errors[0].text.startswith("HTTPStatus 503")


def test_hooks_of_answers_that_are_given_up_may_wait_for_other_calls(responses, no_rest, session):
    """A hook that falls back to another model, say."""
    other = "https://api.groq.com/openai/v1/chat/completions"
    responses.post(CHAT, status=400)
    responses.post(other, json=answer("from elsewhere"))
    s = session()

    def fall_back(response, *args, **kwargs):
        if response.status_code == 400:
            return plain.Response() if not (r := s.post(other, json=question())).ok else r
        return None

    answers = [s.post(CHAT, json=question(str(n)), hooks={"response": fall_back}) for n in range(8)]
    assert [text_of(r) for r in answers] == ["from elsewhere"] * 8


def test_a_redirect_to_elsewhere_is_followed_plainly(responses):
    """Even out of the providers' hosts."""
    responses.post(CHAT, status=302, headers={"Location": "https://status.example.com/"})
    responses.get("https://status.example.com/", body="maintenance")
    r = requests.post(CHAT, json=question())
    assert (r.text, r.request.method) == ("maintenance", "GET")


def test_the_users_own_get_adapter_is_asked(responses):
    """A subclass that chooses adapters by itself goes on choosing them."""

    class Choosy(requests.Session):
        def get_adapter(self, url):
            self.asked = url
            return super().get_adapter(url)

    responses.post(CHAT, json=answer("chosen"))
    with Choosy() as s:
        assert text_of(s.post(CHAT, json=question())) == "chosen"
        assert s.asked == CHAT


def test_what_has_ended_keeps_nothing_alive(responses, session):
    """A session that is forgotten with its answers is collected."""
    responses.post(CHAT, json=answer())
    s = requests.Session()
    r = s.post(CHAT, json=question())
    assert r.ok
    s.close()
    gone = weakref.ref(s)
    del s, r
    responses.calls.reset()
    wait_until_collected(lambda: gone() is None)


def test_a_journal_of_the_environment_is_not_for_raw_requests(responses, session, monkeypatch, tmp_path):
    """No file is made, and nothing is replayed."""
    monkeypatch.setenv("RATELIMITED_LLM_JOURNAL", str(tmp_path / "run.db"))
    responses.post(CHAT, json=answer())
    s = session()
    for _ in range(2):
        assert s.post(CHAT, json=question()).ok
    assert len(responses.calls) == 2
    assert list(tmp_path.iterdir()) == []


def test_sessions_and_configurations_are_made_by_many_threads_at_once(responses):
    """Each call goes through one that is whole."""
    responses.post(CHAT, json=answer())
    wrong = []

    def work():
        try:
            for _ in range(3):
                requests.configure(rpm=100_000)
                assert requests.post(CHAT, json=question()).ok
                with requests.Session() as s:
                    assert s.post(CHAT, json=question()).ok
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


INTERRUPTED = """
import os, signal, sys, threading
from ratelimited_llm import requests
url = sys.argv[1]
rs = [requests.post(url, json={"model": "m", "messages": [{"role": "user", "content": str(n)}]}) for n in range(50)]
rs[0].result()
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
rs[-1].result()
"""


def test_ctrl_c_in_a_script_ends_it(simulator):
    """What waits is not sent, and the script ends with KeyboardInterrupt."""
    provider = simulator(rpm=30, latency=0.01)
    url = provider.base_url + "/chat/completions"
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, url],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
        env=os.environ,
    )
    assert done.returncode != 0
    assert "KeyboardInterrupt" in done.stderr
    assert provider.counters.requests < 50


def test_a_body_of_any_shape_is_estimated_without_harm(responses):
    """The provider judges it, not we."""
    responses.post(CHAT, json={"error": {"message": "no"}}, status=400)
    deep = "[" * 100_000
    for body in (b"", b"null", b"[1]", b"\xff\xfe", deep, json.dumps({"model": 7, "n": "many", "max_tokens": -5}), "{"):
        assert requests.post(CHAT, data=body).status_code == 400
