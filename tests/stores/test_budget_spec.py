"""How people spell a budget, what is wrong with some spellings, and that no password is shown."""

from __future__ import annotations

import os

import pytest

from ratelimited_llm import OpenAI, QueueManager, RateLimitedExecutor, budgets
from ratelimited_llm.accounts import account_for
from ratelimited_llm.aio import AsyncRateLimitedWorker
from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.providers import dialect_for
from ratelimited_llm.runner import read_arguments
from ratelimited_llm.shared_workers import QueueSettings, worker_for
from ratelimited_llm.stores.budget_spec import checked_budget, hidden
from ratelimited_llm.stores.opening import open_store

SECRET = "redis://me:s3cret@cache.example.com:6379/2?x=s3cret"


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (None, "memory"), ("memory", "memory"), (" AUTO ", "auto"), ("sqlite", "sqlite"),
        ("sqlite:////var/tmp/b.db", "sqlite:////var/tmp/b.db"), ("REDIS://host", "redis://host"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"), ("valkey://h:1/0", "valkey://h:1/0"),
    ],
)  # fmt: skip
def test_a_budget_is_read_as_people_write_it(given, read):
    """One spelling for all that mean the same."""
    assert checked_budget(given) == read


def test_a_relative_path_is_that_of_here(tmp_path, monkeypatch):
    """The script may go elsewhere before its first call."""
    monkeypatch.chdir(tmp_path)
    assert checked_budget("sqlite:///b.db") == f"sqlite:///{tmp_path}/b.db"
    assert checked_budget("sqlite:///~/b.db") == f"sqlite:///{os.path.expanduser('~')}/b.db"


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "disk",
        "sqlite://",
        "sqlite:///",
        "redis://",
        "redis://h:x",
        "http://h",
        "unix://",
        "redis:s3cret@host",
        "mysql://me:s3cret@h/0",
        "redis://me:s3cret@h:99999/0",
    ],
)
def test_what_is_no_budget_is_refused_with_the_known_forms(bad, monkeypatch):
    """At the constructor, and without what may be a password."""
    monkeypatch.delenv("RATELIMITED_LLM_BUDGET", raising=False)
    with pytest.raises(ValueError, match="sqlite:///") as caught:
        checked_budget(bad) if bad else OpenAI(api_key="k", budget="?")
    assert "s3cret" not in str(caught.value)


def test_what_is_no_string_is_a_type_error():
    """Nor a store object."""
    with pytest.raises(TypeError, match="budget must be a string"):
        OpenAI(api_key="k", budget=5)
    with pytest.raises(ValueError, match="on_budget_lost"):
        OpenAI(api_key="k", on_budget_lost="ignore")


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    """Before anything is sent."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"ratelimited-llm\[redis\]"):
        checked_budget(SECRET)


def test_no_password_is_shown():
    """In no repr of what holds it."""
    assert hidden(SECRET) == "redis://***@cache.example.com:6379/2"
    settings = QueueSettings(budget=SECRET)
    shown = repr(settings) + repr(worker_for(settings)) + repr(worker_for(settings).budget)
    assert "s3cret" not in shown


def test_the_environment_speaks_for_what_says_nothing(monkeypatch):
    """But not for limits of one's own that have no name, since nobody could tell them apart."""
    monkeypatch.setenv("RATELIMITED_LLM_BUDGET", "redis://localhost:1")
    assert QueueSettings().budget == "redis://localhost:1"
    assert QueueSettings(budget="memory").budget == "memory"
    shared = budgets.budget_for("redis://localhost:1")
    assert RateLimitedExecutor(rpm=60)._worker.budget is not shared
    assert RateLimitedExecutor(rpm=60, budget_name="crawler")._worker.budget is shared


def test_one_budget_for_all_who_mean_the_same(tmp_path):
    """In one process it is one object, and the queues may differ."""
    url = f"sqlite:///{tmp_path}/b.db"
    one, two = worker_for(QueueSettings(budget=url)), worker_for(QueueSettings(budget=url, max_queue=3))
    assert one is not two
    assert one.budget is two.budget
    assert worker_for(QueueSettings()).budget is budgets.memory


