"""Every argument of everything public against values that make no sense: refused at once, and by its name.

What there is comes from `surface`, which reads it out of the package: a new callable has to be put into MAKE (or, with
a reason, into APART), and a new argument is tried here from its first day. `tables` says which of the bad values are
good ones for a name; everything else has to end in a TypeError or a ValueError whose text names the argument.
"""

from __future__ import annotations

import asyncio
import io
import math
import re
import threading
from contextlib import suppress

import openai
import pytest
from surface import doors, surface
from tables import APART, BAD, CALLED, ELSEWHERE, GOOD

from ratelimited_llm import (
    AsyncRateLimitedWorker,
    Journal,
    OpenAI,
    Priority,
    Processor,
    QueueManager,
    RateLimitedExecutor,
    RateLimitedWorker,
    RateLimits,
    SizeClasses,
    as_future,
    queued,
    report_usage,
    requests,
    telemetry,
)
from ratelimited_llm.batch import check_batch, read_lines, run_batch
from ratelimited_llm.batch.estimate import estimate
from ratelimited_llm.gateway import create_app, serve
from ratelimited_llm.requests.settings import forget
from ratelimited_llm.simulator import Allowance, Enforcement, Fault, Faults, Simulator, count_tokens
from ratelimited_llm.testing import Call, VirtualClock, call, simulate

PLAIN = openai.DefaultHttpxClient()  # one for all, since making one takes longer than a check
LINES = b'{"custom_id": "a", "body": {"model": "m", "messages": []}}\n'


class Sdk:
    """A client of somebody's."""

    def create(self, **kwargs):
        return kwargs


class Echo(Processor):
    def process(self, payload):
        return payload


def door(**given):
    return OpenAI(api_key="sk", http_client=PLAIN, **given)


def on(make, name, *args, **usual):
    """A method of what `make` makes, with what it needs beside the argument that is tried."""
    return lambda **given: getattr(make(), name)(*args, **{**usual, **given})


def closed(make):
    """The same, and closed at once when it could be made."""

    def made(**given):
        it = make(**given)
        getattr(it, "close", getattr(it, "shutdown", None))()

    return made


def manager(**given):
    """With somebody to send, unless that is what is tried."""
    whom = {} if given.get("processor", given.get("client")) is not None else {"processor": Echo()}
    return QueueManager(**{name: value for name, value in given.items() if name not in whom}, **whom)


def answered(name):
    """An answer of a manager, which knows no such id."""

    def ask(**given):
        with suppress(KeyError):
            answer = getattr(QueueManager(Echo()), name)(**{"request_id": "x", **given})
            if asyncio.iscoroutine(answer):
                asyncio.run(answer)

    return ask


def task(name):
    """A coroutine method of a worker of tasks."""

    async def nothing(*args):
        return None

    async def run(given):
        worker, items = AsyncRateLimitedWorker(), [[1]] if name == "map" else []
        await getattr(worker, name)(given.pop("fn", nothing), *items, **given)

    return lambda **given: asyncio.run(run(given))


def mapped(**given):
    return list(RateLimitedExecutor().map(given.pop("fn", str), [], **given))


def client_map(**given):
    return door().map(given.pop("fn", str), [], **given)


def settled(set_options, **given):
    """Options for the whole process, taken back."""
    try:
        set_options(**given)
    finally:
        requests.unpatch_requests()
        forget()


def rehearsal(**given):
    return simulate(**{"limits": RateLimits(rpm=60), "calls": [call()], "until": 5.0, **given})


def served(**given):
    if serve(**{"host": "nowhere.invalid", "token": "x", **given}):
        raise AssertionError("it went on")


def batch_of(**given):
    return door().batch(**{"source": io.BytesIO(LINES), "target": io.BytesIO(), "dry_run": True, **given})


