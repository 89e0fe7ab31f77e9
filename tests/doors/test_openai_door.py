"""The OpenAI door: one import changes, and a list of calls is answered within the limits."""

from __future__ import annotations

import contextvars
import threading
from concurrent.futures import CancelledError, Future, as_completed, wait
from functools import partial

import openai
import pydantic
import pytest
from forking import said_in_child
from openai.types import CreateEmbeddingResponse, ModerationCreateResponse
from openai.types.chat import ChatCompletion, ParsedChatCompletion
from openai.types.responses import Response
from talking import Stub, ask, chat_body, text_of
from waiting import wait_until, wait_until_collected

from ratelimited_llm import BudgetExceeded, OpenAI, QueueFull, RequestExpired, WorkerStopped, worker
from ratelimited_llm import openai as door_module
from ratelimited_llm.engine.senders import SenderPool
from ratelimited_llm.simulator import Fault


class Review(pydantic.BaseModel):
    label: str
    score: int


# -- a list of calls ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [{"rpm": 120}, {}], ids=["configured", "learned"])
def test_a_list_of_calls_is_answered_within_the_limit(simulator, door, known):
    """121 calls at 120 a minute: none refused, none lost, each reply its caller's, no probe, and the limit is used."""
    provider = simulator(rpm=120, answer="echo")
    client = door(OpenAI, provider, **known)
    answers = [ask(client, f"call {i}") for i in range(121)]
    assert [text_of(answer) for answer in answers] == [f"call {i}" for i in range(121)]
    assert (provider.counters.refused, provider.counters.requests) == (0, 121)
    assert provider.share_used() > 0.9


def test_token_limits_are_learned_and_kept(simulator, door):
    """A limit that only the headers tell holds back what it has no room for."""
    provider = simulator(tpm=10_000)
    client = door(OpenAI, provider)
    answers = [ask(client, f"{i}", max_tokens=600) for i in range(17)]
    assert all(answer.usage.total_tokens for answer in answers)
    assert provider.counters.refused == 0


def test_a_limit_that_falls_in_the_middle_is_followed(simulator, door):
    """From 600 a minute to 60: a few refusals teach it, and nothing is lost."""
    provider = simulator(rpm=600)
    client = door(OpenAI, provider)
    assert all(answer.id for answer in [ask(client, f"{i}") for i in range(10)])
    provider.change(rpm=60)
    assert all(answer.id for answer in [ask(client, f"{i}") for i in range(61)])
    assert provider.counters.refused <= 3


def test_a_provider_that_only_refuses_loses_nothing(simulator, door):
    """30 in each 0.6 s, told by nothing but refusals: everything is answered all the same."""
    provider = simulator("generic", rpm=3000, smooth=0.6, headers=False, retry_after=False, body_hint=False)
    client = door(OpenAI, provider)
    answers = [ask(client, f"{i}") for i in range(60)]
    assert all(answer.id for answer in answers)
    assert provider.counters.refused <= 12


def test_a_wait_for_a_limit_is_no_retry(simulator, door):
    """Refusals are waited out even with `max_retries=0`, and do not raise the retry count that the SDK sends."""
    fault = Fault(status=429, code="rate_limit_exceeded", headers={"retry-after-ms": "5"}, first=2)
    provider = simulator(faults=[fault])
    client = door(OpenAI, provider, max_retries=0)
    assert ask(client).id
    assert [record.status for record in provider.log] == [429, 429, 200]
    assert [record.retry_count for record in provider.log] == [0, 0, 0]


def test_pools_are_apart_by_model(simulator, door):
    """A model that waits for its limit does not hold up another."""
    provider = simulator(rpm=5)
    client = door(OpenAI, provider, rpm=5)
    busy = [ask(client, "x", model="gpt-busy") for _ in range(7)]
    assert all(answer.id for answer in busy[:5])
    assert ask(client, "y", model="gpt-idle").id
    assert [answer.done() for answer in busy[5:]] == [False, False]


