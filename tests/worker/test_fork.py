"""A fork in the middle: the parent goes on, and the child gets a worker of its own and never a silent queue."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from forking import in_child

from ratelimited_llm import RateLimitedExecutor, WorkerStopped, forks
from ratelimited_llm.engine import lifecycle
from ratelimited_llm.shared_workers import QueueSettings, worker_for

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.usefixtures("forks_are_meant"),
]
PATIENCE = 10.0


class Busy:
    """An executor with one call in flight and some queued."""

    def __init__(self) -> None:
        self.go = threading.Event()
        begun = threading.Event()

        def first() -> str:
            begun.set()
            assert self.go.wait(PATIENCE)
            return "first"

        self.executor = RateLimitedExecutor(max_concurrency=1)
        self.futures: list[Future[Any]] = [self.executor.submit(first)]
        assert begun.wait(PATIENCE)
        self.futures += [self.executor.submit(int, number) for number in range(10)]

    def end(self) -> None:
        self.go.set()
        assert [future.result(PATIENCE) for future in self.futures] == ["first", *range(10)]
        self.executor.shutdown()


def test_inherited_futures_end_and_new_calls_are_served() -> None:
    """With WorkerStopped in the child, and as if nothing had been in the parent; the only place is free."""
    busy = Busy()

    def check() -> None:
        for future in busy.futures:
            assert isinstance(future.exception(PATIENCE), WorkerStopped), future
        assert busy.executor.submit(int, 7).result(PATIENCE) == 7
        assert busy.executor._worker.wait(PATIENCE)
        busy.executor.shutdown()

    in_child(check)
    busy.end()


def test_an_inherited_call_that_is_given_up_in_the_child_is_not_counted_out_of_its_queue() -> None:
    """As the tasks of an event loop do that ends there: the child's queue never held it, and works on."""
    busy = Busy()
    jobs: list[Any] = [future._call for future in busy.futures]  # type: ignore[attr-defined]

    def check() -> None:
        worker = busy.executor._worker
        for job in jobs:
            worker.unsent(job)
            worker.cancel(job)
        assert busy.executor.submit(int, 7).result(PATIENCE) == 7
        assert worker.wait(PATIENCE)
        assert (worker.queued, worker.in_flight) == (0, 0)
        busy.executor.shutdown()

    in_child(check)
    busy.end()


def test_an_idle_worker_can_be_forked() -> None:
    """Its thread sleeps in the parent, and the child starts one."""
    with RateLimitedExecutor() as executor:
        assert executor.submit(int).result(PATIENCE) == 0
        in_child(lambda: [executor.submit(int, number).result(PATIENCE) for number in range(10)])
        assert executor.submit(int, 5).result(PATIENCE) == 5


def test_a_closed_worker_is_closed_in_the_child() -> None:
    """It takes no calls in either."""
    executor = RateLimitedExecutor()
    executor.submit(int).result(PATIENCE)
    executor.shutdown()

    def check() -> None:
        with pytest.raises(WorkerStopped):
            executor.submit(int)
        executor.shutdown()

    in_child(check)


def test_a_child_of_a_sending_thread_works() -> None:
    """A function that an executor runs may fork."""
    with RateLimitedExecutor(max_concurrency=1) as executor:

        def forks() -> str:
            in_child(lambda: executor.submit(int, 3).result(PATIENCE))
            return "forked"

        assert executor.submit(forks).result(PATIENCE) == "forked"
        assert executor.submit(int).result(PATIENCE) == 0


def test_a_fork_while_real_threads_are_submitting_loses_nothing() -> None:
    """At whatever moment it comes, the child works and the parent answers everything."""
    executor, stop = RateLimitedExecutor(max_concurrency=2), threading.Event()
    futures: list[Future[int]] = []

    def keeps_submitting() -> None:
        while not stop.is_set():
            futures.append(executor.submit(int, len(futures)))
            if len(futures) % 50 == 0:
                futures[-1].result(PATIENCE)

    thread = threading.Thread(target=keeps_submitting)
    thread.start()
    try:
        for _ in range(8):
            in_child(lambda: executor.submit(int, 1).result(PATIENCE))
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert [future.result(PATIENCE) for future in futures] == list(range(len(futures)))
    executor.shutdown()


def test_whatever_lock_of_ours_a_thread_holds_the_child_has_none_of_it() -> None:
    """Inherited futures end, with callbacks that make a worker and submit to it; and so does what comes after."""
    busy, locks = Busy(), module_locks()
    with futures_that_submit(busy) as submitted, held_by_a_thread(locks):

        def check() -> None:
            for future in busy.futures:
                assert isinstance(future.exception(PATIENCE), WorkerStopped), future
            assert [future.result(PATIENCE) for future in submitted] == [0] * len(busy.futures)
            assert worker_for(QueueSettings(max_queue=3)) is not None

        in_child(check)
    assert len(locks) > 60
    busy.end()


def module_locks() -> list[Any]:
    """The locks that modules of the package keep, by themselves or in lists."""
    kinds, found = (type(threading.Lock()), type(threading.RLock())), []
    for name, module in list(sys.modules.items()):
        if name.startswith("ratelimited_llm"):
            for value in vars(module).values():
                found += [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, kinds)]
    return list({id(lock): lock for lock in found}.values())


@contextmanager
def held_by_a_thread(locks: list[Any]) -> Iterator[None]:
    """Another thread holds all of these within the block, but for the two that a fork waits for in the parent."""
    holds, enough, waited_for = threading.Event(), threading.Event(), (forks._turn, lifecycle._lock)

    def hold() -> None:
        with ExitStack() as stack:
            for lock in locks:
                if lock not in waited_for:
                    stack.enter_context(lock)
            holds.set()
            enough.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holds.wait(PATIENCE)
    try:
        yield
    finally:
        enough.set()
        thread.join(PATIENCE)


@contextmanager
def futures_that_submit(busy: Busy) -> Iterator[list[Future[Any]]]:
    """In the child of a fork, the end of each of these submits a call to another executor, idle until then."""
    parent, submitted = os.getpid(), []
    with RateLimitedExecutor() as other:
        for future in busy.futures:
            future.add_done_callback(lambda _: os.getpid() != parent and submitted.append(other.submit(int)))
        yield submitted


def _doubled(number: int) -> int:
    return 2 * number


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_pool_of_forked_processes_works_beside_a_busy_worker() -> None:
    """multiprocessing's own threads and forks, with calls pending."""
    busy = Busy()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(_doubled, range(20)).get(PATIENCE) == [2 * number for number in range(20)]
    busy.end()


def test_the_child_of_a_script_ends_by_itself() -> None:
    """It does not wait at exit for calls that are the parent's."""
    import subprocess

    script = """
import os, sys, threading
from ratelimited_llm import RateLimitedExecutor
executor = RateLimitedExecutor(max_concurrency=1)
go = threading.Event()
executor.submit(go.wait, 10)
executor.submit(print, "once", flush=True)
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
    go.set()
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "ignore"}, check=False,
    )  # fmt: skip
    assert (ran.stdout, ran.stderr, ran.returncode) == ("once\n", "", 0)