MAKE = {
    "OpenAI": door, "OpenAI.with_options": on(door, "with_options"), "Conveniences.wait": on(door, "wait"),
    "Conveniences.gather": on(door, "gather", futures=[]), "Conveniences.map": client_map,
    "Conveniences.batch": batch_of, "Conveniences.estimate": on(door, "estimate", source=io.BytesIO(LINES)),
    "Looking.report": on(door, "report"), "as_future": as_future, "report_usage": report_usage,
    "run_batch": lambda **given: run_batch(
        **{"client": door(), "source": io.BytesIO(LINES), "target": io.BytesIO(), "dry_run": True, **given}
    ),
    "check_batch": lambda **given: check_batch(**{"source": io.BytesIO(LINES), "target": io.BytesIO(), **given}),
    "read_lines": lambda **given: list(read_lines(**{"source": io.BytesIO(LINES), **given})),
    "estimate": lambda **given: estimate(**{"client": None, "source": io.BytesIO(LINES), **given}),
    "RateLimits": RateLimits, "RateLimits.replace": on(RateLimits, "replace"),
    "Priority.parse": Priority.parse, "RateLimitedWorker": RateLimitedWorker,
    "RateLimitedWorker.wait": on(RateLimitedWorker, "wait"),
    "RateLimitedWorker.cancel_queued": on(RateLimitedWorker, "cancel_queued"),
    "RateLimitedExecutor": closed(RateLimitedExecutor), "RateLimitedExecutor.map": mapped,
    "RateLimitedExecutor.with_options": on(RateLimitedExecutor, "with_options"),
    "AsyncRateLimitedWorker": AsyncRateLimitedWorker, "AsyncRateLimitedWorker.run": task("run"),
    "AsyncRateLimitedWorker.map": task("map"),
    "QueueManager": manager,
    "QueueManager.enqueue_request": on(lambda: MANAGER, "enqueue_request", endpoint="e", payload={}),
    **{f"QueueManager.{name}": answered(name) for name in ("cancel_request", "get_result", "get_result_async")},
    "Inspection.get_request_status": answered("get_request_status"),
    "Inspection.get_queue_length": on(lambda: MANAGER, "get_queue_length"),
    "queued": lambda **given: queued(**{"client": Sdk(), **given}),
    "queued().with_options": on(lambda: queued(Sdk()), "with_options"),
    "Session": closed(requests.Session), "LLMAdapter": closed(requests.LLMAdapter),
    "configure": lambda **given: settled(requests.configure, **given),
    "patch_requests": lambda **given: settled(requests.patch_requests, **given),
    "create_app": create_app, "serve": served, "exposition": telemetry.exposition, "register": telemetry.register,
    "start_metrics_server": lambda **given: telemetry.start_metrics_server(**{"port": 0, **given}).stop(),
    "Simulator": Simulator, "Simulator.share_used": on(Simulator, "share_used"),
    "Simulator.change": on(Simulator, "change"), "Enforcement": Enforcement, "Allowance": Allowance, "Fault": Fault,
    "Faults": Faults, "count_tokens": count_tokens, "simulate": rehearsal, "call": call, "Call": Call,
    "VirtualClock": VirtualClock, "VirtualClock.advance": on(VirtualClock, "advance"),
}  # fmt: skip
MANAGER = QueueManager(Echo())
MANAGER.pause()  # what it accepts may stay where it is
SURFACE = surface()


@pytest.fixture(scope="module", autouse=True)
def ended():
    yield
    MANAGER.stop(cancel_pending=True)


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    """What is written is written where nobody looks."""
    monkeypatch.chdir(tmp_path)


def test_everything_that_is_public_is_in_a_table():
    """Or stands apart with a reason; and no table is about what is not there any more."""
    assert set(SURFACE) - set(MAKE) - set(APART) == set()
    assert (set(MAKE) | set(APART)) - set(SURFACE) == set(), "it is not there any more"
    assert set(MAKE) & set(APART) == set()
    assert {who for who in ELSEWHERE if not set(ELSEWHERE[who]) <= set(SURFACE.get(who, ()))} == set()


