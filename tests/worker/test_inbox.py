"""The worker's inbox: order, wake-ups, and being called from where a lock-based queue must not be."""

from __future__ import annotations

import math
import queue
import sys
import threading
from typing import Any

import pytest

from ratelimited_llm.engine.inbox import CONTROL, Inbox, Message


def message(priority: int, sequence: int) -> Message:
    return (priority, sequence, None, None, None)


def test_it_is_a_priority_queue() -> None:
    """Lowest priority first, and equals in order."""
    inbox = Inbox()
    for number, priority in enumerate([5, 1, 5, CONTROL, 10, 1]):
        inbox.put(message(priority, number))
    assert isinstance(inbox, queue.PriorityQueue)
    assert inbox.qsize() == 6
    assert [inbox.get(block=False)[:2] for _ in range(6)] == [(-1, 3), (1, 1), (1, 5), (5, 0), (5, 2), (10, 4)]
    with pytest.raises(queue.Empty):
        inbox.get(timeout=0.0)


@pytest.mark.parametrize("most", [1, 3, 10, 11, 100])
def test_messages_are_taken_in_order_however_many_at_a_time(most: int) -> None:
    """Some or all of them, none is lost or comes twice."""
    inbox = Inbox()
    for number in range(10):
        inbox.put(message(number % 3, number))
    taken: list[Message] = []
    while batch := inbox.take(most):
        assert len(batch) <= most
        taken += batch
    assert [each[:2] for each in taken] == sorted((number % 3, number) for number in range(10))


def test_a_closed_inbox_takes_messages_and_no_calls() -> None:
    """New calls are refused; what is said about the others arrives."""
    inbox = Inbox()
    assert inbox.put_call(message(5, 0))
    inbox.close()
    assert not inbox.put_call(message(5, 1))
    inbox.put(message(CONTROL, 2))
    assert len(inbox.take(10)) == 2


def test_a_message_ends_the_wait_of_a_real_thread() -> None:
    """Whether it comes before the wait or during it."""
    inbox, woken = Inbox(), threading.Semaphore(0)

    def waiter() -> None:
        for _ in range(200):
            while not inbox.take(1):
                inbox.wait(math.inf, 0.0)
            woken.release()

    thread = threading.Thread(target=waiter)
    thread.start()
    for number in range(200):
        inbox.put(message(5, number))
        assert woken.acquire(timeout=10)
    thread.join()


def test_nothing_is_lost_between_real_threads() -> None:
    """Four threads put a thousand messages each while one takes them, and it gets them all."""
    inbox, got = Inbox(), []

    def putter(first: int) -> None:
        for number in range(first, first + 1_000):
            inbox.put(message(number % 7, number))

    threads = [threading.Thread(target=putter, args=(first,)) for first in range(0, 4_000, 1_000)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        while len(got) < 4_000:
            got += [each[1] for each in inbox.take(17)]
            inbox.wait(math.inf if len(got) < 4_000 else 0.0, 0.0)
    finally:
        sys.setswitchinterval(interval)
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(4_000))


def test_the_moment_to_look_again_ends_the_wait() -> None:
    """A moment that has come already, or comes, ends it without anybody's ringing."""
    inbox = Inbox()
    inbox.wait(1.0, 2.0)
    inbox.wait(2.001, 2.0)


def test_a_finalizer_may_put_while_its_own_thread_is_inside() -> None:
    """The lock is reentrant and the heap in order at every step, so there is no deadlock and no loss."""
    inbox = Inbox()

    class Signals:
        def __init__(self, number: int) -> None:
            self.number = number

        def __del__(self) -> None:
            inbox.put(message(CONTROL, self.number))

    def trace(frame: Any, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename.endswith("inbox.py"):
            Signals(next(numbers))
        return trace

    numbers = iter(range(1_000, 100_000))
    sys.settrace(trace)
    try:
        for number in range(20):
            inbox.put(message(5, number))
        taken = inbox.take(5) + inbox.take(10_000)
    finally:
        sys.settrace(None)
    taken += inbox.take(10_000)
    assert {each[1] for each in taken if each[0] == 5} == set(range(20))
    assert sorted(each[1] for each in taken if each[0] == CONTROL) == list(range(1_000, next(numbers)))