def test_pools_are_apart_by_key(simulator, door):
    """A key that waits for its limit does not hold up another key."""
    provider = simulator(rpm=5, per_model=False)
    first, second = door(OpenAI, provider, rpm=2, api_key="sk-1"), door(OpenAI, provider, rpm=2, api_key="sk-2")
    busy = [ask(first, "x") for _ in range(3)]
    assert all(answer.id for answer in [*busy[:2], *(ask(second, "y") for _ in range(2))])
    assert not busy[2].done()


def test_clients_of_one_key_share_its_limits(simulator, door):
    """Two clients, one key: together they stay within the limit."""
    provider = simulator(rpm=120, answer="echo")
    clients = [door(OpenAI, provider, rpm=120) for _ in range(2)]
    answers = [ask(clients[i % 2], f"{i}") for i in range(121)]
    assert [text_of(answer) for answer in answers] == [f"{i}" for i in range(121)]
    assert provider.counters.refused == 0


# -- futures -----------------------------------------------------------------------------------------------------------


def test_the_call_returns_at_once_and_is_its_type(door):
    """Before anything was answered it is a ChatCompletion, a Future, and shows itself without waiting."""
    release = threading.Event()
    stub = Stub(lambda number, body: (release.wait(10), (200, chat_body(), {}))[1])
    client = door(OpenAI, http_client=stub.client)
    answer = ask(client)
    try:
        assert isinstance(answer, ChatCompletion)
        assert isinstance(answer, Future)
        assert isinstance(answer, pydantic.BaseModel)
        assert "ResponseFuture" in repr(answer)
        assert not answer.done()
    finally:
        release.set()
    assert text_of(answer) == "answer"


def test_futures_are_waited_for_as_ever(simulator, door):
    """`wait`, `as_completed`, `result` and callbacks of concurrent.futures work on what the calls return."""
    client = door(OpenAI, simulator(answer="echo"))
    answers = {ask(client, f"{i}"): f"{i}" for i in range(6)}
    heard = []
    for answer in answers:
        answer.add_done_callback(heard.append)
    pairs = [(text_of(done), answers[done]) for done in as_completed(answers, timeout=5)]
    assert sorted(pairs) == [(f"{i}", f"{i}") for i in range(6)]
    done, pending = wait(answers, timeout=5)
    assert (len(done), len(pending)) == (6, 0)
    assert next(iter(answers)).result(timeout=5).object == "chat.completion"
    wait_until(lambda: len(heard) == 6)


def test_a_callback_may_make_another_call(simulator, door):
    """A call made in a done-callback is answered, even when only one may be in flight."""
    client = door(OpenAI, simulator(answer="echo"), max_concurrency=1)
    second, heard = [], threading.Event()

    def again(first):
        second.append(text_of(ask(client, "second")))
        heard.set()

    ask(client, "first").add_done_callback(again)
    assert heard.wait(5)
    assert second == ["second"]


def test_a_nested_call_does_not_wait_for_its_own_place(door):
    """With `max_concurrency=1` a call that is made while another is sent is answered inside it."""
    inner = []

    def answer(number, body):
        if number == 1:
            inner.append(text_of(ask(client, "inner")))
        return 200, chat_body(f"{number}"), {}

    client = door(OpenAI, http_client=Stub(answer).client, max_concurrency=1)
    assert text_of(ask(client, "outer")) == "1"
    assert inner == ["2"]


def test_a_queued_call_can_be_cancelled(simulator, door):
    """A cancelled call is never sent, and its place is the next one's."""
    provider = simulator(answer="echo")
    client = door(OpenAI, provider, rpm=1)
    first, second = ask(client, "first"), ask(client, "second")
    assert text_of(first) == "first"
    assert second.cancel()
    assert second.cancelled()
    with pytest.raises(CancelledError):
        second.result()
    client.close()
    assert [record.tag for record in provider.log] == ["first"]


def test_cancel_drops_what_waits(simulator, door):
    """`client.cancel()` cancels what is queued and says how many; what was sent is answered."""
    provider = simulator()
    client = door(OpenAI, provider, rpm=1)
    answers = [ask(client, f"{i}") for i in range(4)]
    assert answers[0].id
    assert client.cancel() == 3
    assert wait(answers, timeout=5).not_done == set()
    assert [answer.cancelled() for answer in answers] == [False, True, True, True]


