"""A journalled client: what was answered once is never sent again, by any later run; and nothing else is changed."""

import contextlib
import sqlite3
import threading
from concurrent.futures import wait

import pytest
from talking import ask

from ratelimited_llm import JournalError, shared_workers
from ratelimited_llm.anthropic import Anthropic
from ratelimited_llm.groq import Groq
from ratelimited_llm.openai import APIStatusError, InternalServerError, OpenAI
from ratelimited_llm.simulator import Fault
from ratelimited_llm.stores.journal_keys import Occurrences


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


@pytest.fixture
def run(door, path):
    """Make a client as a new run of the script would: the journal is opened again, and nothing is remembered."""
    before = []

    def start(cls, provider, **options):
        for client in before:
            client.close()
            client._runtime.journal.close()
        before[:] = [door(cls, provider, journal=path, **options)]
        return before[0]

    yield start
    for client in before:
        client.close()
        client._runtime.journal.close()


def texts(client, prompts):
    return [answer.choices[0].message.content for answer in [ask(client, prompt) for prompt in prompts]]


@pytest.mark.parametrize("mode", ["future", "blocking"])
@pytest.mark.parametrize("cls", [OpenAI, Groq])
def test_the_next_run_has_the_same_answers_and_sends_only_the_rest(run, simulator, cls, mode):
    provider = simulator("groq" if cls is Groq else "openai")
    prompts = [f"question {number}" for number in range(10)]
    first = texts(run(cls, provider, mode=mode), prompts)
    client = run(cls, provider, mode=mode)
    again = texts(client, [*prompts, "one more"])
    assert again[:10] == first
    assert provider.counters.requests == 11
    status = client.status()
    assert (status.replayed, status.answered, status.done, status.submitted) == (10, 1, 11, 11)


def test_an_answer_out_of_the_journal_is_the_sdks_own_object(run, simulator):
    provider = simulator()
    fresh = ask(run(OpenAI, provider), "hello").result()
    replayed = ask(run(OpenAI, provider), "hello")
    assert replayed.done()
    assert type(replayed.result()) is type(fresh)
    assert replayed.result() == fresh
    assert replayed._request_id == fresh._request_id
    assert replayed.ratelimit.replayed


def test_five_identical_samples_stay_five_answers(run, simulator):
    provider = simulator()
    first = texts(run(OpenAI, provider), ["sample"] * 5)
    assert texts(run(OpenAI, provider), ["sample"] * 5) == first
    assert provider.counters.requests == 5
    assert len(texts(run(OpenAI, provider), ["sample"] * 6)) == 6
    assert provider.counters.requests == 6


def test_what_differs_is_another_call_and_what_does_not_matter_is_not(run, simulator):
    provider = simulator()
    client = run(OpenAI, provider)
    ask(client, "hello").result()
    client = run(OpenAI, provider)
    ask(client.with_options(timeout=5, priority="high"), "hello").result()
    assert provider.counters.requests == 1
    ask(client, "hello", temperature=0.5).result()
    ask(client, "hello", model="gpt-4.1").result()
    assert provider.counters.requests == 3


def test_raw_responses_and_extra_bodies_are_replayed(run, simulator):
    provider = simulator()

    def raw(client):
        body = {"messages": [{"role": "user", "content": "x"}], "model": "gpt-4.1-mini", "extra_body": {"top_k": 3}}
        return client.chat.completions.with_raw_response.create(**body)

    fresh = raw(run(OpenAI, provider))
    text, request_id = fresh.text, fresh.headers["x-request-id"]
    again = raw(run(OpenAI, provider))
    assert again.text == text
    assert again.headers["x-request-id"] == request_id
    assert again.parse().choices[0].message.content
    assert provider.counters.requests == 1


def test_messages_of_anthropic_are_replayed(run, simulator):
    provider = simulator("anthropic")

    def message(client, **more):
        return client.messages.create(
            model="claude-opus-4-6", max_tokens=50, messages=[{"role": "user", "content": "x"}], **more
        )

    fresh = message(run(Anthropic, provider)).content[0].text
    assert message(run(Anthropic, provider)).content[0].text == fresh
    events = [event.type for event in message(run(Anthropic, provider), stream=True)]
    assert [event.type for event in message(run(Anthropic, provider), stream=True)] == events
    assert provider.counters.requests == 2


# -- streams


def stream(client, prompt="stream"):
    return client.chat.completions.create(
        model="gpt-4.1-mini", messages=[{"role": "user", "content": prompt}], stream=True
    )


