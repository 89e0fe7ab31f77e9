"""LightFuture keeps the contract of `concurrent.futures.Future`, and costs what it promises."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import signal
import sys
import threading
import traceback
import tracemalloc
import weakref
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    CancelledError,
    Future,
    InvalidStateError,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimited_llm.engine import future_state, gates, unread_failures
from ratelimited_llm.engine.light_future import LightFuture, abandon
from ratelimited_llm.engine.submission_site import submitted_at
from ratelimited_llm.future import ResponseFuture


class Answer:
    """A declared type without special methods."""


MAKERS = {"Future": Future, "LightFuture": LightFuture, "ResponseFuture": ResponseFuture.of(Answer)}


@pytest.fixture(params=MAKERS)
def new(request: pytest.FixtureRequest) -> Any:
    """Make futures: the standard library's, so that a test is known to state its contract, and each of ours."""
    return MAKERS[request.param]


@pytest.fixture(params=["LightFuture", "ResponseFuture"])
def ours(request: pytest.FixtureRequest) -> Any:
    return MAKERS[request.param]


def done(new: Any, value: object = 1) -> Any:
    future = new()
    future.set_result(value)
    return future


def failed(new: Any, error: BaseException) -> Any:
    future = new()
    future.set_exception(error)
    return future


def cancelled(new: Any) -> Any:
    future = new()
    future.cancel()
    future.set_running_or_notify_cancel()
    return future


def running(new: Any) -> Any:
    future = new()
    future.set_running_or_notify_cancel()
    return future


def look(future: Any) -> tuple[bool, bool, bool]:
    return future.running(), future.cancelled(), future.done()


# -- states


def test_a_new_future_is_pending(new: Any) -> None:
    """It neither runs nor is over."""
    assert look(new()) == (False, False, False)


def test_a_future_runs_until_it_is_finished(new: Any) -> None:
    """Running and done exclude each other."""
    future = running(new)
    assert look(future) == (True, False, False)
    future.set_result(1)
    assert look(future) == (False, False, True)


def test_cancel_takes_a_pending_future_and_no_other(new: Any) -> None:
    """A pending one can be cancelled, twice as well; a running or finished one cannot."""
    future = new()
    assert future.cancel()
    assert future.cancel()
    assert look(future) == (False, True, True)
    assert not running(new).cancel()
    assert not done(new).cancel()


def test_a_cancelled_future_must_not_be_run(new: Any) -> None:
    """set_running_or_notify_cancel says False once, and refuses after that."""
    future = new()
    future.cancel()
    assert not future.set_running_or_notify_cancel()
    with pytest.raises(RuntimeError):
        future.set_running_or_notify_cancel()


@pytest.mark.parametrize("make", [running, done, cancelled])
def test_only_a_pending_future_can_be_started(new: Any, make: Any) -> None:
    """Starting it in any other state is the caller's mistake, and raises."""
    with pytest.raises(RuntimeError):
        make(new).set_running_or_notify_cancel()


@pytest.mark.parametrize("make", [done, cancelled, lambda new: new().cancel and cancelled(new)])
def test_a_future_ends_once(new: Any, make: Any) -> None:
    """A second end of either kind raises InvalidStateError and changes nothing."""
    future = make(new)
    before = look(future)
    with pytest.raises(InvalidStateError):
        future.set_result(2)
    with pytest.raises(InvalidStateError):
        future.set_exception(ValueError())
    assert look(future) == before


def test_result_and_exception_tell_how_it_ended(new: Any) -> None:
    """A result has no exception; an exception is the very object that was set; a cancelled one raises from both."""
    assert done(new, 7).result() == 7
    assert done(new, 7).exception() is None
    error = ValueError("no")
    future = failed(new, error)
    assert future.exception() is error
    with pytest.raises(ValueError, match="no") as caught:
        future.result()
    assert caught.value is error
    for ask in (cancelled(new).result, cancelled(new).exception):
        with pytest.raises(CancelledError):
            ask()


@pytest.mark.parametrize("timeout", [-1, 0, 0.001])
@pytest.mark.parametrize("make", [lambda new: new(), running])
def test_asking_too_early_times_out(new: Any, make: Any, timeout: float) -> None:
    """The error is concurrent.futures' own TimeoutError, which on Python 3.10 is not the builtin."""
    future = make(new)
    with pytest.raises(FutureTimeoutError):
        future.result(timeout)
    with pytest.raises(FutureTimeoutError):
        future.exception(timeout)


