"""Everybody who shares a budget, as lines of a terminal: what is shown, what is given up, and what cannot be said."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimited_llm.books.fleet import fleet
from ratelimited_llm.core.booking import Shared
from ratelimited_llm.display.fleet import clean, frame, limits_table
from ratelimited_llm.stores.shared_store import Control, Member, PoolFacts

OPENAI = "https://api.openai.com/v1|9df37f5e7cbc3c39|gpt-4.1-mini"
RPM, TPM = Shared("rpm", 10_000, 120, 60), Shared("tpm", 10_000_000, 2_900_000, 60)
FACTS = {"role": "worker", "in_flight": 61, "queued": 9_812, "rpm": 1_700, "tpm": 1_200_000, "wait_p50": 14,
         "wait_p95": 21, "refused": 0, "answered": 1_000, "failed": 2, "spent": 69.2}  # fmt: skip


def batches(count):
    return [Member(f"batch-{n}-4711-ab12cd34", 0.4 * n, FACTS) for n in range(1, count + 1)]


def shown(pools=(), members=(), control=None, **options):
    return frame(fleet(pools, members, control or Control()), **options)


def test_pools_are_shown_with_their_rates_against_their_limits() -> None:
    """The sum of what all processes report, since there is one pool; a star at what the calls wait for."""
    first = shown([PoolFacts(OPENAI, 0.0, (RPM, TPM))], batches(5), width=100)[0]
    assert first == "gpt-4.1-mini @ api.openai.com   8.5k/10k rpm*   6M/10M tpm"


def test_nothing_binds_while_nothing_waits() -> None:
    """A limit that is used up matters to nobody then."""
    idle = [Member("one", 0.1, {**FACTS, "queued": 0})]
    assert "*" not in "\n".join(shown([PoolFacts(OPENAI, 0.0, (RPM,))], idle))


def test_pools_of_two_are_told_apart_by_what_is_left() -> None:
    """Processes report one rate for all pools, so it is what is missing from each limit."""
    two = [
        PoolFacts(OPENAI, 0.0, (RPM,)),
        PoolFacts("https://api.groq.com|ab|llama", 12.4, (Shared("rpm", 30, 18, 60),)),
    ]
    lines = shown(two, batches(1))
    assert "9.9k/10k rpm" in lines[0]
    assert lines[1] == "llama @ api.groq.com   12/30 rpm   paused 0:12 (429)"


def test_rates_that_are_reported_by_pool_are_shown_by_pool() -> None:
    """Several processes add up."""
    members = [Member(str(n), 0.0, {"pools": {OPENAI: {"rpm": 30, "tpm": 900}}}) for n in range(2)]
    other = PoolFacts("https://api.groq.com|ab|llama", 0.0, (Shared("rpm", 30, 18, 60),))
    assert "60/10k rpm   1.8k/10M tpm" in shown([PoolFacts(OPENAI, 0.0, (RPM, TPM)), other], members)[0]


def test_two_keys_of_one_provider_are_told_apart() -> None:
    """By the begin of their digests; a key that is alone needs none."""
    pools = [
        PoolFacts(f"https://api.openai.com/v1|{digest}|gpt-4.1", 0.0, (RPM,)) for digest in ("aaaabbbbcccc", "dddd")
    ]
    assert [line.partition("   ")[0] for line in shown(pools)[:2]] == [
        "gpt-4.1 @ api.openai.com (key aaaabb)", "gpt-4.1 @ api.openai.com (key dddd)",
    ]  # fmt: skip


def test_workers_are_a_table_with_one_row_each() -> None:
    """What a wide terminal shows of each."""
    lines = shown([], [*batches(1), Member("web-1", 0.2, {"role": "gateway", "in_flight": 3})], width=120)
    assert lines[-3].split() == ["worker", "open", "queued", "rpm", "tpm", "wait", "p50/p95", "429", "failed", "cost",
                                 "last", "seen"]  # fmt: skip
    assert lines[-2].split() == ["batch-1-4711-ab12cd34", "61", "9.8k", "1.7k", "1.2M", "14/21", "s", "0", "2", "$69",
                                 "0.4", "s"]  # fmt: skip
    assert lines[-1].split()[:4] == ["web-1", "(gateway)", "3", "-"]


def test_orders_of_operators_are_said_and_how_to_take_them_back() -> None:
    """Both of them are easily forgotten."""
    text = "\n".join(shown(control=Control(3, True, {"rpm": 8_000.0})))
    assert "PAUSED by an operator; ratelimited-llm resume" in text
    assert "at most 8,000 rpm by an operator; ratelimited-llm limit --none" in text


@pytest.mark.parametrize("width", [20, 40, 60, 79, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(width: int) -> None:
    """Half a number is a wrong one: what does not fit is left out, or goes to the next line."""
    pools = [PoolFacts(OPENAI, 7.0, (RPM, TPM))]
    lines = shown(pools, batches(7), Control(1, True, {"rpm": 8_000.0}), width=width)
    assert all(len(line) <= width for line in lines)
    if width >= 40:
        assert "$484" in "\n".join(lines)
        assert "batch-1" in "\n".join(lines)


def test_workers_that_do_not_fit_are_counted() -> None:
    """A terminal of ten lines shows ten lines."""
    lines = shown([], batches(50), width=200, height=10)
    assert len(lines) == 10
    assert lines[-1] == "and 45 more"


def test_pools_that_do_not_fit_are_counted_and_the_held_back_are_shown() -> None:
    """Of a thousand families, those that a refusal holds back matter."""
    pools = [PoolFacts(f"https://a.example|k|m{n}", 9.0 if n == 500 else 0.0, (RPM,)) for n in range(1_000)]
    lines = shown(pools, batches(3), width=100, height=24)
    assert len(lines) <= 24
    assert "m500 @ a.example" in "\n".join(lines)
    assert "and 992 more pools" in lines
    assert "batch-3" in lines[-1]


def test_a_name_cannot_command_the_terminal() -> None:
    """Whoever may report may choose the name: escape sequences, line breaks and right-to-left marks are not obeyed."""
    evil = "a\x1b[2J\x1b]0;owned\x07\n\r\u202eb\x9b"
    text = "\n".join(shown([PoolFacts(evil, 0.0, (Shared(evil, 1, 1, 60),))], [Member(evil, 0.0, {"role": evil})]))
    assert all(each == "\n" or " " <= each <= "~" for each in text)
    assert clean(evil) == "a?[2J?]0;owned????b?"


def test_facts_that_make_no_sense_are_not_known() -> None:
    """Strings, lists, NaN, negatives and numbers beyond floats."""
    facts = {"queued": "many", "in_flight": [1], "rpm": float("nan"), "tpm": -4, "spent": 10**400, "priorities": 3}
    told = fleet([], [Member("odd", float("inf"), facts)], Control())
    worker = told.workers[0]
    assert (worker.queued, worker.in_flight, worker.rpm, worker.tpm, worker.spent) == (None,) * 5
    assert told.totals == {}
    json.dumps(told.as_json(), allow_nan=False)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(("queued", "in_flight", "rpm", "wait_p50", "wait_p95", "role", "pools", "spent", "priorities"))


@given(st.dictionaries(names, json_values), st.text(max_size=30), st.floats(), st.floats(), st.integers(1, 200))
def test_whatever_a_process_reports_can_be_shown(facts, name, limit, level, width) -> None:  # type: ignore[no-untyped-def]
    """Never an exception, never more than ASCII, never wider than asked."""
    told = fleet([PoolFacts(name, limit, (Shared("rpm", limit, level, 60),))], [Member(name, level, facts)], Control())
    for line in [*frame(told, width=width), *limits_table(told)]:
        assert line.isascii()
        assert line.isprintable()
    json.dumps(told.as_json(), allow_nan=False)


def test_limits_are_listed_by_pool() -> None:
    """Whole numbers, since an operator compares them with the provider's page."""
    lines = limits_table(fleet([PoolFacts(OPENAI, 3.0, (RPM, TPM))], [], Control()))
    assert lines[0] == "gpt-4.1-mini @ api.openai.com   paused 0:03 by a 429"
    assert lines[2].split()[:4] == ["rpm", "10,000", "120", "minute"]
    assert lines[3].split()[:4] == ["tpm", "10,000,000", "2,900,000", "minute"]


def test_each_limit_says_from_whom_it_is_known() -> None:
    """The user, the provider and since when, an operator; what the provider said beside that, too."""
    told = (("learned", 65.0), ("stated", None), ("stated", 5.0), ("lowered", None), ("", None))
    limits = tuple(Shared(f"x{place}", 10.0, 5.0, 60.0, *each) for place, each in enumerate(told))
    pool = fleet([PoolFacts(OPENAI, 0.0, limits)], [], Control())
    assert [line.split("minute", 1)[1].strip() for line in limits_table(pool)[2:]] == [
        "the provider, 1:05 ago", "a user", "a user; heard from the provider 0:05 ago", "an operator", "?",
    ]  # fmt: skip
    assert [limit["source"] for limit in pool.as_json()["pools"][0]["limits"]] == [source for source, _ in told]


def test_a_budget_that_nobody_uses_says_so() -> None:
    """Two plain sentences."""
    assert shown() == ["no limits are known yet", "nobody shares this budget at the moment"]
    assert "nobody has sent anything" in limits_table(fleet([], [], Control()))[0]
