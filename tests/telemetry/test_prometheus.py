"""Real calls of real clients, read as Prometheus reads them."""

import asyncio
import gc
import os
import warnings
import weakref

import openai as plain
import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families
from reading import MESSAGES, ask, scrape, total
from waiting import wait_until_collected

from ratelimited_llm import Anthropic, AsyncOpenAI, Groq, OpenAI, requests, telemetry
from ratelimited_llm.requests import hosts
from ratelimited_llm.simulator import Fault
from ratelimited_llm.telemetry import registry

LABELS = {
    "queue_pending_requests": {"provider", "model", "bucket", "priority"},
    "queue_wait_seconds": {"provider", "model", "bucket", "priority"},
    "requests_in_flight": {"provider", "model", "bucket"},
    "requests": {"provider", "model", "bucket", "priority", "outcome"},
    "tokens": {"provider", "model", "bucket", "type"},
    "rate_limited": {"provider", "model", "bucket", "limit"},
    "retries": {"provider", "model", "bucket", "reason"},
    "limit": {"provider", "bucket", "limit"},
    "limit_remaining": {"provider", "bucket", "limit"},
    "cost_usd": {"provider", "model", "bucket"},
    "operation_duration_seconds": {"provider", "model", "bucket", "operation"},
    "time_to_first_chunk_seconds": {"provider", "model", "bucket", "operation"},
}


def test_names_and_labels_are_the_documented_ones(simulator, door):
    """Dashboards and alerts are written by these names; no label is an id, a key, a prompt or a tenant."""
    provider = simulator(rpm=6_000, faults=[Fault(status=503, at=(1,)), Fault(status=429, at=(2,))])
    client = door(OpenAI, provider)
    assert ask(client).choices
    for _ in ask(client, stream=True):
        pass
    families = {
        family.name.removeprefix("ratelimited_llm_"): {name for sample in family.samples for name in sample.labels}
        for family in text_string_to_metric_families(telemetry.exposition()[0].decode())
        if family.name.startswith("ratelimited_llm_")
    }
    assert {name: labels - {"le"} for name, labels in families.items()} == LABELS
    names = {key[0].removeprefix("ratelimited_llm_") for key in scrape()}
    assert {"requests_total", "tokens_total", "rate_limited_total", "retries_total", "cost_usd_total"} <= names


def test_every_call_is_counted_once_by_how_it_ended(simulator, door):
    """Futures, blocking calls, streams, failures and cancelled calls add up; the gauges fall back to nought."""
    provider = simulator(rpm=6_000, latency=0.01, faults=Fault(status=400, model="bad"))
    client = door(OpenAI, provider)
    answers = [ask(client), ask(client, max_tokens=4), ask(client.with_options(mode="blocking", priority="high"))]
    used = [answer.usage for answer in answers]
    with pytest.raises(plain.BadRequestError):
        ask(client, model="bad").result()
    slow = client.with_options(deadline=60)
    assert total("queue_pending_requests") == total("requests_in_flight") == 0
    client._runtime.worker.pause()
    waiting = ask(slow)
    assert total("queue_pending_requests", priority="normal", model="m") == 1
    assert waiting.cancel()
    client._runtime.worker.resume()
    stream = ask(client, stream=True, stream_options={"include_usage": True})
    first = next(iter(stream))
    assert total("requests_in_flight") == 1
    for chunk in stream:
        used.append(chunk.usage)
    assert first.id
    used = [usage for usage in used if usage is not None]
    samples = scrape()
    assert {name: total("requests_total", samples, outcome=name) for name in ("answered", "failed", "cancelled")} == {
        "answered": 4, "failed": 1, "cancelled": 1,
    }  # fmt: skip
    assert total("requests_total", samples, priority="high") == 1
    assert total("requests_in_flight", samples) == total("queue_pending_requests", samples) == 0
    assert total("tokens_total", samples, type="input") == sum(usage.prompt_tokens for usage in used)
    assert total("tokens_total", samples, type="output") == sum(usage.completion_tokens for usage in used)
    assert total("queue_wait_seconds_count", samples) == 5
    assert total("operation_duration_seconds_count", samples, operation="chat") == 4
    assert total("time_to_first_chunk_seconds_count", samples) == 1