def read(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@pytest.mark.parametrize("mode", ["future", "blocking"])
def test_a_stream_is_recorded_as_it_passes_and_replayed_as_one(run, simulator, mode):
    provider = simulator()
    fresh = read(stream(run(OpenAI, provider, mode=mode)))
    again = stream(run(OpenAI, provider, mode=mode))
    assert read(again) == fresh
    assert provider.counters.requests == 1


def test_a_stream_that_was_not_read_to_its_end_is_asked_for_again(run, simulator):
    provider = simulator(faults=[Fault("stall", seconds=0.3, at=(1,))])  # so that it comes in two pieces
    with stream(run(OpenAI, provider)) as chunks:
        next(iter(chunks))
    assert read(stream(run(OpenAI, provider)))
    assert provider.counters.requests == 2


def test_a_stream_that_was_cut_is_never_kept_as_done(run, simulator):
    provider = simulator(faults=[Fault("truncate", at=(1,))])
    with contextlib.suppress(Exception):
        read(stream(run(OpenAI, provider)))
    whole = read(stream(run(OpenAI, provider)))
    assert provider.counters.requests == 2
    assert read(stream(run(OpenAI, provider))) == whole
    assert provider.counters.requests == 2


# -- failures


def test_a_failed_call_is_tried_again_by_the_next_run(run, simulator):
    provider = simulator(faults=[Fault(at=(1,))])
    with pytest.raises(InternalServerError):
        ask(run(OpenAI, provider, max_retries=0), "x").result()
    assert ask(run(OpenAI, provider, max_retries=0), "x").choices
    assert provider.counters.requests == 2


def test_refusals_and_retries_are_one_call_in_the_journal(run, simulator):
    provider = simulator(faults=[Fault(at=(1,))])
    client = run(OpenAI, provider)
    assert ask(client, "x").choices
    stats = client._runtime.journal.stats()
    assert (stats.answered, stats.failed, stats.unfinished) == (1, 0, 0)
    assert client.status().retries == 1


def test_a_bad_request_fails_as_ever_and_leaves_no_claim(run, simulator):
    provider = simulator(faults=[Fault(status=400, at=(1,))])
    client = run(OpenAI, provider)
    with pytest.raises(APIStatusError):
        ask(client, "x").result()
    assert client._runtime.journal.stats().unfinished == 0


def test_a_cancelled_call_is_nobodys(run, simulator):
    provider = simulator(rpm=60, latency=0.05)
    client = run(OpenAI, provider, rpm=60, burst=1)
    futures = [ask(client, str(number)) for number in range(5)]
    assert futures[4].cancel()
    client.cancel()
    wait(futures)
    assert client._runtime.journal.stats().unfinished == 0


# -- at the same time


def test_equal_calls_that_are_pending_share_one_request(door, simulator, path):
    """A notebook cell that is run again while the first run still waits: its calls are followed, not sent twice."""
    provider = simulator(latency=0.2)
    client = door(OpenAI, provider, journal=path)
    journal = client._runtime.journal
    first = [ask(client, str(number)) for number in range(3)]
    journal._occurrences = Occurrences()  # as the next execution of the cell counts
    second = [ask(client, str(number)) for number in range(3)]
    assert [a.choices[0].message.content for a in first] == [b.choices[0].message.content for b in second]
    assert provider.counters.requests == 3
    assert client.status().replayed == 3
    client.close()
    journal.close()


def test_when_the_first_of_equal_calls_fails_the_next_takes_its_turn(door, simulator, path):
    provider = simulator(latency=0.1, faults=[Fault(at=(1,))])
    client = door(OpenAI, provider, journal=path, max_retries=0)
    journal = client._runtime.journal
    first = ask(client, "x")
    journal._occurrences = Occurrences()
    second = ask(client, "x")
    with pytest.raises(InternalServerError):
        first.result()
    assert second.choices
    assert provider.counters.requests == 2
    client.close()
    journal.close()


def test_a_follower_in_blocking_mode_waits_for_the_other(door, simulator, path):
    provider = simulator(latency=0.2)
    client = door(OpenAI, provider, journal=path)
    journal = client._runtime.journal
    first = ask(client, "x")
    journal._occurrences = Occurrences()
    plain = ask(client.with_options(mode="blocking"), "x")
    assert plain == first.result()
    assert provider.counters.requests == 1
    client.close()
    journal.close()


def test_a_follower_that_is_cancelled_leaves_the_other_alone(door, simulator, path):
    provider = simulator(latency=0.2)
    client = door(OpenAI, provider, journal=path)
    journal = client._runtime.journal
    first = ask(client, "x")
    journal._occurrences = Occurrences()
    assert ask(client, "x").cancel()
    assert first.choices
    client.close()
    assert journal.stats().answered == 1
    journal.close()


def test_many_threads_may_ask_for_the_same_things(door, simulator, path):
    provider = simulator(latency=0.02)
    client = door(OpenAI, provider, journal=path, mode="blocking")
    answers = []

    def work():
        answers.extend(ask(client, str(number)) for number in range(10))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 40
    assert provider.counters.requests == 40  # each is the next sample of its prompt
    client.close()
    client._runtime.journal.close()


# -- bad input


def test_a_file_that_is_no_journal_is_refused_at_the_constructor_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("dear diary")
    with pytest.raises(JournalError):
        OpenAI(api_key="sk-test", journal=path)
    assert path.read_text() == "dear diary"


def test_options_of_the_journal_need_a_journal():
    with pytest.raises(TypeError, match="journal="):
        OpenAI(api_key="sk-test", journal_max_age=60)


def test_an_answer_that_the_sdk_cannot_read_any_more_is_asked_for_again(run, simulator, path):
    provider = simulator()
    ask(run(OpenAI, provider), "x").result()
    run(OpenAI, provider)._runtime.journal.close()
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        assert file.execute("update answers set body = ?", (b"\xff\xfe",)).rowcount == 1
    assert ask(run(OpenAI, provider), "x").choices
    assert provider.counters.requests == 2


def test_no_key_and_no_cookie_is_in_the_file(run, simulator, path):
    provider = simulator()
    client = run(OpenAI, provider, api_key="sk-very-secret-key", organization="org-secret")
    ask(client, "x").result()
    shared_workers.forget()
    client.close()
    client._runtime.journal.close()
    for file in path.parent.iterdir():
        content = file.read_bytes()
        assert b"very-secret" not in content
        assert b"org-secret" not in content
        assert b"Bearer" not in content