def test_the_body_is_the_one_at_the_call(simulator, door):
    """Whatever the caller changes after the call, at any depth, is not sent."""
    client = door(OpenAI, simulator(answer="echo"), max_concurrency=1)
    messages = [{"role": "user", "content": [{"type": "text", "text": "as it was"}]}]
    extra = {"nested": {"deep": [1]}}
    answers = [client.chat.completions.create(model="m", messages=messages, extra_body=extra) for _ in range(3)]
    messages[0]["content"][0]["text"] = "changed"
    extra["nested"]["deep"].append(object())
    assert [text_of(answer) for answer in answers] == ["as it was"] * 3


def test_a_call_sees_the_context_of_its_caller(door):
    """Context variables are those at the call, on whatever thread it is sent."""
    who = contextvars.ContextVar("who", default="nobody")
    seen = []

    def answer(number, body):
        seen.append(who.get())
        return 200, chat_body(), {}

    client = door(OpenAI, http_client=Stub(answer).client)
    for name in ("ann", "bob"):
        who.set(name)
        ask(client).result()
    assert seen == ["ann", "bob"]


def test_a_call_cancelled_between_its_turn_and_its_thread_gives_its_place_back(door, monkeypatch):
    """It was dispatched, and is cancelled before a thread has taken it up: nothing is sent, and the next one is."""
    stub, held = Stub(), []
    client = door(OpenAI, http_client=stub.client, max_concurrency=1)
    monkeypatch.setattr(SenderPool, "run", lambda senders, work: held.append(work) or True)
    answer = ask(client)
    assert answer.cancel()
    assert wait([answer], timeout=1).done == {answer}
    monkeypatch.undo()
    held.pop()()
    assert ask(client).id
    assert len(stub.requests) == 1


# -- with_options ------------------------------------------------------------------------------------------------------


def test_priority_goes_first(door):
    """Of what waits, the high call goes before the normal one, and the low one last."""
    order, release = [], threading.Event()

    def answer(number, body):
        order.append(body["messages"][0]["content"])
        if number == 1:
            release.wait(10)
        return 200, chat_body(), {}

    stub = Stub(answer)
    client = door(OpenAI, http_client=stub.client, max_concurrency=1)
    first = ask(client, "first")
    stub.wait_for(1)
    rest = [ask(client.with_options(priority=name), name) for name in ("low", "normal", "high")]
    release.set()
    assert all(answer.id for answer in [first, *rest])
    assert order == ["first", "high", "normal", "low"]


def test_tenants_take_turns(door):
    """Somebody with one call does not wait behind all the calls of another."""
    order, release = [], threading.Event()

    def answer(number, body):
        order.append(body["messages"][0]["content"])
        if number == 1:
            release.wait(10)
        return 200, chat_body(), {}

    stub = Stub(answer)
    client = door(OpenAI, http_client=stub.client, max_concurrency=1)
    first = ask(client, "first")
    stub.wait_for(1)
    many = [ask(client.with_options(tenant="many"), "many") for _ in range(10)]
    one = ask(client.with_options(tenant="one"), "one")
    release.set()
    assert all(answer.id for answer in [first, *many, one])
    assert order.index("one") <= 3


def test_a_deadline_ends_the_waiting(simulator, door):
    """A call that cannot be sent within its deadline fails with the seconds, and is never sent."""
    provider = simulator()
    client = door(OpenAI, provider, rpm=1)
    assert ask(client).id
    late = ask(client.with_options(deadline=0.05))
    with pytest.raises(RequestExpired) as caught:
        late.result(timeout=5)
    assert caught.value.allowed == pytest.approx(0.05)
    assert isinstance(caught.value, TimeoutError)
    assert provider.counters.requests == 1


def test_max_queue_refuses_or_raises(simulator, door):
    """With `on_full="raise"` a call beyond the cap is refused at the call."""
    client = door(OpenAI, simulator(), rpm=1, max_queue=2, on_full="raise")
    assert ask(client).id
    waiting = [ask(client) for _ in range(2)]
    with pytest.raises(QueueFull):
        ask(client)
    assert len(waiting) == 2