def test_the_wait_in_the_queue_is_no_part_of_the_operation(simulator, door):
    """Calls that are paced wait long and are answered fast, and both can be seen."""
    client = door(OpenAI, simulator(), rpm=1_200, burst=1)
    for answer in [ask(client) for _ in range(6)]:
        assert answer.choices
    samples = scrape()
    assert total("queue_wait_seconds_sum", samples) > 0.5  # 0 + 0.05 + ... + 0.25
    waited = total("queue_wait_seconds_sum", samples)
    assert total("operation_duration_seconds_sum", samples) < waited / 2


def test_refusals_are_told_by_limit_and_retries_by_reason(simulator, door):
    """A 429 is no retry; a 503 and a broken connection are, each by its name. No call is lost."""
    faults = [Fault(status=429, at=(1,)), Fault(status=503, at=(2,)), Fault("reset", at=(3,))]
    client = door(OpenAI, simulator("openai", rpm=6_000, faults=faults), max_retries=5)
    assert ask(client).choices
    samples = scrape()
    assert total("rate_limited_total", samples) == 1
    assert total("retries_total", samples, reason="503") == 1
    assert total("retries_total", samples, reason="APIConnectionError") == 1
    assert total("retries_total", samples) == 2
    assert total("requests_total", samples, outcome="answered") == 1


def test_limits_and_what_remains_of_them_are_told(simulator, door):
    """As the answers' headers taught them; several clients of one key are one set of limits."""
    provider = simulator(rpm=600, tpm=60_000)
    for _ in range(2):
        assert ask(door(OpenAI, provider)).choices
    assert ask(door(OpenAI, provider, max_concurrency=7), model="own").choices
    samples = scrape()
    assert total("limit", samples, provider="openai", bucket="m", limit="rpm") == 600
    assert 500 < total("limit_remaining", samples, bucket="m", limit="rpm") < 600
    assert total("limit", samples, bucket="m", limit="tpm") == 60_000
    for name in ("limit", "limit_remaining"):
        assert total(name, samples, bucket="own", limit="concurrency") == 7


def test_the_cost_is_told_where_a_price_is_known(simulator, door):
    """In US dollars, by the prices that were given."""
    client = door(OpenAI, simulator(), prices={"m": (1.0, 2.0)})
    usage = ask(client).usage
    cost = (usage.prompt_tokens + 2 * usage.completion_tokens) / 1e6
    assert total("cost_usd_total", model="m") == pytest.approx(cost)


def test_counters_never_fall_when_a_client_is_forgotten(simulator, door):
    """What a collected client counted stays, and its gauges do not."""
    provider = simulator()
    client = OpenAI(api_key="sk-test", base_url=provider.base_url)
    assert ask(client).choices
    before = scrape()
    ledger = weakref.ref(client._runtime.ledger)
    client.close()
    del client
    wait_until_collected(lambda: ledger() is None)
    after = scrape()
    counters = [key for key in before if key[0].endswith(("_total", "_count", "_sum", "_bucket"))]
    assert len(counters) > 40
    assert {key: after[key] for key in counters} == {key: before[key] for key in counters}
    assert ask(door(OpenAI, provider)).choices
    assert total("requests_total", outcome="answered") == 2


def test_a_client_for_each_call_keeps_nothing_but_sums(simulator):
    """Ledgers that are gone are added up now and then, also when nobody scrapes."""
    provider = simulator()
    with plain.DefaultHttpxClient() as http_client:
        for _ in range(3 * registry.MANY):
            OpenAI(api_key="sk-test", base_url=provider.base_url, http_client=http_client)
    gc.collect()
    assert len(registry._watched) <= registry.MANY + 1


def test_models_beyond_many_are_other(simulator, door, monkeypatch):
    """Names that somebody makes up cost a bounded number of lines, and are counted all the same."""
    monkeypatch.setattr(registry, "MOST_MODELS", 3)
    client = door(OpenAI, simulator())
    for number in range(8):
        assert ask(client, model=f"made-up-{number}").choices
    samples = scrape()
    assert {dict(key[1:])["model"] for key in samples if "requests_total" in key[0]} == {
        "made-up-0", "made-up-1", "made-up-2", "other",
    }  # fmt: skip
    assert total("requests_total", samples, model="other", bucket="other", outcome="answered") == 5


