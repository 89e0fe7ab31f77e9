"""Raw requests over real connections to the simulator: the promise of the door, its limits, its streams, its ends."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests as plain

from ratelimited_llm import OpenAI, as_future, requests
from ratelimited_llm.requests import queued_session
from ratelimited_llm.simulator import Fault

sys.path.insert(0, str(Path(__file__).parent))
from asking import KEY, question, text_of
from forking import said_in_child
from waiting import wait_until_collected


def chat_at(provider):
    """The URL of chat completions."""
    return provider.base_url + "/chat/completions"


def test_a_list_of_posts_is_answered_whole_and_none_is_refused(simulator):
    """The promise: one import changed."""
    provider = simulator(rpm=60, period=1.0, latency=0.02)
    began = time.monotonic()
    answers = [requests.post(chat_at(provider), headers=KEY, json=question(str(n)), timeout=25) for n in range(72)]
    assert time.monotonic() - began < 1.0
    assert [text_of(r) for r in answers] == [str(n) for n in range(72)]
    assert time.monotonic() - began > 0.15  # 60 at once, and the others one each 17 ms
    assert (provider.counters.answered, provider.counters.refused) == (72, 0)


def test_timeouts_count_from_dispatch_and_not_in_the_queue(simulator, session):
    """The last one waits longer for its turn than it may take."""
    provider = simulator(latency=0.1)
    s = session(max_concurrency=1, max_retries=0)
    answers = [s.post(chat_at(provider), json=question(), timeout=(5, 0.4)) for _ in range(6)]
    assert all(answers)
    assert answers[-1].ratelimit.queued_s > 0.4


def test_a_raw_post_and_a_client_with_the_same_key_share_one_budget(simulator):
    """What one has spent, the other does not have; and what one has learned, the other knows."""
    provider = simulator(rpm=60, period=1.0)
    with OpenAI(base_url=provider.base_url, api_key="sk-test") as client:
        mixed = []
        for n in range(32):
            mixed.append(requests.post(chat_at(provider), headers=KEY, json=question(str(n))))
            mixed.append(client.chat.completions.create(**question(str(n))))
        assert all(as_future(each).result() for each in mixed)
        pools = {next(iter(runtime.ledger.pools)) for runtime in (client._runtime, requests._shared[0]._runtime)}
    assert len(pools) == 1
    assert provider.counters.refused == 0
    requests.post(chat_at(provider), headers={"Authorization": "Bearer other"}, json=question()).result()
    assert len(requests._shared[0]._runtime.ledger.pools) == 2


@pytest.mark.parametrize("name", ["azure", "groq", "anthropic"])
def test_the_other_providers_are_paced_too(simulator, name):
    """Each by its own URL."""
    provider = simulator(name, rpm=6000)
    path = {
        "azure": "/openai/deployments/m/chat/completions?api-version=2024-10-21",
        "groq": "/openai/v1/chat/completions",
        "anthropic": "/v1/messages",
    }[name]
    key = {"azure": "api-key", "groq": "Authorization", "anthropic": "x-api-key"}[name]
    body = question(max_tokens=9)
    answers = [requests.post(provider.url + path, headers={key: "k"}, json=body) for _ in range(10)]
    assert all(answers)
    assert (provider.counters.answered, provider.counters.refused) == (10, 0)
    assert requests.status().input_tokens > 0


def test_elapsed_is_the_answers_time_and_not_the_queues(simulator, session):
    """From dispatch to the headers."""
    provider = simulator(latency=0.05)
    s = session(max_concurrency=1)
    answers = [s.post(chat_at(provider), json=question()) for _ in range(5)]
    assert all(0.04 < r.elapsed.total_seconds() < 0.15 for r in answers)
    assert answers[4].ratelimit.queued_s > 0.15


def test_a_timeout_is_the_reads_and_raises_what_requests_raises(simulator, session):
    """ReadTimeout, from the server's silence and not from the queue."""
    provider = simulator(latency=0.3)
    s = session(max_retries=0)
    with pytest.raises(plain.ReadTimeout):
        s.post(chat_at(provider), json=question(), timeout=(5, 0.05)).raise_for_status()
    with pytest.raises(plain.ConnectionError):
        s.post("http://127.0.0.1:1/v1/chat/completions", json=question(), timeout=1).json()