def test_copies_keep_the_sdks_options(simulator, door):
    """`with_options` passes the SDK's own options on, and keeps the class."""
    provider = simulator(faults=[Fault(status=500)])
    client = door(OpenAI, provider)
    copy = client.with_options(max_retries=0, priority="high")
    assert type(copy) is OpenAI
    with pytest.raises(openai.InternalServerError):
        ask(copy).result()
    assert provider.counters.requests == 1


# -- everything that spends, and everything that does not --------------------------------------------------------------


def test_parse_embeddings_responses_and_moderations_wait(simulator, door):
    """Each is a future of its own type, and arrives."""
    client = door(OpenAI, simulator())
    messages = [{"role": "user", "content": "x"}]
    parsed = client.chat.completions.parse(model="m", messages=messages, response_format=Review)
    vectors = client.embeddings.create(model="e", input=["a", "b"])
    response = client.responses.create(model="m", input="hello")
    verdict = client.moderations.create(input="hello")
    assert [issubclass(type(answer), Future) for answer in (parsed, vectors, response, verdict)] == [True] * 4
    assert isinstance(parsed, ChatCompletion)  # the declared type of the SDK's own call
    assert isinstance(parsed.choices[0].message.parsed, Review)
    assert isinstance(parsed, ParsedChatCompletion)  # its answer's, which the SDK's parser made
    assert isinstance(vectors, CreateEmbeddingResponse)
    assert [len(item.embedding) > 0 for item in vectors.data] == [True, True]
    assert isinstance(response, Response)
    assert response.output_text
    assert isinstance(verdict, ModerationCreateResponse)
    assert len(verdict.results) == 1


def test_raw_responses_have_headers_and_parse(simulator, door):
    """`with_raw_response` gives the headers, and parses to the plain answer."""
    client = door(OpenAI, simulator(rpm=100, answer="echo"))
    raw = client.chat.completions.with_raw_response.create(model="m", messages=[{"role": "user", "content": "raw"}])
    assert raw.headers["x-ratelimit-limit-requests"] == "100"
    assert raw.parse().choices[0].message.content == "raw"
    assert raw.http_response.status_code == 200


def test_models_pass_straight_through(simulator, door):
    """Listing models is no future, spends no limit, and does not wait for one."""
    client = door(OpenAI, simulator(), rpm=1)
    assert ask(client).id
    waiting = ask(client)
    page = client.models.list()
    assert not isinstance(page, Future)
    assert [model.id for model in page]
    assert client.models.retrieve("m").id == "m"
    assert not waiting.done()


def test_an_upload_is_read_before_the_call_returns(door, tmp_path):
    """The file may be closed as soon as the call has returned, so the call returns when it is sent."""
    sound = tmp_path / "sound.wav"
    sound.write_bytes(b"RIFF")
    httpx = Stub().httpx
    sent = []

    def handle(request):
        sent.append(request.read())
        return httpx.Response(200, json={"text": "spoken"})

    client = door(OpenAI, http_client=httpx.Client(transport=httpx.MockTransport(handle)))
    with sound.open("rb") as file:
        heard = client.audio.transcriptions.create(model="whisper-1", file=file)
    assert heard.text == "spoken"
    assert b"RIFF" in sent[0]


def test_speech_arrives_as_bytes(door):
    """Binary content is there when the call returns."""
    stub = Stub(lambda number, body: (200, b"sound", {"content-type": "audio/mpeg"}))
    client = door(OpenAI, http_client=stub.client)
    spoken = client.audio.speech.create(model="tts-1", voice="alloy", input="hello")
    assert spoken.read() == b"sound"


# -- errors ------------------------------------------------------------------------------------------------------------


def test_errors_are_the_sdks_own_and_say_where(simulator, door):
    """What is raised is the SDK's class with the provider's words, and a note names the line of the call."""
    provider = simulator(faults=[Fault(status=400, message="no such thing", code="bad")])
    client = door(OpenAI, provider)
    answer = ask(client)
    with pytest.raises(openai.BadRequestError) as caught:
        _ = answer.choices
    assert type(caught.value) is openai.BadRequestError is door_module.BadRequestError
    assert caught.value.status_code == 400
    assert caught.value.code == "bad"
    assert caught.value is answer.exception()
    assert [note for note in caught.value.__notes__ if "talking.py" in note]
    assert provider.counters.requests == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError), (401, openai.AuthenticationError), (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError), (413, openai.APIStatusError), (422, openai.UnprocessableEntityError),
    ],
)  # fmt: skip
def test_hopeless_calls_are_sent_once(simulator, door, status, error):
    """What waiting cannot mend is not tried again."""
    provider = simulator(faults=[Fault(status=status)])
    client = door(OpenAI, provider)
    with pytest.raises(error):
        ask(client).result()
    assert provider.counters.requests == 1