def test_limits_of_ones_own_are_shared_by_name_or_by_being_equal(tmp_path):
    """Executors and workers for coroutines."""
    url = f"sqlite:///{tmp_path}/b.db"
    names = [
        RateLimitedExecutor(rpm=60, budget=url)._terms.pool.shared_name,
        RateLimitedExecutor(RateLimits(rpm=60), budget=url)._terms.pool.shared_name,
        AsyncRateLimitedWorker(rpm=60, budget=url)._pool.shared_name,
        RateLimitedExecutor(rpm=61, budget=url)._terms.pool.shared_name,
        RateLimitedExecutor(rpm=61, budget=url, budget_name="x")._terms.pool.shared_name,
        RateLimitedExecutor(rpm=60)._terms.pool.shared_name,
    ]
    assert names[0] == names[1] == names[2] == "own|RateLimits(rpm=60)"
    assert names[3:] == ["own|RateLimits(rpm=61)", "own|x", None]
    with pytest.raises(TypeError, match="budget_name"):
        RateLimitedExecutor(rpm=60, budget=url, budget_name="")


def test_a_manager_shares_the_limits_of_its_processors_and_those_of_its_client_are_the_client_s(tmp_path):
    """Each limit group by its name."""
    with pytest.raises(TypeError, match="the client's"):
        QueueManager(client=OpenAI(api_key="k"), budget="sqlite")


def test_an_account_is_known_by_its_place_and_a_digest_of_its_key():
    """With and without a slash at the end it is the same, and the key is not in it."""
    dialect = dialect_for("openai", "https://api.openai.com/v1/")
    urls = ("https://api.openai.com/v1/", "https://API.openai.com/v1", "HTTPS://api.openai.com/v1//")
    accounts = [account_for("openai", url, "sk-secret", RateLimits(), dialect) for url in urls]
    assert accounts[0] is accounts[1] is accounts[2]
    name = accounts[0].pool("gpt-4.1-mini-2025-04-14").shared_name
    assert name.startswith("https://api.openai.com/v1|")
    assert "sk-secret" not in name
    assert account_for("compatible", "", "x", RateLimits(), dialect).pool("m").shared_name is None


def test_the_runner_hands_it_on(tmp_path, monkeypatch):
    """As an environment variable, checked."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.py").touch()
    script = read_arguments(["--budget", "sqlite:///b.db", "s.py"])
    assert script.environment == {"RATELIMITED_LLM_BUDGET": f"sqlite:///{tmp_path}/b.db"}
    with pytest.raises(SystemExit):
        read_arguments(["--budget", "disk", "s.py"])


def test_stores_that_are_shared_with_nobody_cannot_be_opened():
    """They are none."""
    with pytest.raises(ValueError, match="nobody"):
        open_store("memory")


@pytest.mark.parametrize(
    ("given", "spelled"),
    [(None, "local"), ("local", "local"), ("raise", "raise"), ("local/8", "local/8"), ("local/1", "local"),
     ("local/008", "local/8")],
)  # fmt: skip
def test_what_to_do_without_the_store_is_spelled_so(given: str | None, spelled: str) -> None:
    """And how many share it, for one that was never reached."""
    assert budgets.checked_on_lost(given) == spelled


@pytest.mark.parametrize(
    "given", ["", "local/", "local/0", "local/-1", "local/x", "raise/8", "local/1e3", "local/²", 8]
)
def test_what_makes_no_sense_is_refused_with_what_does(given: object) -> None:
    """With the three forms."""
    with pytest.raises(ValueError, match="local/8"):
        budgets.checked_on_lost(given)


def test_the_environment_says_what_to_do_without_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a fleet that is configured by it alone; what the code says goes before."""
    monkeypatch.setenv("RATELIMITED_LLM_ON_BUDGET_LOST", "local/8")
    assert budgets.checked_on_lost(None) == "local/8"
    assert budgets.checked_on_lost("raise") == "raise"
    budget = budgets.budget_for("sqlite:////nowhere/at/all.db", budgets.checked_on_lost(None))
    assert budget._link.sharers == 8  # type: ignore[attr-defined]
    monkeypatch.setenv("RATELIMITED_LLM_ON_BUDGET_LOST", "often")
    with pytest.raises(ValueError, match="often"):
        OpenAI(api_key="sk-test")