def test_every_door_takes_what_the_first_takes():
    """By the same code, so that one table speaks for all of them."""
    for kind in doors():
        assert kind.__init__.__code__ is OpenAI.__init__.__code__
        assert kind.with_options.__code__ is kind.copy.__code__ is OpenAI.with_options.__code__
    assert len(doors()) >= 8


def became(who, name, label):
    """What becomes of one value: "" when it is taken, the error when it is refused by its name, else what it was."""
    try:
        MAKE[who](**{name: BAD[label]})
    except (TypeError, ValueError) as error:
        return "refused" if re.search(CALLED.get(name, name), str(error)) else repr(error)
    except OSError:
        return ""  # a file or a host that is not there makes sense
    except Exception as error:
        return repr(error)
    return ""


def good_for(who, name):
    good = ELSEWHERE.get(who, {}).get(name, GOOD.get(name, "")).split()
    return [*good, "None"] if SURFACE[who][name] is None else good


@pytest.mark.parametrize("who", MAKE)
def test_what_makes_no_sense_is_refused_by_its_name_and_nothing_else_is(who):
    """All bad values of all its arguments, but those that are good there; and no thread is left of any of them."""
    before = set(threading.enumerate())
    wrong = {}
    for name in SURFACE[who]:
        refused = {label: became(who, name, label) for label in set(BAD) - set(good_for(who, name))}
        wrong.update({(name, label): what for label, what in refused.items() if what != "refused"})
    assert set(threading.enumerate()) - before == set()
    for name in SURFACE[who]:
        taken = {label: became(who, name, label) for label in good_for(who, name)}
        wrong.update({(name, label): what for label, what in taken.items() if what})
    assert wrong == {}


@pytest.mark.parametrize(("bounds", "weights"), [((), (1,)), ((5, 3), (1, 1, 1)), ((math.nan,), (1, 1)), ((5,), (1, 0)),
                                                 ((5,), (1, math.inf)), ((5,), (1,)), (7, (1, 1)), ("ab", (1, 1, 1)),
                                                 ((True,), (1, 1)), ((5,), (1, "x")), (None, None)])  # fmt: skip
def test_size_classes_that_are_none_are_refused(bounds, weights):
    """Bounds that do not rise, weights that starve or are not whole."""
    with pytest.raises((TypeError, ValueError), match=r"bounds|weights"):
        SizeClasses(bounds, weights)


@pytest.mark.parametrize("name", ["path", "max_age", "store", "wall_clock"])
def test_a_journal_checks_its_arguments(tmp_path, name):
    """Before there is a file."""
    good = {"path": "text", "max_age": "None 1.5 1e308", "store": "", "wall_clock": ""}[name].split()
    for label in set(BAD) - set(good):
        with pytest.raises((TypeError, ValueError), match=name if name != "path" else "journal"):
            Journal(**{"path": tmp_path / "run.db", name: BAD[label]})
    assert list(tmp_path.iterdir()) == []


def test_a_journal_is_pruned_by_an_age(tmp_path):
    """Or it stays as it is."""
    journal = Journal(tmp_path / "run.db")
    for label in set(BAD) - {"None", "1.5", "1e308", "0"}:
        with pytest.raises((TypeError, ValueError), match="older_than"):
            journal.prune(BAD[label])
    journal.close()


@pytest.mark.parametrize("used", ["x", -1, 1.5, math.nan, True, [1]])
def test_a_usage_function_that_answers_nonsense_ends_its_call_and_no_other(used):
    """The call raises it, its place is free, and the next call goes."""
    answers = [used, 3]
    worker = AsyncRateLimitedWorker(max_concurrency=1, usage=lambda result: answers.pop(0))

    async def answer():
        return "answer"

    async def both():
        with pytest.raises(ValueError if used == -1 else TypeError, match="usage"):
            await worker.run(answer)
        return await asyncio.wait_for(worker.run(answer), 5)

    assert asyncio.run(both()) == "answer"