def test_an_exhausted_quota_is_not_waited_for(simulator, door):
    """The SDK would retry this 429; no waiting ends it, so it is raised at once."""
    provider = simulator(faults=[Fault("exhausted")])
    client = door(OpenAI, provider)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client).result()
    assert caught.value.code == "insufficient_quota"
    assert provider.counters.requests == 1


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=503), Fault("reset"), Fault("html", status=502)])
def test_trouble_is_retried_as_often_as_the_sdk_would(simulator, door, fault):
    """Two failures and an answer: the retry count rises, and the idempotency key stays."""
    fault = Fault(fault.kind, status=fault.status, first=2)
    provider = simulator(faults=[fault])
    client = door(OpenAI, provider)
    answer = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "x"}], extra_headers={"idempotency-key": "k"}
    )
    assert answer.id
    assert [record.retry_count for record in provider.log] == [0, 1, 2]
    assert {record.headers["idempotency-key"] for record in provider.log} == {"k"}


@pytest.mark.parametrize("retries", [0, 1])
def test_max_retries_is_the_sdks(simulator, door, retries):
    """A server that is down is asked once and `max_retries` times more, then its own error is raised."""
    provider = simulator(faults=[Fault(status=500)])
    client = door(OpenAI, provider, max_retries=retries)
    with pytest.raises(openai.InternalServerError):
        ask(client).result()
    assert provider.counters.requests == 1 + retries


def test_a_timeout_is_of_one_attempt_and_retried(simulator, door):
    """A stalled answer ends with the SDK's timeout error after its retries, and the next call works."""
    provider = simulator(faults=[Fault("stall", first=2)])
    client = door(OpenAI, provider, timeout=0.1, max_retries=1)
    with pytest.raises(openai.APITimeoutError):
        ask(client).result()
    assert ask(client).id
    assert [record.retry_count for record in provider.log] == [0, 1, 0]


def test_timeout_does_not_count_while_queued(simulator, door):
    """A call that waits longer than its timeout for its turn is answered all the same."""
    client = door(OpenAI, simulator(latency=0.15), max_concurrency=1, timeout=0.4)
    assert all(answer.id for answer in [ask(client) for _ in range(4)])


def test_a_dead_server_is_the_sdks_connection_error(door):
    """Nobody listens: APIConnectionError with its cause, after the retries."""
    client = door(OpenAI, base_url="http://127.0.0.1:9/v1", max_retries=1)
    with pytest.raises(openai.APIConnectionError) as caught:
        ask(client).result()
    assert caught.value.__cause__ is not None


def test_what_can_never_fit_fails_at_the_call(simulator, door):
    """With the limit configured, a call that asks for more than all of it is refused where it is made."""
    provider = simulator()
    client = door(OpenAI, provider, tpm=100)
    with pytest.raises(BudgetExceeded) as caught:
        ask(client, "x" * 4000)
    assert caught.value.dimension == "tpm"
    assert caught.value.limit == 100
    assert isinstance(caught.value, ValueError)
    assert provider.counters.requests == 0


# -- keys and HTTP clients ---------------------------------------------------------------------------------------------


def test_a_callable_key_is_asked(simulator, door):
    """A function that answers the key is asked for each call, as by the SDK."""
    provider = simulator()
    keys = iter(["sk-a", "sk-b", "sk-c", "sk-d"])
    client = door(OpenAI, provider, api_key=lambda: next(keys))
    assert ask(client).id
    assert ask(client).id
    assert [record.key() for record in provider.log] == ["sk-a", "sk-b"]


