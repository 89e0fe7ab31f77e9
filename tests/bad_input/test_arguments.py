"""Every argument of everything public against values that make no sense: refused at once, and by its name.

A table: who takes it, the argument, and which of the bad values are good ones there. Everything else must be refused
with a TypeError or a ValueError whose text names the argument.
"""

from __future__ import annotations

import asyncio
import math

import openai
import pytest

from ratelimited_llm import (
    AsyncRateLimitedWorker,
    Journal,
    OpenAI,
    Processor,
    QueueManager,
    RateLimitedExecutor,
    RateLimitedWorker,
    RateLimits,
    SizeClasses,
    queued,
    report_usage,
    requests,
)
from ratelimited_llm.simulator import Enforcement, Fault, Simulator
from ratelimited_llm.testing import call, simulate

BAD = {
    "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "-1": -1, "0": 0, "-0.5": -0.5, "1.5": 1.5, "1e308": 1e308,
    "10**400": 10**400, "True": True, "empty": "", "text": "x", "surrogate": "\ud800", "bytes": b"x", "list": [],
    "list of nan": [math.nan], "dict": {}, "dict of nan": {"a": math.nan}, "dict of int": {1: 1}, "tuple": (1,),
    "object": object(),
}  # fmt: skip
# Which of them are good, by argument; the same name is the same thing everywhere, unless a table below says otherwise.
LIMIT, SECONDS, COUNT, NAME = "-1 1.5 1e308", "inf 1.5 1e308", "0 10**400", "empty text"
GOOD = {
    **dict.fromkeys(["rpm", "tpm", "rpd", "tpd", "itpm", "otpm", "min_interval"], LIMIT),
    **dict.fromkeys(["max_concurrency", "burst"], "-1 1e308"), **dict.fromkeys(["deadline", "max_wait"], SECONDS),
    **dict.fromkeys(["timeout", "keep_results"], SECONDS), **dict.fromkeys(["max_retries", "tokens"], COUNT),
    **dict.fromkeys(["max_queue", "max_queue_per_tenant", "max_results"], "10**400"),
    **dict.fromkeys(["tenant", "tag"], NAME), "share": "", "safety_margin": "0", "ageing": "1.5 1e308",
    "weights": "dict", "size_classes": "True", "priority": "0", "prices": "dict", "max_cost": "1.5 1e308",
    "calls": "text surrogate dict_of_nan",
}  # fmt: skip
QUEUE = "max_queue max_queue_per_tenant on_full ageing weights budget on_budget_lost"
CALL = "priority tenant deadline tag"
LIMITS = "rpm tpm rpd tpd itpm otpm max_concurrency min_interval burst share safety_margin limits"


class Nothing(Processor):
    """Sends nothing: it is only made."""

    def execute_request(self, *args, **kwargs):
        raise NotImplementedError

    process = prepare = execute = execute_request


Nothing.__abstractmethods__ = frozenset()
PLAIN = openai.DefaultHttpxClient()  # one for all, since making one takes longer than a check


class Sdk:
    """A client of somebody's."""

    def create(self, **kwargs):
        return kwargs


def door(**given):
    return OpenAI(api_key="sk", http_client=PLAIN, **given)


def copy_of(**given):
    return door().with_options(**given)


def rehearsal(**given):
    given = {"limits": RateLimits(rpm=60), "calls": [call()], "until": 5.0, **given}
    return simulate(given.pop("limits"), given.pop("calls"), **given)


def adapter(**given):
    requests.LLMAdapter(**given).close()


def session(**given):
    requests.Session(**given).close()


def executor(**given):
    RateLimitedExecutor(**given).shutdown()