def test_a_strange_model_name_spoils_no_scrape(simulator, door):
    """Quotes, line ends, backslashes, half a surrogate pair and endless names are told as far as they can be."""
    names = ['"\n\\} 1\nfake_metric 1', "ü" * 500]
    client = door(OpenAI, simulator())
    for name in names:
        assert ask(client, model=name).choices
    told = {dict(key[1:])["model"] for key in scrape() if "requests_total" in key[0]}
    assert told == {names[0], "ü" * 100}
    assert registry._clean("a\ud800b") == "a?b"


def test_nothing_secret_is_told(simulator, door):
    """No key, prompt, answer, tenant or user's password in a URL."""
    provider = simulator(answer="echo")
    url = provider.base_url.replace("http://", "http://alice:sesame@")
    client = door(OpenAI, provider, base_url=url, api_key="sk-very-secret")
    assert ask(client.with_options(tenant="acme-corp")).choices
    with pytest.raises(plain.APIStatusError):
        ask(client, temperature="my secret prompt", n=-1, max_tokens=-5, model="").result()
    text = telemetry.exposition()[0].decode()
    for secret in ("sk-very-secret", "secret prompt", "acme-corp", "alice", "sesame"):
        assert secret not in text


def test_every_door_is_counted(simulator, door):
    """Groq's, Anthropic's, the async one and raw requests, each under its provider."""
    openai, groq, anthropic = simulator("openai"), simulator("groq"), simulator("anthropic")
    assert door(Groq, groq).chat.completions.create(model="llama", messages=MESSAGES).choices
    assert door(Anthropic, anthropic).messages.create(model="claude", max_tokens=5, messages=MESSAGES).content
    assert door(OpenAI, openai).embeddings.create(model="small", input="x").data
    hosts.add_hosts({openai.base_url: "openai"})
    try:
        with requests.Session() as session:
            body = {"model": "raw", "messages": MESSAGES}
            assert session.post(f"{openai.base_url}/chat/completions", json=body).json()["choices"]
    finally:
        hosts.forget_hosts()

    async def in_task():
        async with AsyncOpenAI(api_key="sk-test", base_url=openai.base_url) as client:
            assert (await ask(client, model="async")).choices

    asyncio.run(in_task())
    found = {
        (dict(key[1:])["provider"], dict(key[1:])["model"], dict(key[1:])["operation"])
        for key in scrape()
        if key[0].endswith("duration_seconds_count")
    }
    assert found == {
        ("groq", "llama", "chat"), ("anthropic", "claude", "chat"), ("openai", "small", "embeddings"),
        ("openai", "raw", "chat"), ("openai", "async", "chat"),
    }  # fmt: skip


def test_registering_again_adds_nothing(simulator, door):
    """A notebook's cell that is run twice: every name is there once, in each registry that was asked."""
    own = prometheus_client.CollectorRegistry()
    for _ in range(3):
        telemetry.register(own)
        telemetry.register()
    assert ask(door(OpenAI, simulator())).choices
    for asked in (own, None):
        text, kind = telemetry.exposition(asked)
        assert kind.startswith("text/plain")
        assert text.decode().count("# TYPE ratelimited_llm_limit_remaining gauge") == 1
    assert b"python_info" not in telemetry.exposition(own)[0]


def test_a_scrape_survives_limits_that_cannot_be_read(simulator, door, monkeypatch):
    """A shared budget that is gone takes its own lines along, and no others."""
    client = door(OpenAI, simulator(rpm=600))
    assert ask(client).choices

    def gone(pool, now):
        raise ConnectionError("redis://:password@host is gone")

    monkeypatch.setattr(type(client._runtime.worker.budget), "survey", lambda self, pool, now: gone(pool, now))
    samples = scrape()
    assert total("requests_total", samples, outcome="answered") == 1
    assert total("limit", samples) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_child_of_a_fork_counts_from_nought(simulator, door):
    """Parent and child are two targets of a scraper: what the parent told is not told again."""
    assert ask(door(OpenAI, simulator())).choices
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads, which this is about
        child = os.fork()
    if not child:
        try:
            os.write(write, f"{total('requests_total')} {total('requests_in_flight')}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "0.0 0.0"
    os.waitpid(child, 0)
    assert total("requests_total") == 1