def test_none_is_a_result_like_any_other(new: Any) -> None:
    """None, false values and exceptions can be results."""
    for value in (None, 0, "", ValueError("a value")):
        future = done(new, value)
        assert future.result() is value
        assert future.exception() is None


# -- callbacks


def test_callbacks_run_in_the_order_they_were_added(new: Any) -> None:
    """Each gets the future, which is done by then."""
    future, seen = new(), []
    for number in range(3):
        future.add_done_callback(lambda ended, number=number: seen.append((number, ended is future, ended.done())))
    future.set_result(1)
    assert seen == [(number, True, True) for number in range(3)]


@pytest.mark.parametrize("make", [done, cancelled, lambda new: failed(new, ValueError())])
def test_a_callback_added_late_runs_at_once(new: Any, make: Any) -> None:
    """Whatever the end was."""
    seen: list[Any] = []
    future = make(new)
    future.exception() if not future.cancelled() else None
    future.add_done_callback(seen.append)
    assert seen[0] is future


def test_cancel_runs_the_callbacks_once(new: Any) -> None:
    """At cancel(), and not again when the executor takes notice."""
    future, seen = new(), []
    future.add_done_callback(lambda ended: seen.append(ended.cancelled()))
    future.cancel()
    future.cancel()
    future.set_running_or_notify_cancel()
    assert seen == [True]


