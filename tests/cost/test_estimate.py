"""Estimates: what is read, what is foreseen, and what the command says about it."""

from __future__ import annotations

import argparse
import io
import json
import time

import pytest

from ratelimited_llm import providers
from ratelimited_llm.batch import estimate as module
from ratelimited_llm.batch.estimate import estimate
from ratelimited_llm.books.prices import Prices
from ratelimited_llm.cli import estimate as command
from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.openai import OpenAI
from ratelimited_llm.simulator import Simulator

CENT = {"*": (10_000.0, 10_000.0)}  # a cent a token


def chat(text="word " * 20, **options):
    return {"model": "m", "messages": [{"role": "user", "content": text}], **options}


def source(*rows):
    """Rows as the input of a batch; text is taken as it is."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    return io.BytesIO("".join(line + "\n" for line in lines).encode())


def estimated(*rows, client=None, **options):
    options.setdefault("prices", CENT)
    return estimate(client, source(*rows), **options)


@pytest.fixture
def cli(capsys):
    """Run the command; answers the exit code and what it printed."""

    def run(*arguments):
        parser = argparse.ArgumentParser()
        command.add_parser(parser.add_subparsers())
        args = parser.parse_args(["estimate", *map(str, arguments)])
        code = args.run(args)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def known_host(monkeypatch):
    """Who answers on loopback is known, as it is in the world."""
    monkeypatch.setattr(providers, "_HOSTS", (("127.0.0.1", "openai"), *providers._HOSTS))


# -- what is read -----------------------------------------------------------------------------------------------------


def test_tokens_are_estimated_as_for_a_real_call():
    found = estimated(chat("x" * 388), chat("x" * 388, max_tokens=7), output_tokens=50)
    assert (found.requests, found.input_tokens, found.output_tokens) == (2, 200, 57)
    assert found.tokens == 257


def test_cost_is_that_of_the_tokens_and_at_most_that_of_every_stated_maximum():
    found = estimated(chat("x" * 388, max_tokens=100), output_tokens=50)
    assert found.cost == pytest.approx(1.5)
    assert found.most_cost == pytest.approx(2.0 * (1 + found.input_error))
    assert estimated(chat(), chat(max_tokens=5)).most_cost is None


def test_a_model_without_a_price_leaves_the_cost_unknown_and_is_named():
    found = estimated(chat(model="m1"), prices={"other": (1, 1)})
    assert found.cost is None
    assert found.unpriced == ("m1",)
    assert "no price of 'm1'" in str(found)


def test_bad_lines_and_lines_that_can_never_fit_are_named_and_not_counted():
    found = estimated(chat(), "not json", chat("x" * 40_000), chat(), limits=RateLimits(tpm=5_000))
    assert (found.requests, found.bad, found.never_fit) == (2, 1, 1)
    assert [problem.line for problem in found.bad_lines] == [2]
    assert [problem.line for problem in found.never_fit_lines] == [3]
    assert "tpm" in found.never_fit_lines[0].message
    assert "1 line can never be sent: 3" in str(found)
    assert "1 line cannot be read: 2" in str(found)


def test_the_first_twenty_lines_that_can_never_fit_are_named_and_all_are_counted():
    found = estimated(*[chat("x" * 400)] * 50, limits=RateLimits(tpm=10))
    assert found.never_fit == 50
    assert [problem.line for problem in found.never_fit_lines] == list(range(1, 21))
    assert found.requests == 0
    assert "20, ..." in str(found)


@pytest.mark.parametrize("rows", [(), ("",), ("not json",)])
def test_an_input_without_calls_takes_no_time_and_costs_nothing(rows):
    found = estimated(*rows)
    assert (found.requests, found.seconds, found.concurrency, found.cost) == (0, 0.0, 0, 0.0)
    assert str(found)


def test_text_that_is_not_ascii_is_estimated_less_surely():
    english, chinese = estimated(chat("hello " * 50)), estimated(chat("你好世界" * 50))
    assert english.input_error == pytest.approx(0.12, abs=0.001)
    assert 0.3 < chinese.input_error < 0.5


def test_embeddings_have_no_output():
    found = estimated({"model": "e", "input": "x" * 400}, endpoint="/v1/embeddings")
    assert (found.input_tokens, found.output_tokens, found.most_output) == (100, 0, None)
    assert found.cost == found.most_cost / (1 + found.input_error) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"latency": 0}, ValueError),
        ({"latency": "2"}, TypeError),
        ({"latency": float("nan")}, ValueError),
        ({"output_tokens": -1}, ValueError),
        ({"output_tokens": 1.5}, TypeError),
        ({"concurrency": True}, TypeError),
        ({"limits": {"rpm": 5}}, TypeError),
        ({"prices": {"m": -1}}, TypeError),
        ({"client": object()}, TypeError),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused(options, error):
    with pytest.raises(error):
        estimated(chat(), **options)


# -- what is foreseen -------------------------------------------------------------------------------------------------


def test_the_limit_that_binds_is_named_with_the_time_of_each():
    found = estimated(*[chat("x" * 388, max_tokens=10)] * 300, limits=RateLimits(rpm=100, tpm=1_000_000))
    assert found.binds == "rpm"
    assert found.seconds == pytest.approx(122.3, abs=0.5)
    assert "100 rpm -> 2 m 2 s (binds) · 1M tpm -> 2.0 s" in str(found)


def test_a_limit_of_the_day_counts_days():
    found = estimated(*[chat()] * 300, limits=RateLimits(rpm=100, rpd=100))
    assert (found.binds, found.days) == ("rpd", 2)
    assert "the limit of a day (rpd) binds, so it takes 2 days" in str(found)


def test_without_a_limit_it_says_so_and_what_to_give():
    found = estimated(*[chat()] * 1_000)
    assert not found.pools[0].known
    assert found.seconds == pytest.approx(1_000 / 100 * 2.0, rel=0.3)
    assert "none known" in str(found)
    assert "--rpm, --tpm" in str(found)
    assert estimated(*[chat()] * 100, concurrency=10).seconds == pytest.approx(20, rel=0.2)


def test_models_with_limits_of_their_own_wait_for_their_own_only():
    rows = [chat(model="a")] * 160 + [chat(model="b")] * 110
    found = estimated(*rows, limits=RateLimits(rpm=100))
    assert [pool.family for pool in found.pools] == ["a", "b"]
    assert found.seconds == found.pools[0].seconds > found.pools[1].seconds
    assert found.concurrency == sum(pool.concurrency for pool in found.pools)
    assert "limits (a, 160 requests)" in str(found)


def test_openais_own_batch_api_is_named_for_big_inputs_to_openai_only(monkeypatch):
    monkeypatch.setattr(module, "BATCH_FROM", 50)
    monkeypatch.setattr(module, "BATCH_FILE_LINES", 30)
    found = estimated(*[chat()] * 50, limits=RateLimits(rpm=100))
    assert found.batch_files == 2
    assert "Provider's own Batch API" in str(found)
    assert estimated(*[chat()] * 49, limits=RateLimits(rpm=100)).batch_files == 0
    groq = estimated(*[chat()] * 50, limits=RateLimits(rpm=100), base_url="https://api.groq.com/openai/v1")
    assert groq.batch_files == 0


def test_a_client_gives_its_limits_its_prices_and_what_it_has_learned(known_host):
    """Real sockets: the first answer teaches the limits and the lengths of answers."""
    with (
        Simulator(rpm=60, tpm=100_000, latency=0.0, output_tokens=33) as simulator,
        OpenAI(api_key="sk-x", base_url=simulator.base_url, prices=CENT, progress=False) as client,
    ):
        before = estimated(*[chat()] * 100, client=client, prices=None)
        client.chat.completions.create(**chat()).choices[0]
        client.wait()
        after = estimated(*[chat()] * 100, client=client, prices=None)
    assert not before.pools[0].known
    assert after.pools[0].learned
    assert {limit.dimension: limit.limit for limit in after.pools[0].limits} == {"rpm": 60, "tpm": 100_000}
    assert after.output_tokens == 3_300
    assert after.output_source == "learned"
    assert after.latency < 1.0
    assert after.input_error < before.input_error
    assert after.cost == pytest.approx((after.input_tokens + 3_300) * 0.01)
    assert "limits, learned:" in str(after)


def test_an_estimator_of_the_users_own_counts_the_tokens():
    with OpenAI(api_key="sk-x", base_url="http://127.0.0.1:9/v1", estimator=lambda body: 7, progress=False) as client:
        found = estimated(chat(), chat(), client=client)
    assert (found.input_tokens, found.input_error) == (14, 0.0)
    assert "counted" in str(found)


@pytest.mark.parametrize(
    ("limits", "client_limits", "bodies"),
    [
        ({"rpm": 1_200, "smooth": 1.0}, {"rpm": 1_200, "burst": 20}, [chat()] * 60),
        ({"tpm": 6_000}, {"tpm": 6_000}, [chat("word " * 80)] * 61),
    ],
    ids=["rpm", "tpm"],
)
def test_the_real_run_ends_when_the_estimate_says_in_real_time(known_host, limits, client_limits, bodies):
    """Two seconds over real sockets; the bound is generous, tests/benchmarks/estimate.py shows five percent."""
    with (
        Simulator(latency=0.2, output_tokens=10, **limits) as simulator,
        OpenAI(api_key="sk-x", base_url=simulator.base_url, progress=False, **client_limits) as client,
    ):
        client.chat.completions.create(**bodies[0]).choices[0]  # teaches how many tokens a byte is
        client.wait()
        found = estimated(*bodies, client=client, latency=0.2)
        began = time.monotonic()
        answers = [client.chat.completions.create(**body) for body in bodies]
        assert all(answer.choices for answer in answers)
        took = time.monotonic() - began
    assert 1.5 < took < 8.0
    assert found.seconds == pytest.approx(took, rel=0.25)


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(chat(max_tokens=16)) + "\n" for _ in range(300)))
    return path


def test_the_command_needs_no_key_and_ends_with_0(cli, rows):
    code, out, err = cli(rows, "--rpm", "100", "--tpm", "1M", "--price", "0.15,0.6")
    assert (code, err) == (0, "")
    assert out.startswith("300 requests · ")
    assert "(binds)" in out
    assert "cost about $" in out


def test_the_command_ends_with_1_when_a_line_is_bad_or_can_never_fit(cli, rows):
    assert cli(rows, "--tpm", "10")[0] == 1
    rows.write_text("nonsense\n")
    assert cli(rows, "--rpm", "10")[0] == 1


def test_json_has_every_number_of_the_value(cli, rows):
    code, out, _ = cli(rows, "--rpm", "100", "--json", "--latency", "1")
    told = json.loads(out)
    assert code == 0
    assert (told["requests"], told["binds"], told["latency"]) == (300, "rpm", 1.0)
    assert told["pools"][0]["limits"][0]["dimension"] == "rpm"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--rpm", "0"),
        ("--tpm", "many"),
        ("--latency", "-1"),
        ("--output-tokens", "1.5"),
        ("--price", "1"),
        ("--limit", "0"),
    ],
)
def test_an_option_that_makes_no_sense_is_a_usage_error(cli, rows, arguments):
    with pytest.raises(SystemExit) as ended:
        cli(rows, *arguments)
    assert ended.value.code == 2


def test_an_input_that_is_not_there_or_cannot_be_read_so_ends_with_2(cli, rows, tmp_path):
    code, out, err = cli(tmp_path / "nothing.jsonl", "--rpm", "10")
    assert (code, out) == (2, "")
    assert "nothing.jsonl" in err
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1,2\n")
    assert cli(table, "--model", "m")[0] == 2


def test_a_table_with_a_prompt_is_read(cli, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("text\nhello\nworld\n")
    assert cli(table, "--model", "m", "--prompt", "Say {text}", "--rpm", "10")[1].startswith("2 requests")


def test_prices_may_be_shared():
    shared = Prices(CENT)
    assert estimated(chat(), prices=shared).cost == estimated(chat()).cost