def test_dropped_connections_and_trouble_are_retried(simulator, no_rest):
    """Every call is answered."""
    provider = simulator(faults=[Fault("reset", at=(1,)), Fault(status=503, at=(3,)), Fault("truncate", at=(5,))])
    answers = [requests.post(chat_at(provider), json=question(str(n))) for n in range(4)]
    assert [r.status_code for r in answers] == [200] * 4
    assert requests.status().retries == 3


# -- streams ----------------------------------------------------------------------------------------------------------


def ask_for_stream(s, provider, **more):
    """A streamed chat call."""
    body = question("one two three four", stream=True, stream_options={"include_usage": True})
    return s.post(chat_at(provider), headers=KEY, json=body, stream=True, **more)


@pytest.mark.parametrize(
    "read",
    [
        lambda r: list(r.iter_lines()),
        lambda r: list(r.iter_content(None)),
        lambda r: list(r),
        lambda r: r.content,
        lambda r: r.raw.read(),
    ],
)
def test_a_stream_holds_its_place_until_it_was_read(simulator, session, read):
    """However it is read; its usage is counted where the bytes pass by."""
    provider = simulator()
    s = session(max_concurrency=1)
    first, second = ask_for_stream(s, provider), ask_for_stream(s, provider)
    assert b"[DONE]" in (b"".join(got) if isinstance(got := read(first), list) else got)
    assert second.status_code == 200
    read(second)
    assert s.status().in_flight == 0


def test_a_stream_tells_its_usage(simulator, session):
    """In the last event; whether the caller reads it while it comes, or requests has read it whole."""
    provider = simulator()
    s = session()
    assert ask_for_stream(s, provider).content.endswith(b"data: [DONE]\n\n")
    first = s.status().output_tokens
    assert first > 0
    body = question("one two three four", stream=True, stream_options={"include_usage": True})
    assert s.post(chat_at(provider), json=body).text.endswith("data: [DONE]\n\n")
    assert s.status().output_tokens == 2 * first


def test_an_error_inside_a_stream_ends_it(simulator, session):
    """The status was 200: the caller reads the event, as ever, and the place is given back."""
    provider = simulator(
        faults=Fault("error_event", type="server_error", code="server_error", message="trouble", at=(1,))
    )
    s = session(max_concurrency=1)
    assert b"error" in ask_for_stream(s, provider).content
    assert b"[DONE]" in ask_for_stream(s, provider).content


def test_a_stream_that_breaks_off_raises_and_gives_its_place_back(simulator, session):
    """It is never sent again: the caller has seen a part of it."""
    provider = simulator(faults=Fault("truncate", at=(1,)))
    s = session(max_concurrency=1)
    with pytest.raises(plain.exceptions.ChunkedEncodingError):
        list(ask_for_stream(s, provider).iter_lines())
    assert b"[DONE]" in ask_for_stream(s, provider).content
    assert provider.counters.requests == 2


@pytest.mark.parametrize("end", ["close", "with", "forget", "break"])
def test_a_stream_that_is_not_read_gives_its_place_back(simulator, session, end):
    """Closed, left, or collected; the next call goes then."""
    provider = simulator(output_tokens=200)
    s = session(max_concurrency=1)
    r = ask_for_stream(s, provider)
    assert next(r.iter_lines()).startswith(b"data:")
    after = s.post(chat_at(provider), json=question())
    assert not after.running()
    if end == "close":
        r.close()
    elif end == "with":
        with r:
            pass
    elif end == "break":
        for _ in r.iter_lines():
            break
        r.close()
    del r
    wait_until_collected(after.done)
    assert after.ok


def test_a_refused_stream_is_waited_out_too(simulator, session):
    """429 before the first byte."""
    provider = simulator(faults=Fault(status=429, headers={"retry-after-ms": "20"}, at=(1,)))
    assert b"[DONE]" in ask_for_stream(session(), provider).content
    assert provider.counters.requests == 2


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_leaving_a_session_waits_for_its_calls(simulator):
    """And closes its connections; none is left open. It can be used again, as any session."""
    provider = simulator(latency=0.05)
    with requests.Session(max_concurrency=2) as s:
        answers = [s.post(chat_at(provider), headers=KEY, json=question(str(n))) for n in range(4)]
    assert [r.done() for r in answers] == [True] * 4
    assert s.post(chat_at(provider), json=question()).ok
    s.close()


