"""max_cost= from end to end: no call is sent that could pass the cap, the rest fails at once, and nothing hangs."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from talking import Stub, ask, chat_body
from waiting import wait_until, wait_until_collected

from ratelimited_llm import CostLimitReached
from ratelimited_llm.openai import APITimeoutError, BadRequestError, OpenAI
from ratelimited_llm.simulator import Fault

MODEL = "gpt-4.1-mini"
PRICE = {MODEL: (1, 2)}
CALLS = 200
CAP = 0.003


@pytest.fixture
def capped(door, simulator):
    """A client with a cap; the simulator's tokens at the same price are the truth."""

    def make(max_cost=CAP, provider=None, **options):
        provider = provider or simulator(latency=0.01, output_tokens=(20, 60))
        options = {"rpm": 100_000, "max_concurrency": 8, "prices": PRICE, **options}
        return door(OpenAI, provider, max_cost=max_cost, **options), provider

    return make


def paid(provider):
    return provider.counters.input_tokens * 1e-6 + provider.counters.output_tokens * 2e-6


def question(client, number, **options):
    return ask(client, f"question {number}", model=MODEL, **{"max_tokens": 60, **options})


def outcome(future):
    return type(future.exception()) if future.exception() else None


def check(client, provider, outcomes):
    """Some were answered, the others were refused by the cap, and the books are right."""
    status = client.status()
    refused = outcomes.count(CostLimitReached)
    assert 0 < status.answered == outcomes.count(None) == len(outcomes) - refused
    assert (status.queued, status.in_flight, status.done, status.failed) == (0, 0, len(outcomes), refused)
    assert paid(provider) == pytest.approx(status.spent)
    assert 0.8 * CAP < status.spent <= CAP
    assert status.expected == pytest.approx(status.spent)


FAULTS = {
    "nothing": [],
    "refusals": [Fault(status=429, every=7)],
    "errors of the server": [Fault(status=500, every=9)],
}


@pytest.mark.parametrize("faults", FAULTS)
def test_what_the_cap_allows_is_answered_and_the_rest_fails(capped, simulator, faults):
    provider = simulator(latency=0.01, output_tokens=(20, 60), faults=FAULTS[faults])
    client, _ = capped(provider=provider, max_retries=5)
    futures = [question(client, number) for number in range(CALLS)]
    wait(futures, timeout=10)
    check(client, provider, [outcome(future) for future in futures])


def test_in_blocking_mode_too(capped):
    client, provider = capped(mode="blocking")

    def one(number):
        try:
            question(client, number)
        except CostLimitReached as error:
            return type(error)

    with ThreadPoolExecutor(16) as threads:
        check(client, provider, list(threads.map(one, range(CALLS))))


def test_streams_make_room_when_they_end(capped):
    """Their end is told from wherever they are read, and those that wait under the cap hear of it."""
    client, provider = capped()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    futures = [question(client, number, **options) for number in range(CALLS)]

    def read(future):
        try:
            return None if list(future) else AssertionError
        except CostLimitReached as error:
            return type(error)

    with ThreadPoolExecutor(16) as threads:
        check(client, provider, list(threads.map(read, futures)))


def test_a_stream_that_nobody_reads_holds_what_it_may_cost_until_it_is_forgotten(capped):
    client, _ = capped(0.0002)
    stream = question(client, 0, stream=True)
    stream.result()
    future = question(client, 1)
    assert not wait([future], timeout=0.05).done
    del stream
    wait_until_collected(future.done)
    assert outcome(future) is CostLimitReached  # what it used is not known, so its worst is counted


def test_without_a_maximum_the_first_answers_tell_how_long_they_are(capped):
    client, provider = capped(0.02, max_concurrency=1)
    futures = [question(client, number, max_tokens=None) for number in range(30)]
    wait(futures, timeout=10)
    assert client.status().answered == 30
    assert paid(provider) == pytest.approx(client.status().spent)


def test_a_call_that_could_cost_more_than_the_whole_cap_fails_at_once(capped):
    client, provider = capped(1e-6)
    assert outcome(question(client, 0)) is CostLimitReached
    assert provider.counters.requests == 0


@pytest.mark.parametrize("mode", ["future", "blocking"])
def test_the_end_of_the_last_call_in_flight_frees_those_that_wait_however_it_ends(door, mode):
    """The worker learns of a failure before the books do; nobody may be left waiting for the books."""
    gate = threading.Event()

    def answer(number, body):
        gate.wait(5)
        if number % 2:
            return 400, {"error": {"message": "no", "type": "invalid_request_error"}}, {}
        return 200, chat_body(), {}

    stub = Stub(answer)
    client = door(OpenAI, http_client=stub.client, prices=PRICE, max_cost=0.0002, rpm=100_000, mode=mode)
    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(lambda n=n: question(client, n).choices) for n in range(8)]
        stub.wait_for(1)
        wait_until(lambda: client.status().submitted == 8)
        gate.set()
        ends = [outcome(future) for future in futures]
    assert set(ends) <= {None, BadRequestError, CostLimitReached}
    assert stub.most == 1  # two could pass the cap together
    assert client.status().in_flight == client.status().queued == 0


def test_a_timeout_counts_at_its_worst_since_it_was_perhaps_paid(door):
    stub = Stub()

    def handle(request):
        stub.requests.append(request)
        raise stub.httpx.ReadTimeout("too slow", request=request)

    http_client = stub.httpx.Client(transport=stub.httpx.MockTransport(handle))
    client = door(OpenAI, http_client=http_client, prices=PRICE, max_cost=0.0002, max_retries=0)
    assert outcome(question(client, 0)) is APITimeoutError
    assert client.status().spent == 0.0
    assert outcome(question(client, 1)) is CostLimitReached
    assert len(stub.requests) == 1


def test_a_call_from_inside_another_is_refused_rather_than_waiting_for_it(door):
    inner = []

    def answer(number, body):
        if number == 1:
            with pytest.raises(CostLimitReached):
                question(client, 1)
            inner.append(number)
        return 200, chat_body(), {}

    stub = Stub(answer)
    client = door(OpenAI, http_client=stub.client, prices=PRICE, max_cost=0.0002)
    assert question(client, 0).choices
    assert inner == [1]


def test_another_clients_calls_in_flight_are_nothing_to_wait_for(capped, simulator):
    provider = simulator(latency=0.3)
    free, _ = capped(None, provider)
    poor, _ = capped(1e-6, provider)
    pending = question(free, 0)
    assert outcome(question(poor, 0)) is CostLimitReached
    assert not pending.done()