def test_a_users_http_client_is_used_as_given(door):
    """Its transport is not touched, and the calls go through it."""
    stub = Stub()
    transport = stub.client._transport
    client = door(OpenAI, http_client=stub.client)
    assert text_of(ask(client)) == "answer"
    assert client._client is stub.client
    assert stub.client._transport is transport


# -- the end -----------------------------------------------------------------------------------------------------------


def test_closing_answers_what_was_asked(simulator):
    """The end of a `with` block waits for every call."""
    provider = simulator(latency=0.05, answer="echo")
    with OpenAI(base_url=provider.base_url, api_key="sk", max_concurrency=2) as client:
        answers = [ask(client, f"{i}") for i in range(6)]
    assert all(answer.done() for answer in answers)
    assert [text_of(answer) for answer in answers] == [f"{i}" for i in range(6)]


def test_a_closed_client_accepts_nothing(simulator, door):
    """A call after close() is told so at once; closing twice is no harm."""
    client = door(OpenAI, simulator())
    client.close()
    client.close()
    with pytest.raises(WorkerStopped):
        ask(client)


def test_an_outage_takes_no_retry_from_another_provider(simulator, door, monkeypatch):
    """Their clients share a queue, and what one that is down has used up is no affair of the other's."""
    monkeypatch.setattr(worker, "RetryBudget", partial(worker.RetryBudget, 1.0))
    down = door(OpenAI, simulator(faults=[Fault(status=500)]))
    provider = simulator(faults=[Fault(status=500, at=(1,))])
    other = door(OpenAI, provider)
    assert down._runtime.worker is other._runtime.worker
    with pytest.raises(openai.InternalServerError):
        ask(down).result()
    assert ask(other).result()
    assert provider.counters.requests == 2


def test_shutdown_is_an_executors(simulator, door):
    """`shutdown(cancel_futures=True)` cancels what waits and answers what was sent."""
    client = door(OpenAI, simulator(), rpm=1)
    answers = [ask(client) for _ in range(3)]
    assert answers[0].id
    client.shutdown(cancel_futures=True)
    assert [answer.cancelled() for answer in answers] == [False, True, True]


def test_a_forgotten_client_leaves_no_worker():
    """When nobody holds the client and nothing is pending, its worker's thread ends."""
    stub = Stub()  # no sockets: on Python 3.10 a collected one may complain before its client can close it
    client = OpenAI(http_client=stub.client, api_key="sk", max_concurrency=1, max_queue=77)
    assert all(answer.id for answer in [ask(client) for _ in range(3)])
    name = f"ratelimited-llm-worker-{client._runtime.worker.number}"
    (thread,) = [thread for thread in threading.enumerate() if thread.name == name]
    del client
    wait_until_collected(lambda: not thread.is_alive())


def test_a_child_makes_its_own_calls(simulator, door):
    """After a fork the child is answered, over connections of its own, and so is the parent."""
    provider = simulator(answer="echo")
    client = door(OpenAI, provider)
    assert text_of(ask(client, "before")) == "before"
    child = said_in_child(lambda: " ".join(text_of(ask(client, f"child-{i}")) for i in range(3)))
    assert child == "child-0 child-1 child-2"
    assert text_of(ask(client, "after")) == "after"
    assert provider.counters.connections == 2


def test_a_child_does_not_get_its_parents_answers(simulator, door):
    """A future that was pending at the fork ends in the child with an error that says why; in the parent as ever."""
    provider = simulator(answer="echo")
    client = door(OpenAI, provider, rpm=1)
    assert ask(client, "first").id
    waiting = ask(client, "second")
    assert said_in_child(lambda: waiting.result(timeout=5)).startswith("WorkerStopped(")
    assert not waiting.done()
    assert waiting.cancel()


def test_a_waiting_call_says_its_place_and_how_many_wait(simulator, door):
    """The repr of a queued future is a status line, and asking for it waits for nobody."""
    client = door(OpenAI, simulator(latency=1.0), max_concurrency=1)
    answers = [ask(client, f"call {number}") for number in range(4)]
    wait_until(lambda: "/3" in repr(answers[3]))
    assert [repr(answer) for answer in answers[1:]] == [f"<ResponseFuture queued {place}/3>" for place in (1, 2, 3)]
    assert client.cancel() == 3
