"""Threads that send: as many as there is work, few when there is little, none when there is nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ratelimited_llm.engine import senders
from ratelimited_llm.engine.senders import KEPT, SenderPool

PATIENCE = 10.0  # seconds until a test that waits for a thread gives up


class Counted:
    """What the pool believes to be pending."""

    def __init__(self) -> None:
        self.pending = 0

    def __call__(self) -> bool:
        return self.pending > 0


@pytest.fixture
def still_to_come() -> Counted:
    return Counted()


@pytest.fixture
def pool(still_to_come: Counted) -> Iterator[SenderPool]:
    pool = SenderPool(still_to_come)
    yield pool
    still_to_come.pending = 0
    pool.relax()
    pool.close()
    for thread in list(pool.threads):
        thread.join(PATIENCE)
        assert not thread.is_alive()


def gone(pool: SenderPool, left: int = 0) -> bool:
    """Let idle threads leave, and wait until so many are left."""
    deadline = threading.Event()
    for _ in range(2_000):
        pool.dismiss()
        if len(pool.threads) <= left:
            return True
        deadline.wait(0.005)
    return False


def done(function: Callable[[], None] = lambda: None) -> tuple[Callable[[], None], threading.Event]:
    event = threading.Event()

    def work() -> None:
        function()
        event.set()

    return work, event


def test_work_that_blocks_does_not_hold_up_other_work(pool: SenderPool) -> None:
    """Every piece of work has a thread to itself: a hundred that wait for one another can."""
    barrier = threading.Barrier(100)
    finished = []
    for _ in range(100):
        work, event = done(lambda: barrier.wait(PATIENCE))  # type: ignore[arg-type,return-value]
        pool.run(work)
        finished.append(event)
    assert all(event.wait(PATIENCE) for event in finished)


def test_a_thread_that_is_free_is_used_again(pool: SenderPool) -> None:
    """Work that comes one after the other needs one thread, or one more while the last is lying down."""
    for _ in range(200):
        work, event = done()
        pool.run(work)
        assert event.wait(PATIENCE)
    assert len(pool.threads) <= 3


def test_work_that_raises_costs_nobody_their_thread(pool: SenderPool, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the thread goes on."""

    def fails() -> None:
        raise SystemExit("a fault of ours")

    pool.run(fails)
    work, event = done()
    pool.run(work)
    assert event.wait(PATIENCE)
    assert gone(pool)
    assert "sender_failed" in caplog.text


def test_idle_threads_leave(pool: SenderPool) -> None:
    """When nothing is pending, none stays."""
    work, event = done()
    pool.run(work)
    assert event.wait(PATIENCE)
    assert gone(pool)
    work, event = done()
    pool.run(work)  # and one is there again when there is work
    assert event.wait(PATIENCE)


def test_idle_threads_leave_after_a_while_in_real_time(pool: SenderPool) -> None:
    """Nobody has to tell them."""
    pool.idle_seconds = 0.001
    work, event = done()
    pool.run(work)
    assert event.wait(PATIENCE)
    for thread in list(pool.threads):
        thread.join(PATIENCE)
    assert len(pool.threads) == 0


def test_a_few_threads_stay_while_something_is_pending(pool: SenderPool, still_to_come: Counted) -> None:
    """Of thirty, sixteen stay for what is to come, and they sleep until something happens."""
    still_to_come.pending = 1
    pool.idle_seconds = 0.001
    barrier = threading.Barrier(31)
    for _ in range(30):
        pool.run(lambda: barrier.wait(PATIENCE))  # type: ignore[arg-type,return-value]
    barrier.wait(PATIENCE)
    event = threading.Event()
    for _ in range(2_000):
        if len(pool.threads) == KEPT and len(pool.kept) == KEPT:
            break
        event.wait(0.005)
    assert len(pool.threads) == len(pool.kept) == KEPT
    still_to_come.pending = 0
    pool.relax()
    for thread in list(pool.threads):
        thread.join(PATIENCE)
    assert len(pool.threads) == 0


def test_threads_are_prepared_one_by_one_up_to_what_is_wanted(pool: SenderPool, still_to_come: Counted) -> None:
    """Never more than there are calls, nor than are kept."""
    still_to_come.pending = 100
    for _ in range(5):
        pool.prepare(3)
    assert len(pool.threads) == 3
    for _ in range(100):
        pool.prepare(100)
    assert len(pool.threads) == KEPT


def test_when_no_thread_can_be_had_those_there_are_take_turns(
    pool: SenderPool, still_to_come: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work is never lost: it waits for whoever comes free."""
    still_to_come.pending = 1
    first, entered, go = threading.Event(), threading.Event(), threading.Event()

    def holds() -> None:
        entered.set()
        assert go.wait(PATIENCE)
        first.set()

    pool.run(holds)
    assert entered.wait(PATIENCE)
    monkeypatch.setattr(senders.threading, "Thread", _Refusing)
    others = []
    for _ in range(20):
        work, event = done()
        pool.run(work)
        others.append(event)
    assert not any(event.is_set() for event in others)
    go.set()
    assert all(event.wait(PATIENCE) for event in [first, *others])


class _Refusing(threading.Thread):
    """What Python 3.12 does while the interpreter ends, and every system when it has no more threads."""

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


def test_with_no_thread_at_all_the_worker_does_the_work(pool: SenderPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Late, one by one, and on the wrong thread is better than never."""
    monkeypatch.setattr(senders.threading, "Thread", _Refusing)
    ran: list[Any] = []
    for number in range(3):
        pool.run(lambda number=number: ran.append(number))  # type: ignore[misc]
    assert (len(pool.threads), ran) == (0, [])
    pool.run_overdue_here()
    assert ran == [0, 1, 2]


def test_a_thread_that_is_about_to_be_free_takes_the_next_work_along(pool: SenderPool) -> None:
    """One piece of it; what else there is goes to other threads."""
    ran: list[tuple[int, str]] = []
    finished = threading.Semaphore(0)

    def note(number: int) -> None:
        ran.append((number, threading.current_thread().name))
        finished.release()

    def work() -> None:
        pool.taking(True)
        for number in range(2):
            pool.run(lambda number=number: note(number))  # type: ignore[misc]
        pool.taking(False)
        note(-1)

    pool.run(work)
    for _ in range(3):
        assert finished.acquire(timeout=PATIENCE)
    name = dict(ran)
    assert name[0] == name[-1]
    assert name[1] != name[0]