def test_shutdown_cancels_what_waits(simulator, session):
    """As an executor's."""
    provider = simulator(latency=0.04)
    s = session(max_concurrency=1)
    answers = [s.post(chat_at(provider), json=question()) for _ in range(5)]
    s.shutdown(cancel_futures=True)
    assert all(r.done() for r in answers)
    assert sum(r.cancelled() for r in answers) >= 3


def test_many_threads_may_use_one_session(simulator, session):
    """Each gets its own answers."""
    provider = simulator()
    s, wrong = session(), []

    def ask(name):
        answers = [s.post(chat_at(provider), json=question(f"{name}-{n}")) for n in range(6)]
        wrong.extend(n for n, r in enumerate(answers) if text_of(r) != f"{name}-{n}")

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert provider.counters.answered == 36


def test_connections_are_used_again(simulator):
    """Also by calls without a session, which in requests connect each time."""
    provider = simulator(latency=0.01)
    for _ in range(3):
        answers = [requests.post(chat_at(provider), json=question()) for _ in range(5)]
        assert all(answers)
    assert provider.counters.connections <= 5


def test_a_closed_session_has_no_open_socket_whoever_still_knows_its_connections(simulator):
    """As the traceback of a failed attempt does, until the garbage is collected; and it can be used again."""
    provider = simulator()
    session = requests.Session(progress=False)
    for _ in range(2):
        assert session.post(chat_at(provider), json=question()).status_code == 200
        (pool,) = queued_session._pools(session._queue_adapter)
        (socket,) = [connection.sock for connection in pool.pool.queue if connection is not None]
        session.close()
        assert socket.fileno() == -1


def test_a_burst_wider_than_requests_own_pool_keeps_its_connections(simulator, session, caplog):
    """urllib3 keeps 10 for a host, and complains of every one that it throws away."""
    provider = simulator(rpm=60_000, latency=1.0)
    s = session(rpm=60_000)
    answers = [s.post(chat_at(provider), json=question()) for _ in range(60)]
    assert all(answers)
    assert provider.counters.max_in_flight > 10
    assert "discarding" not in caplog.text


def test_a_blocking_pool_of_the_users_is_as_wide_as_it_is(simulator, session):
    """No call is sent to wait inside it, where its timeout would run."""
    provider = simulator(latency=0.02)
    s = session(rpm=60_000)
    s.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=2, pool_block=True))
    answers = [s.post(chat_at(provider), json=question()) for _ in range(8)]
    assert all(answers)
    assert provider.counters.max_in_flight <= 2


def test_the_child_of_a_fork_has_connections_of_its_own(simulator):
    """It would read the parent's answers otherwise."""
    provider = simulator()
    assert requests.post(chat_at(provider), json=question()).ok
    assert said_in_child(lambda: text_of(requests.post(chat_at(provider), json=question("child")))) == "child"
    assert text_of(requests.post(chat_at(provider), json=question("parent"))) == "parent"


SCRIPT = """
from ratelimited_llm import requests
import sys
rs = [requests.post(sys.argv[1], json={"model": "m", "messages": [{"role": "user", "content": str(n)}]}, timeout=5)
      for n in range(20)]
"""


def test_a_script_that_ends_sends_what_it_has_queued(simulator):
    """As any executor does; and it leaves no socket open."""
    provider = simulator(latency=0.01)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, chat_at(provider)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert provider.counters.answered == 20


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'{"usage": 7}', b'{"usage": {"total_tokens": -1}}', b"\xff" * 9]
)
def test_a_provider_that_tells_nonsense_harms_nothing(responses, body):
    """What cannot be read as usage is none."""
    responses.post("https://api.openai.com/v1/embeddings", body=body, content_type="application/json")
    r = requests.post("https://api.openai.com/v1/embeddings", json={"input": "a"})
    assert r.content == body
    assert requests.status().input_tokens == 0