def test_a_callback_that_raises_is_logged_and_the_next_still_runs(new: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The log is concurrent.futures' own; an early and a late callback are treated alike."""
    future, seen = new(), []
    future.add_done_callback(lambda ended: 1 / 0)
    future.add_done_callback(lambda ended: seen.append(1))
    future.set_result(1)
    future.add_done_callback(lambda ended: 1 / 0)
    assert seen == [1]
    assert [(r.name, r.levelname) for r in caplog.records] == [("concurrent.futures", "ERROR")] * 2
    assert "exception calling callback for <" in caplog.text


def test_a_callback_may_use_the_future(new: Any) -> None:
    """No lock is held while it runs: it can ask, add another, and wait for the result."""
    future, seen = new(), []
    future.add_done_callback(lambda ended: ended.add_done_callback(lambda again: seen.append(again.result())))
    future.set_result(5)
    assert seen == [5]


def test_a_finished_future_drops_its_callbacks(ours: Any) -> None:
    """A list of answers does not keep everything alive that once waited for one of them."""

    class Listener:
        def __call__(self, ended: object) -> None: ...

    listener = Listener()
    gone = weakref.ref(listener)
    future = ours()
    future.add_done_callback(listener)
    future.set_result(1)
    del listener
    assert gone() is None


# -- wait() and as_completed(): a scenario is the end of each future, some of them before the wait and some during it


def end(future: Any, how: str) -> None:
    if how == "result":
        future.set_result(1)
    elif how == "exception":
        future.set_exception(ValueError(how))
        future.exception()
    else:
        future.cancel()
        future.set_running_or_notify_cancel()


ENDS = st.sampled_from(["result", "exception", "cancel"])


@given(before=st.lists(ENDS, max_size=3), pending=st.integers(0, 3), rule=st.sampled_from(["1", "E", "A"]))
@settings(deadline=None, max_examples=60)
def test_wait_without_time_agrees_with_the_standard_library(before: list[str], pending: int, rule: str) -> None:
    """Over any mix of ended and pending futures, done and not done are the same as for plain futures."""
    return_when = {"1": FIRST_COMPLETED, "E": FIRST_EXCEPTION, "A": ALL_COMPLETED}[rule]
    answers = []
    for new in MAKERS.values():
        futures = [new() for _ in range(len(before) + pending)]
        for future, how in zip(futures, before, strict=False):
            end(future, how)
        finished, unfinished = wait(futures, timeout=0, return_when=return_when)
        answers.append([(future in finished, future in unfinished) for future in futures])
        assert [future._waiters for future in futures if future.done() is False] == [[]] * pending
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize(
    ("return_when", "ends", "expected"),
    [
        (FIRST_COMPLETED, ["result"], 1),
        (FIRST_COMPLETED, ["cancel"], 1),
        (FIRST_EXCEPTION, ["result", "exception"], 2),
        (FIRST_EXCEPTION, ["cancel", "result", "result"], 3),
        (ALL_COMPLETED, ["exception", "cancel", "result"], 3),
    ],
)
def test_wait_in_another_thread_is_woken_by_its_condition(
    new: Any, return_when: str, ends: list[str], expected: int
) -> None:
    """It returns when its rule is met and not before, over three pending futures."""
    futures = [new() for _ in range(3)]
    answer: list[Any] = []
    waiting = threading.Thread(target=lambda: answer.append(wait(futures, return_when=return_when)))
    waiting.start()
    settle_in(futures)
    for future, how in zip(futures, ends, strict=False):
        assert waiting.is_alive()
        end(future, how)
    waiting.join()
    assert len(answer[0].done) == expected


def settle_in(futures: list[Any]) -> None:
    """Return when the other thread has installed its waiter on all of them; no time is guessed."""
    pause = threading.Event()
    while True:
        with futures[-1]._condition:
            installed = [future._waiters for future in futures]
            if all(isinstance(each, (list, tuple)) and each for each in installed):  # or one is just being changed
                return
        pause.wait(0.001)


def test_as_completed_in_another_thread_yields_in_the_order_of_ending(new: Any) -> None:
    """Those that were done come first, each future once, and every kind of end counts."""
    futures = [new() for _ in range(4)]
    futures[2].set_result(1)
    order: list[int] = []
    first = threading.Event()

    def consume() -> None:
        for future in as_completed([*futures, futures[0]]):
            order.append(futures.index(future))
            first.set()

    consuming = threading.Thread(target=consume)
    consuming.start()
    first.wait()
    for number, how in [(3, "cancel"), (0, "exception"), (1, "result")]:
        end(futures[number], how)
    consuming.join()
    assert order == [2, 3, 0, 1]


def test_as_completed_times_out_and_leaves_nothing_behind(new: Any) -> None:
    """The done one is yielded; then the timeout is raised, and the pending one has no waiter left."""
    pending, finished = new(), done(new)
    seen = []
    with pytest.raises(FutureTimeoutError):
        seen.extend(as_completed([pending, finished], timeout=0))
    assert seen == [finished]
    assert pending._waiters == []


def test_wait_takes_a_mix_of_plain_futures_and_ours(ours: Any) -> None:
    """A pool's futures and ours can be waited for together."""
    mixed = {Future(), done(Future), ours(), done(ours)}
    finished, pending = wait(mixed, timeout=0)
    assert {future.done() for future in finished} == {True}
    assert finished | pending == mixed
    assert len(finished) == 2


def test_asyncio_awaits_it_through_wrap_future(new: Any) -> None:
    """Results, exceptions and cancellation cross over, in both directions."""

    async def main() -> None:
        good, bad, dropped = new(), new(), new()
        wrapped = [asyncio.wrap_future(future) for future in (good, bad, dropped)]
        good.set_result(3)
        bad.set_exception(ValueError("no"))
        wrapped[2].cancel()
        assert await wrapped[0] == 3
        with pytest.raises(ValueError, match="no"):
            await wrapped[1]
        await asyncio.sleep(0)
        assert dropped.cancelled()

    asyncio.run(main())


def test_result_is_woken_from_another_thread_by_every_end(new: Any) -> None:
    """A result, an exception, and a cancel even before the executor took notice of it."""
    outcomes: list[Any] = []

    def ask(future: Any) -> None:
        try:
            outcomes.append(future.result(10))
        except (CancelledError, ValueError) as error:
            outcomes.append(type(error).__name__)

    for finish in (lambda f: f.set_result(1), lambda f: f.set_exception(ValueError()), lambda f: f.cancel()):
        future = new()
        threads = [threading.Thread(target=ask, args=(future,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        finish(future)
        for thread in threads:
            thread.join()
    assert outcomes == [1] * 3 + ["ValueError"] * 3 + ["CancelledError"] * 3


# -- what is ours: the lock that is made late


def test_threads_that_race_for_the_late_lock_lose_no_wake_up(ours: Any) -> None:
    """Thousands of futures are waited for in every way while another thread ends them: all are seen by all."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that threads meet between any two lines
    try:
        for _ in range(8):
            futures = [ours() for _ in range(150)]
            called: list[Any] = []

            def by_result(futures: list[Any] = futures) -> int:
                return sum(future.result(10) for future in futures)

            def by_exception(futures: list[Any] = futures) -> int:
                return sum(future.exception(10) is None for future in reversed(futures))

            def by_callback(futures: list[Any] = futures, called: list[Any] = called) -> int:
                for future in futures:
                    future.add_done_callback(called.append)
                return len(futures)

            def by_waiters(futures: list[Any] = futures) -> int:
                return len(list(as_completed(futures, 10)))

            def by_wait(futures: list[Any] = futures) -> int:
                return sum(len(wait([future], 10, FIRST_COMPLETED).done) for future in futures)

            with ThreadPoolExecutor(6) as pool:
                jobs = [pool.submit(job) for job in (by_result, by_exception, by_callback, by_waiters, by_wait)]
                for future in futures:
                    future.set_running_or_notify_cancel()
                    future.set_result(1)
                assert [job.result() for job in jobs] == [150] * 5
            assert len(called) == 150
    finally:
        sys.setswitchinterval(interval)


def test_threads_that_race_to_end_it_agree_on_one_end(ours: Any) -> None:
    """Of cancel, result and exception exactly one wins, and its callback runs exactly once."""
    start = threading.Barrier(3)

    def play(futures: list[Any], move: str) -> list[bool]:
        start.wait()
        return [try_to(future, move) for future in futures]

    def try_to(future: Any, move: str) -> bool:
        try:
            if move == "cancel":
                return bool(future.cancel())
            end(future, move)
        except InvalidStateError:
            return False
        return True

    futures = [ours() for _ in range(1000)]
    calls: list[Any] = []
    for future in futures:
        future.add_done_callback(calls.append)
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(play, futures, move) for move in ("cancel", "result", "exception")]
        wins = [sum(won) for won in zip(*(job.result() for job in jobs), strict=True)]
    assert set(wins) == {1}
    assert len(calls) == 1000


def test_a_future_nobody_waits_for_has_no_lock(ours: Any) -> None:
    """Neither its states nor its result make one, and one that ended without it never needs it."""
    future = ours()
    future.running()
    future.done()
    future.set_running_or_notify_cancel()
    assert future._waits is None
    future.set_result(1)
    assert future.result() == 1
    assert list(as_completed([future])) == [future]
    assert future._waits is None


def test_the_lock_of_a_future_never_changes(ours: Any) -> None:
    """Who took it while the future was pending releases the same one when it is done."""
    future = ours()
    lock = future._condition
    future.set_result(1)
    assert future._condition is lock
    finished = done(ours)
    assert finished._condition is finished._condition


def test_a_step_that_waited_for_the_module_s_lock_in_a_thread_moves_to_the_future_s_own(
    ours: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The future is given its own lock, which is held, while a set_result is on its way to the other one."""
    future = ours()
    too_late = threading.Event()

    class Overtaken:
        """The module's lock as the slow thread meets it: when it gets in, somebody was faster."""

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None:
            too_late.set()

    own = future._condition
    waits = future._waits
    future_state.store_waits(future, None)
    monkeypatch.setattr(Overtaken, "__enter__", lambda self: future_state.store_waits(future, waits))
    monkeypatch.setattr(future_state, "_locks", [Overtaken()] * len(future_state._locks))
    with own:
        slow = threading.Thread(target=future.set_result, args=[1])
        slow.start()
        too_late.wait()
        assert not future.done()
    slow.join()
    assert future.result() == 1


def test_the_state_is_stored_last(ours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sees a future done, without any lock, also sees its result."""
    stored: list[str] = []
    for name in ("result", "exception", "state"):
        store = getattr(future_state, f"store_{name}")
        monkeypatch.setattr(
            future_state,
            f"store_{name}",
            lambda future, value, name=name, store=store: (stored.append(name), store(future, value)),
        )
    future = ours()
    stored.clear()
    future.set_result(1)
    assert stored == ["result", "exception", "state"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer signal")
def test_an_interrupt_ends_the_wait_and_not_the_call(ours: Any) -> None:
    """Ctrl-C reaches a thread that waits; the future is as it was, and nothing of the wait stays behind."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    future = ours()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(KeyboardInterrupt):
            future.result(10)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert look(future) == (False, False, False)
    assert future._waits.gates == []


def test_polling_a_pending_future_leaves_nothing_behind(ours: Any) -> None:
    """result(timeout) in a loop does not pile up gates."""
    future = ours()
    for _ in range(3):
        with pytest.raises(FutureTimeoutError):
            future.result(0.0001)
    assert future._waits.gates == []


def test_waits_on_windows_are_sliced(ours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Ctrl-C cannot end a wait it is made of short ones, and the timeout still holds."""
    monkeypatch.setattr(gates, "_LONGEST_WAIT", 0.001)
    future = ours()
    with pytest.raises(FutureTimeoutError):
        future.result(0.005)
    threading.Timer(0.01, future.set_result, [4]).start()
    assert future.result() == 4


def test_a_queued_future_costs_about_a_hundred_bytes(ours: Any) -> None:
    """Measured over ten thousand of them; the standard library's takes about 1,600."""
    futures: list[Any] = [None] * 10_000
    ours()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(len(futures)):
            futures[number] = ours()
        each = (tracemalloc.get_traced_memory()[0] - before) / len(futures)
    finally:
        tracemalloc.stop()
    assert each <= 144


# -- its owner


class Diary:
    """An owner that writes down what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def cancelled(self, future: Any) -> None:
        self.told.append(("cancelled", future._call))

    def waiting(self, future: Any) -> None:
        self.told.append(("waiting", future._call))
        if self.told.count(("waiting", future._call)) == 2:
            future.set_result("answered")

    def describe(self, future: Any) -> str:
        return "queued 1/2"


def test_the_owner_is_told_of_a_cancel_once(ours: Any) -> None:
    """While the call is still there, and before it is dropped."""
    diary = Diary()
    future = ours("call", diary)
    future.cancel()
    future.cancel()
    assert diary.told == [("cancelled", "call")]
    assert future._call is future._owner is None


def test_the_owner_is_told_of_each_wait_that_blocks(ours: Any) -> None:
    """Not of a question that is answered at once; and it may answer on the spot."""
    diary = Diary()
    future = ours("call", diary)
    future.done()
    for timeout in (0, 0.0001):
        with pytest.raises(FutureTimeoutError):
            future.result(timeout)
    assert diary.told == [("waiting", "call")]
    assert future.result() == "answered"
    assert future.result() == "answered"
    assert len(diary.told) == 2


def test_an_owner_that_raises_does_not_stop_a_cancel(ours: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The callbacks still run, and the error is logged."""
    seen: list[Any] = []
    future = ours(None, object())
    future.add_done_callback(seen.append)
    assert future.cancel()
    assert len(seen) == 1
    assert caplog.records[0].name == "ratelimited_llm"


@pytest.mark.parametrize("how", ["result", "exception", "cancel"])
def test_a_future_that_is_over_keeps_no_request_alive(ours: Any, how: str) -> None:
    """The call and its body go when it ends."""

    class Call: ...

    call = Call()
    gone = weakref.ref(call)
    future = ours(call, Diary())
    del call
    end(future, how)
    gc.collect()
    assert gone() is None


# -- failures


def test_a_failure_has_the_same_traceback_at_every_look(ours: Any) -> None:
    """Looking a hundred times does not grow it."""
    future = failed(ours, ValueError("no"))
    lengths = set()
    for _ in range(100):
        try:
            future.result()
        except ValueError as error:
            lengths.add(len(traceback.extract_tb(error.__traceback__)))
    assert len(lengths) == 1


def test_a_failure_in_threads_at_once_is_the_same_for_all(ours: Any) -> None:
    """Many threads raise the one exception, and each catches it."""
    error = ValueError("no")
    future = failed(ours, error)

    def ask(_: int) -> bool:
        try:
            future.result()
        except ValueError as caught:
            return caught is error
        return False

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(500)))


def test_a_failure_holds_no_cycle(ours: Any) -> None:
    """When it was looked at and dropped, the future goes at once, without the collector."""
    gc.collect()
    gc.disable()
    try:
        future = failed(ours, ValueError("no"))
        gone = weakref.ref(future)
        with pytest.raises(ValueError, match="no"):
            future.result()
        del future
        sys.exc_info()
        assert gone() is None
    finally:
        gc.enable()


def test_a_failure_says_where_it_was_submitted(ours: Any) -> None:
    """A note names this file and the line, once, also when one error fails many calls."""
    error = ValueError("no")
    for _ in range(2):
        future = ours(where=submitted_at())
        future.set_exception(error)
        future.exception()
    (note,) = error.__notes__  # type: ignore[attr-defined]
    assert note.startswith("submitted at ")
    assert os.path.basename(__file__) + ":" in note


def test_submitted_at_passes_over_the_frames_of_libraries() -> None:
    """The user's line is found behind ours and the SDK's; without one there is none."""
    library = {"__name__": "openai.resources.chat", "submitted_at": submitted_at}
    exec(compile("def create(): return submitted_at()", "openai/create.py", "exec"), library)
    user = {"__name__": "__main__", "create": library["create"]}
    exec(compile("\n\n\nwhere = create()", "script.py", "exec"), user)
    assert user["where"] == "script.py:4"


def test_one_line_that_submits_a_million_calls_has_one_string() -> None:
    """The place of a queued call costs no memory of its own."""
    places = {id(place) for place in [submitted_at() for _ in range(100)]}
    assert len(places) == 1


def test_a_failure_nobody_looked_at_is_logged_when_it_is_collected(
    ours: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One warning with the error's type and the place, and without its text, which may quote the prompt."""
    monkeypatch.setattr(unread_failures, "_unread", set())
    future = ours(where="script.py:4")
    future.set_exception(ValueError("the prompt"))
    assert caplog.messages == []
    del future
    gc.collect()
    assert caplog.messages == ["unread_failure: nobody read the ValueError of a call that was submitted at script.py:4"]
    assert (caplog.records[0].name, caplog.records[0].levelno) == ("ratelimited_llm", logging.WARNING)


def test_thousands_of_failures_that_nobody_looks_at_are_a_handful_of_warnings(
    ours: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal is not flooded: each kind and place once, the first few of those, and one line that there are more."""
    monkeypatch.setattr(unread_failures, "_unread", set())
    monkeypatch.setattr(unread_failures, "_more_unread", itertools.count())
    for number in range(1_000):
        ours(where=f"script.py:{number // 100}").set_exception(ValueError())
    gc.collect()
    shown = [f"script.py:{line}" for line in range(unread_failures.MOST_UNREAD_SHOWN)]
    assert [text.split()[-1] for text in caplog.messages if "and of more" not in text] == shown
    assert [text for text in caplog.messages if "and of more calls" in text] == caplog.messages[1:2]


@pytest.mark.parametrize("question", ["result", "exception"])
def test_a_failure_somebody_looked_at_is_not_logged(ours: Any, question: str, caplog: pytest.LogCaptureFixture) -> None:
    """Either question counts as a look."""
    future = failed(ours, ValueError())
    with suppress(ValueError):
        getattr(future, question)()
    del future
    gc.collect()
    assert caplog.messages == []


# -- forks


def test_abandon_fails_a_future_whose_locks_are_held_by_a_thread_that_is_gone(ours: Any) -> None:
    """Its own lock and a waiter's are held by another thread, as after a fork; it ends all the same, unblamed."""
    future = ours("call", Diary())
    waits = as_completed([future], timeout=5)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with future._condition:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    future._condition.acquire()
    future._condition.release()
    thread.start()
    held.wait()
    try:
        abandon(future, RuntimeError("not in this process"))
    finally:
        release.set()
        thread.join()
    assert [ended is future for ended in waits] == [True]
    assert isinstance(future.exception(), RuntimeError)


def test_abandon_leaves_a_future_that_is_over_as_it_is(ours: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A result stays; a cancelled one is announced to those who wait for it; nothing is logged."""
    finished, dropped = done(ours, 3), ours()
    dropped.cancel()
    abandon(finished, RuntimeError())
    abandon(dropped, RuntimeError())
    assert finished.result() == 3
    assert wait([dropped], timeout=0).done == {dropped}
    abandon(ours(), RuntimeError())
    gc.collect()
    assert caplog.messages == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_child_of_a_fork_can_use_futures_although_a_thread_held_the_lock(ours: Any) -> None:
    """The module's lock is new in the child, so nothing in it waits for a thread that is not there."""
    inherited = ours()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as taken:
            for lock in future_state._locks:
                taken.enter_context(lock)
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        abandon(inherited, RuntimeError())
        os._exit(0 if done(ours, 4).result() == 4 and inherited.exception() else 1)
    release.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not inherited.done()
