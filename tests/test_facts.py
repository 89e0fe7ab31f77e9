"""What a process reports of itself: its waits of the last minute out of histograms that only grow."""

from ratelimited_llm import OpenAI
from ratelimited_llm.books.facts import _Waits, facts_of
from ratelimited_llm.telemetry.meters import WAITS, Histogram


def test_waits_are_those_of_the_last_minute() -> None:
    """What was waited before is forgotten; no call is no wait."""
    waited, waits = Histogram(WAITS), _Waits()
    assert waits.lately(waited, 0.0) == {"wait_p50": None, "wait_p95": None}
    for _ in range(100):
        waited.add(14.0)
    told = waits.lately(waited, 2.0)
    assert 10.0 <= told["wait_p50"] <= told["wait_p95"] <= 30.0
    for _ in range(100):
        waited.add(0.001)
    assert waits.lately(waited, 70.0)["wait_p95"] <= 0.01
    assert waits.lately(waited, 140.0)["wait_p50"] is None


def test_waits_beyond_every_bound_are_told_as_the_last() -> None:
    """An overnight run."""
    waited, waits = Histogram(WAITS), _Waits()
    waited.add(1e9)
    assert waits.lately(waited, 0.0)["wait_p95"] == WAITS[-1]


def test_a_client_reports_what_top_shows(simulator, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Rates, by pool too; counts, waits, and what it is."""
    provider, budget = simulator(rpm=600, answer="echo"), f"sqlite:///{tmp_path / 'budget.db'}"
    with OpenAI(api_key="sk-secret", base_url=provider.base_url, budget=budget) as client:
        messages = [{"role": "user", "content": "hello"}]
        calls = [client.chat.completions.create(model="gpt-4.1-mini", messages=messages) for _ in range(3)]
        assert all(call.choices for call in calls)
        facts = facts_of(client._runtime.worker.budget, lambda budget: [client._runtime.ledger])
    assert (facts["answered"], facts["failed"], facts["refused"], facts["rpm"]) == (3, 0, 0, 3)
    ((pool, rates),) = facts["pools"].items()
    assert pool.endswith("|gpt-4.1-mini")
    assert rates["rpm"] == 3
    assert facts["wait_p50"] is not None
    assert "sk-secret" not in str(facts)