WHO = {
    "OpenAI": (door, f"{LIMITS} {QUEUE} {CALL} size_classes max_wait mode estimator prices max_cost on_interrupt"),
    "with_options": (copy_of, f"{CALL} max_wait mode"),
    "RateLimits": (RateLimits, LIMITS.removesuffix(" limits")),
    "RateLimitedExecutor": (executor, f"rpm limits tokens max_retries retry_on worker {QUEUE} size_classes {CALL}"),
    "executor.with_options": (lambda **given: RateLimitedExecutor().with_options(**given), f"tokens {CALL}"),
    "AsyncRateLimitedWorker": (
        AsyncRateLimitedWorker, f"rpm limits max_retries retry_on usage worker budget on_budget_lost {CALL}"
    ),
    "RateLimitedWorker": (RateLimitedWorker, f"{QUEUE} size_classes clock".replace(" on_budget_lost", "")),
    "QueueManager": (
        lambda **given: QueueManager(Nothing(), **given),
        f"rpm limits max_retries timeout keep_results max_results {QUEUE} size_classes",
    ),
    "queued": (
        lambda **given: queued(Sdk(), **given),
        f"rpm limits calls tokens max_retries retry_on mode max_wait {QUEUE} {CALL}",
    ),
    "requests.Session": (session, f"rpm limits max_retries mode max_wait prices max_cost {QUEUE} size_classes {CALL}"),
    "requests.LLMAdapter": (adapter, "rpm max_retries pool_maxsize"),
    "Simulator": (
        Simulator,
        "provider rpm tpm max_concurrency period smooth window admission latency per_token_latency output_tokens "
        "answer port seed log_size api_key",
    ),
    "Enforcement": (Enforcement, "rpm tpm rpd max_concurrency period smooth window admission"),
    "Fault": (Fault, "kind status after first every seconds probability at headers"),
    "simulate": (rehearsal, "limits charge tells latency network until"),
    "call": (call, "at prompt output max_tokens priority tenant pool deadline latency cancel_at"),
}  # fmt: skip
# Where a name means something else, or more is good there.
ELSEWHERE = {
    "Simulator": {
        **dict.fromkeys(["rpm", "tpm", "max_concurrency", "period", "smooth"], "1.5"), "latency": "0 1.5 1e308",
        "per_token_latency": "0 1.5 1e308", "output_tokens": COUNT, "port": "0", "seed": "-1 0 10**400",
        "log_size": "0", "api_key": "empty text surrogate",
    },
    "Enforcement": dict.fromkeys(["rpm", "tpm", "rpd", "max_concurrency", "period", "smooth"], "1.5"),
    "Fault": {
        "status": "10**400", "after": COUNT, "first": COUNT, "every": "10**400", "seconds": "0 inf 1.5 1e308 10**400",
        "probability": "0", "at": "tuple", "headers": "dict dict_of_nan dict_of_int",
    },
    "simulate": {"latency": "0 1.5 1e308", "until": "inf -inf -1 0 -0.5 1.5 1e308"},
    "call": {
        **dict.fromkeys(["at", "deadline", "latency", "cancel_at"], "0 1.5 1e308"), "prompt": "0", "output": "0",
        "max_tokens": "0", "pool": NAME,
    },
    "requests.LLMAdapter": {"pool_maxsize": "10**400"},
}  # fmt: skip
TABLE = [(who, name) for who, (_, names) in WHO.items() for name in names.split()]


@pytest.mark.parametrize(("who", "name"), TABLE, ids=lambda value: value)
def test_what_makes_no_sense_is_refused_by_its_name(who, name):
    """All bad values but those that are good there; `None` is the default of nearly all, and means none."""
    make, good = WHO[who][0], ELSEWHERE.get(who, {}).get(name, GOOD.get(name, "")).split()
    wrong = {}
    for label, value in BAD.items():
        if label.replace(" ", "_") in good:
            continue
        try:
            make(**{name: value})
        except (TypeError, ValueError) as error:
            if name not in str(error):
                wrong[label] = repr(error)
        except Exception as error:
            wrong[label] = repr(error)
        else:
            wrong[label] = "accepted"
    assert wrong == {}


@pytest.mark.parametrize(("bounds", "weights"), [((), (1,)), ((5, 3), (1, 1, 1)), ((math.nan,), (1, 1)), ((5,), (1, 0)),
                                                 ((5,), (1, math.inf)), ((5,), (1,)), (7, (1, 1)), ("ab", (1, 1, 1)),
                                                 ((True,), (1, 1)), ((5,), (1, "x")), (None, None)])  # fmt: skip
def test_size_classes_that_are_none_are_refused(bounds, weights):
    """QueueCaps that do not rise, weights that starve or are not whole."""
    with pytest.raises((TypeError, ValueError), match=r"bounds|weights"):
        SizeClasses(bounds, weights)


@pytest.mark.parametrize("name", ["max_age", "store"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 0, 10**400, True, "x", b"x", [1], {}])
def test_a_journal_checks_its_arguments(tmp_path, name, value):
    """Before there is a file."""
    with pytest.raises((TypeError, ValueError), match=name):
        Journal(tmp_path / "run.db", **{name: value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [math.nan, -1, 1.5, "x", True, None, [1]])
def test_a_usage_that_is_none_is_refused_where_it_is_reported(value):
    """Inside of a function of an executor or not."""
    with pytest.raises((TypeError, ValueError), match="tokens"):
        report_usage(input_tokens=value)


@pytest.mark.parametrize("timeout", ["x", "", math.nan, True, [1], 10**400])
def test_a_timeout_that_is_none_is_refused_by_everything_that_waits(timeout):
    """`wait`, `gather`, `map`, and a worker's `wait`: before anything is waited for."""
    client = door()
    for wait in (client.wait, RateLimitedWorker().wait, lambda timeout: client.gather([], timeout=timeout),
                 lambda timeout: client.map(str, [1], timeout=timeout)):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match="timeout"):
            wait(timeout=timeout)


@pytest.mark.parametrize("used", ["x", -1, 1.5, math.nan, True, [1]])
def test_a_usage_function_that_answers_nonsense_ends_its_call_and_no_other(used):
    """The call raises it, its place is free, and the next call goes."""
    answers = [used, 3]
    worker = AsyncRateLimitedWorker(max_concurrency=1, usage=lambda result: answers.pop(0))

    async def answer():
        return "answer"

    async def both():
        with pytest.raises(ValueError, match="usage"):
            await worker.run(answer)
        return await asyncio.wait_for(worker.run(answer), 5)

    assert asyncio.run(both()) == "answer"


@pytest.mark.parametrize("tokens", [math.nan, -1, 1.5, "x", True, None])
def test_a_worker_of_tasks_checks_what_a_call_costs(tokens):
    """At the call."""

    async def ask():
        await AsyncRateLimitedWorker().run(asyncio.sleep, 0, tokens=tokens)

    with pytest.raises(ValueError, match="tokens"):
        asyncio.run(ask())
