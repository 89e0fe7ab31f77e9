"""Prices: by hand before the list, exact where the list is, and clear about what makes no sense."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from ratelimited_llm.books import prices as module
from ratelimited_llm.books.prices import Price, Prices
from ratelimited_llm.core.request import Usage

USED = Usage(1_000_000, 100_000)
LISTED = pytest.mark.skipif(importlib.util.find_spec("genai_prices") is None, reason="genai-prices is not installed")


@pytest.fixture
def no_list(monkeypatch):
    """As if the extra were not installed."""
    monkeypatch.setattr(module, "_library", lambda: None)


def test_a_price_by_hand_is_per_million_tokens(no_list):
    assert Prices({"m": (2.0, 10.0)}).cost("m", "openai", USED) == pytest.approx(3.0)


@pytest.mark.parametrize("price", [(1, 2), [1, 2], {"input": 1, "output": 2}, Price(1, 2)])
def test_a_price_by_hand_may_have_any_of_these_shapes(price):
    assert Prices({"m": price}).rate("m", "openai") == Price(1, 2)


def test_the_exact_name_goes_before_the_longest_prefix_and_that_before_any_other(no_list):
    known = Prices({"gpt": (1, 1), "gpt-4o": (2, 2), "gpt-4o-mini": (3, 3), "*": (9, 9)})
    found = [known.rate(name).input for name in ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", "gpt-4o-x", "gpt-5", "x")]
    assert found == [3, 3, 2, 1, 9]


def test_cached_input_has_its_own_price(no_list):
    known = Prices({"m": {"input": 2, "output": 0, "cached_input": 0.5}, "n": (2, 0)})
    used = Usage(1_000_000, 0, 400_000)
    assert known.cost("m", "", used) == pytest.approx(1.4)
    assert known.cost("n", "", used) == pytest.approx(2.0)


def test_more_cached_tokens_than_input_never_make_a_negative_price(no_list):
    known = Prices({"m": {"input": 2, "output": 0, "cached_input": 0.5}})
    assert known.cost("m", "", Usage(10, 0, 1_000_000)) == pytest.approx(10 * 0.5 / 1e6)


def test_what_nobody_knows_has_no_price(no_list):
    assert Prices({"m": (1, 1)}).rate("other", "openai") is None
    assert Prices().cost("other", "openai", USED) is None


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ([("m", 1)], TypeError, "mapping"),
        ("cheap", TypeError, "mapping"),
        ({1: (1, 2)}, TypeError, "string"),
        ({"": (1, 2)}, TypeError, "string"),
        ({"m": 3}, TypeError, "'m'"),
        ({"m": (1,)}, TypeError, "'m'"),
        ({"m": (1, 2, 3)}, TypeError, "'m'"),
        ({"m": "12"}, TypeError, "'m'"),
        ({"m": ("1", 2)}, TypeError, "'m'.*input"),
        ({"m": (True, 2)}, TypeError, "'m'.*input"),
        ({"m": (None, 2)}, TypeError, "'m'.*input"),
        ({"m": (-1, 2)}, ValueError, "'m'.*input"),
        ({"m": (1, float("nan"))}, ValueError, "'m'.*output"),
        ({"m": (1, float("inf"))}, ValueError, "'m'.*output"),
        ({"m": {"input": 1}}, TypeError, "'m'.*output"),
        ({"m": {"input": 1, "output": 2, "cached": 3}}, TypeError, "'m'.*cached"),
        ({"m": {"input": 1, "output": 2, "cached_input": -3}}, ValueError, "'m'.*cached_input"),
    ],
)
def test_a_bad_price_is_refused_where_it_is_given(given, error, says):
    with pytest.raises(error, match=says):
        Prices(given)


def test_names_that_somebody_makes_up_do_not_fill_the_memory(no_list):
    known = Prices({"*": (1, 1)})
    for number in range(3 * module.MOST_NAMES):
        known.rate(f"m{number}", "openai")
    assert len(known._found) <= module.MOST_NAMES


@pytest.mark.parametrize("model", [None, 3, ["m"], {}])
def test_a_model_that_is_no_name_has_no_price(model):
    assert Prices({"m": (1, 1)}).rate(model, "openai") is None


@LISTED
@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o-mini"),
        ("openai", "gpt-4o-mini-2024-07-18"),
        ("azure", "gpt-4o-mini"),
        ("api.openai.com", "gpt-4o-mini"),
        ("https://api.openai.com/v1/", "gpt-4o-mini"),
        ("http://127.0.0.1:8089/v1", "gpt-4o-mini"),
        ("compatible", "gpt-4o-mini"),
        ("", "gpt-4o-mini"),
    ],
)
def test_the_list_knows_a_model_wherever_it_is_served(provider, model):
    assert Prices().rate(model, provider) == Price(0.15, 0.6, 0.075)


@LISTED
def test_a_price_by_hand_goes_before_the_list():
    assert Prices({"gpt-4o": (7, 7)}).rate("gpt-4o-mini", "openai") == Price(7, 7)


@LISTED
def test_the_list_does_not_know_every_name():
    known = Prices()
    assert known.rate("no-such-model", "openai") is None
    assert known.rate("gpt-4o-mini", "no-such-provider") is None


@LISTED
def test_a_price_per_request_is_counted_per_request():
    known = Prices()
    per_request = known.rate("sonar-pro", "perplexity").request
    assert per_request > 0
    assert known.cost("sonar-pro", "perplexity", Usage(0, 0)) == pytest.approx(per_request)


@LISTED
@pytest.mark.parametrize("tokens", [1_000, 199_999, 200_000, 200_001, 300_000])
def test_a_tiered_price_is_what_the_list_itself_calculates(tokens):
    import genai_prices

    known = Prices()
    expected = genai_prices.calc_price(
        genai_prices.Usage(input_tokens=tokens, output_tokens=500, cache_read_tokens=100),
        "gemini-2.5-pro",
        provider_id="google",
    )
    found = known.cost("gemini-2.5-pro", "gemini", Usage(tokens, 500, 100))
    assert found == pytest.approx(float(expected.total_price))


@LISTED
def test_a_flat_price_is_what_the_list_itself_calculates():
    import genai_prices

    known = Prices()
    theirs_used = genai_prices.Usage(input_tokens=12_345, output_tokens=678, cache_read_tokens=1_000)
    for provider, model in (
        ("openai", "gpt-4o"),
        ("openai", "text-embedding-3-small"),
        ("groq", "llama-3.3-70b-versatile"),
        ("anthropic", "claude-3-5-haiku-latest"),
        ("deepseek", "deepseek-chat"),
    ):
        theirs = genai_prices.calc_price(theirs_used, model, provider_id=provider)
        assert known.cost(model, provider, Usage(12_345, 678, 1_000)) == pytest.approx(float(theirs.total_price))


def test_a_list_with_prices_of_seconds_only_has_no_price_of_tokens():
    found = SimpleNamespace(model_price=SimpleNamespace(input_audio_mtok=3), model=SimpleNamespace(prices=None))
    assert module._tariff(None, found) is None


def test_importing_it_costs_no_price_list_and_looking_up_starts_no_thread():
    """In a fresh interpreter, without a way to open a socket."""
    code = """
import socket, sys, threading
def refuse(*args, **kwargs): raise AssertionError("went online")
socket.socket.connect = refuse
from ratelimited_llm.books.prices import Prices
assert "genai_prices" not in sys.modules
known = Prices({"m": (1, 1)})
known.rate("m", "openai")
assert "genai_prices" not in sys.modules
known.rate("gpt-4o-mini", "openai")
assert threading.active_count() == 1
"""
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0


def test_many_threads_find_the_same_price():
    known, found = Prices({"m": (1, 1)}), []
    threads = [threading.Thread(target=lambda: found.append(known.rate("m", "openai"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [Price(1, 1)] * 16
