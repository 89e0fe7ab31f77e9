"""The worker with real threads: every call ends exactly once, whatever happens to it."""

from __future__ import annotations

import gc
import math
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, wait
from random import Random
from typing import Any

import pytest
from waiting import wait_until

from ratelimited_llm import QueueFull, RequestExpired, WorkerStopped
from ratelimited_llm.core.feedback import ANSWERED, Feedback, Kind, Outcome
from ratelimited_llm.core.limiter import Limiter
from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.core.request import Cost, State, Usage
from ratelimited_llm.core.retry import RetryPolicy
from ratelimited_llm.engine import engine
from ratelimited_llm.engine.jobs import Answer, AttemptFailed, FutureJob, in_call
from ratelimited_llm.engine.light_future import LightFuture
from ratelimited_llm.engine.turn_jobs import TurnJob
from ratelimited_llm.stores.memory import MemoryBudget
from ratelimited_llm.worker import RateLimitedWorker

PATIENCE = 10.0


class Pool:
    """Limits that are the test's own."""

    def __init__(self, **limits: Any) -> None:
        self.limits = RateLimits(**limits)

    def limiter(self) -> Limiter:
        return Limiter(self.limits, charge="settle", learn=False, ramp=False)


class Owner:
    """Hears of cancelled futures, as the executor does."""

    def cancelled(self, future: LightFuture[Any]) -> None:
        future._call.worker.cancel(future._call)

    def waiting(self, future: LightFuture[Any]) -> None:
        pass

    def describe(self, future: LightFuture[Any]) -> str:
        return "queued"


class Script(FutureJob):
    """A call that does what it is told at each attempt, and counts its ends."""

    __slots__ = ("__weakref__", "steps")

    def send(self) -> Answer:
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        value = step() if callable(step) else step
        if isinstance(value, BaseException):
            raise value
        return value if isinstance(value, Answer) else Answer(value, Feedback(ANSWERED))


@pytest.fixture
def worker() -> Iterator[RateLimitedWorker]:
    worker = RateLimitedWorker()
    yield worker
    worker.shutdown(wait=True, cancel_futures=True)


def submit(
    worker: RateLimitedWorker, pool: Pool, *steps: Any, nested: bool = False, **options: Any
) -> LightFuture[Any]:
    job = Script(worker.next_sequence(), pool, Cost(), submitted_at=worker.clock(), **options)
    future: LightFuture[Any] = LightFuture(job, Owner())
    job.worker, job.future, job.steps = worker, future, list(steps) or [None]
    worker.submit(job, nested=nested)
    return future


def dropped(policy: RetryPolicy | None = None) -> AttemptFailed:
    policy = policy or RetryPolicy(initial=0.0)
    return AttemptFailed(Feedback(Outcome(Kind.DROPPED)), policy, OSError("broken"))


class Gate:
    """A step that says that it has begun, and goes on when it is told to."""

    def __init__(self, value: Any = None) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.value = value

    def __call__(self) -> Any:
        self.begun.set()
        assert self.go.wait(PATIENCE)
        return self.value


def test_a_call_is_sent_and_answered(worker: RateLimitedWorker) -> None:
    """Its future has the answer, and nothing is pending."""
    assert submit(worker, Pool(), 42).result(PATIENCE) == 42
    assert worker.wait(PATIENCE)
    assert (worker.pending, worker.queued, worker.in_flight) == (0, 0, 0)


def test_calls_of_one_pool_start_in_order(worker: RateLimitedWorker) -> None:
    """With one place, a hundred calls run one after the other as they came."""
    ran: list[int] = []
    pool = Pool(max_concurrency=1)
    futures = [submit(worker, pool, lambda number=number: ran.append(number)) for number in range(100)]
    wait(futures, PATIENCE)
    assert ran == list(range(100))


def test_a_better_call_overtakes_the_queue(worker: RateLimitedWorker) -> None:
    """While one runs and others wait, a call of higher priority is next."""
    pool, gate, ran = Pool(max_concurrency=1), Gate(), list[str]()
    submit(worker, pool, gate)
    assert gate.begun.wait(PATIENCE)
    futures = [submit(worker, pool, lambda: ran.append("normal")) for _ in range(3)]
    futures.append(submit(worker, pool, lambda: ran.append("high"), priority=1))
    gate.go.set()
    wait(futures, PATIENCE)
    assert ran == ["high", "normal", "normal", "normal"]


def test_a_failure_is_tried_again_and_ends_once(worker: RateLimitedWorker) -> None:
    """Two attempts fail, the third answers."""
    assert submit(worker, Pool(), dropped(), dropped(), "third").result(PATIENCE) == "third"


def test_the_last_failure_is_the_callers_own_error(worker: RateLimitedWorker) -> None:
    """The very object, when the retries are spent."""
    error = OSError("the last one")
    policy = RetryPolicy(max_retries=1, initial=0.0)
    failure = AttemptFailed(Feedback(Outcome(Kind.DROPPED)), policy, error)
    assert submit(worker, Pool(), dropped(policy), failure).exception(PATIENCE) is error


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_a_call_raises_is_its_own_and_the_threads_go_on(
    worker: RateLimitedWorker, error: BaseException
) -> None:
    """No exception of a call reaches the worker, a sender, or another call."""
    assert submit(worker, Pool(), error).exception(PATIENCE) is error
    assert submit(worker, Pool(), 1).result(PATIENCE) == 1


def test_a_refusal_holds_the_pool_and_the_call_goes_again(worker: RateLimitedWorker) -> None:
    """After a 429 the same call is sent again, and no attempt was used."""
    refused = AttemptFailed(Feedback(Outcome(Kind.LIMITED, 0.02, status=429)), RetryPolicy(max_retries=0), OSError())
    assert submit(worker, Pool(rpm=1000), refused, refused, "let in").result(PATIENCE) == "let in"


# -- cancelling


def test_a_waiting_call_can_be_cancelled_and_is_never_sent(worker: RateLimitedWorker) -> None:
    """Its place is free, those who wait hear of it, and the others go on."""
    pool, gate, ran = Pool(max_concurrency=1), Gate(), list[int]()
    first = submit(worker, pool, gate)
    assert gate.begun.wait(PATIENCE)
    second, third = (submit(worker, pool, lambda number=number: ran.append(number)) for number in (2, 3))
    assert second.cancel()
    assert not first.cancel()
    gate.go.set()
    assert third.result(PATIENCE) is None
    assert worker.wait(PATIENCE)
    assert ran == [3]
    with pytest.raises(CancelledError):
        second.result(PATIENCE)


def test_cancelling_at_any_moment_ends_a_call_once(worker: RateLimitedWorker) -> None:
    """Real threads cancel five hundred calls while they are sent: each is either answered or cancelled."""
    pool, random, ends = Pool(max_concurrency=4), Random(1), list[int]()
    futures = []
    for number in range(500):
        future = submit(worker, pool, number)
        future.add_done_callback(lambda _, number=number: ends.append(number))
        futures.append(future)
        if random.random() < 0.5:
            futures[random.randrange(len(futures))].cancel()
    assert worker.wait(PATIENCE)
    assert sorted(ends) == list(range(500))
    for number, future in enumerate(futures):
        assert future.cancelled() or future.result(0) == number
    assert worker.in_flight == worker.pending == 0
    assert submit(worker, pool, "place").result(PATIENCE) == "place"


def test_cancelling_the_queue_leaves_what_was_sent(worker: RateLimitedWorker) -> None:
    """It answers how many, when their futures know."""
    pool, gate = Pool(max_concurrency=1), Gate("sent")
    first = submit(worker, pool, gate)
    assert gate.begun.wait(PATIENCE)
    waiting = [submit(worker, pool, 1) for _ in range(50)]
    assert worker.cancel_queued(lambda job: job.sequence % 2 == 0) == 25
    assert sum(future.cancelled() for future in waiting) == 25
    assert worker.cancel_queued() == 25
    assert all(future.cancelled() for future in waiting)
    gate.go.set()
    assert first.result(PATIENCE) == "sent"


def test_a_question_that_cannot_be_answered_raises_at_whoever_asks(worker: RateLimitedWorker) -> None:
    """Nothing is cancelled then, and the queue goes on."""
    pool, gate = Pool(max_concurrency=1), Gate("sent")
    submit(worker, pool, gate)
    assert gate.begun.wait(PATIENCE)
    second = submit(worker, pool, 2)
    with pytest.raises(ZeroDivisionError):
        worker.cancel_queued(lambda job: bool(1 / 0))
    gate.go.set()
    assert second.result(PATIENCE) == 2


def test_to_cancel_an_empty_queue_takes_no_sending_thread(
    worker: RateLimitedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a script asks for that last, when its threads are about to go and none can be started."""
    assert submit(worker, Pool(), 1).result(PATIENCE) == 1
    assert worker.wait(PATIENCE)
    engine, told = worker.engine, queue.SimpleQueue[int]()
    engine.senders.dismiss()
    for thread in list(engine.senders.threads):
        thread.join(PATIENCE)
    monkeypatch.setattr(engine.senders, "_start", lambda work=None: False)
    with engine.core:  # so the worker's thread finds the question and the end in one turn
        engine.close(final=True)
        asking = threading.Thread(target=lambda: told.put(worker.cancel_queued()), daemon=True)
        asking.start()
        wait_until(lambda: engine.inbox.queue)
    assert told.get(timeout=PATIENCE) == 0
    asking.join(PATIENCE)


def test_whoever_asks_a_worker_whose_thread_has_just_ended_is_answered(
    worker: RateLimitedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no thread is started for it, since none can be where a script ends."""
    engine = worker.engine
    put = engine.inbox.put

    def too_late(*message: Any) -> None:
        thread = engine.thread
        engine.close(final=True)
        if thread is not None:
            thread.join(PATIENCE)
        monkeypatch.setattr(threading.Thread, "start", refused)
        put(*message)

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    assert submit(worker, Pool(), 1).result(PATIENCE) == 1
    assert worker.wait(PATIENCE)
    monkeypatch.setattr(engine.inbox, "put", too_late)
    assert worker.cancel_queued() == 0


def test_ten_thousand_cancelled_calls_start_no_thread_each(worker: RateLimitedWorker) -> None:
    """They are ended one after the other."""
    pool = Pool(rpm=1, burst=1)
    submit(worker, pool, 1).result(PATIENCE)
    called: list[int] = []
    for number in range(10_000):
        submit(worker, pool, 1).add_done_callback(lambda _, number=number: called.append(number))
    before = threading.active_count()
    assert worker.cancel_queued() == 10_000
    assert threading.active_count() <= before + 2
    assert worker.wait(PATIENCE)
    assert called == list(range(10_000))


# -- deadlines


def test_a_call_that_waits_too_long_expires(worker: RateLimitedWorker) -> None:
    """With the seconds that it waited and was allowed, and its own number."""
    pool, gate = Pool(max_concurrency=1), Gate()
    submit(worker, pool, gate)
    assert gate.begun.wait(PATIENCE)
    future = submit(worker, pool, 1, expires_at=worker.clock() + 0.02)
    error = future.exception(PATIENCE)
    gate.go.set()
    assert isinstance(error, RequestExpired)
    assert isinstance(error, TimeoutError)
    assert error.waited >= 0.01
    assert error.request_id is not None


def test_calls_that_expire_together_can_wait_for_each_other(worker: RateLimitedWorker) -> None:
    """All of them have ended before the first callback runs, and they cost no thread each."""
    pool, gate, seen = Pool(max_concurrency=1), Gate(), list[int]()
    submit(worker, pool, gate)
    assert gate.begun.wait(PATIENCE)
    moment = worker.clock() + 0.05
    futures = [submit(worker, pool, 1, expires_at=moment) for _ in range(300)]
    futures[0].add_done_callback(lambda _: seen.append(len(wait(futures, PATIENCE).done)))
    before = threading.active_count()
    assert not wait(futures, PATIENCE).not_done
    assert threading.active_count() <= before + 2
    gate.go.set()
    assert worker.wait(PATIENCE)
    assert seen == [300]


# -- caps


def test_a_full_queue_refuses_or_waits_for_room() -> None:
    """With `on_full="raise"` it raises, with "block" the submit returns when a call has left the queue."""
    pool, gate = Pool(max_concurrency=1), Gate()
    worker = RateLimitedWorker(max_queue=1, on_full="raise")
    submit(worker, pool, gate)
    assert gate.begun.wait(PATIENCE)
    waiting = submit(worker, pool, 1)
    with pytest.raises(QueueFull) as caught:
        submit(worker, pool, 2)
    assert caught.value.limit == 1
    assert isinstance(caught.value, queue.Full)
    gate.go.set()
    assert waiting.result(PATIENCE) == 1
    assert submit(worker, pool, 3).result(PATIENCE) == 3
    worker.shutdown()
    assert worker.pending == 0


def test_blocked_submits_of_real_threads_all_get_in() -> None:
    """Eight threads push two hundred calls through a queue of two."""
    worker, pool = RateLimitedWorker(max_queue=2), Pool(max_concurrency=2)
    futures: list[LightFuture[Any]] = []

    def push(first: int) -> None:
        for number in range(first, first + 25):
            futures.append(submit(worker, pool, number))

    threads = [threading.Thread(target=push, args=(25 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(future.result(PATIENCE) for future in futures) == list(range(200))
    worker.shutdown()


def test_cancelled_and_expired_calls_make_room() -> None:
    """Whichever way a call leaves the queue."""
    pool, gate = Pool(max_concurrency=1), Gate()
    worker = RateLimitedWorker(max_queue=1, max_queue_per_tenant=1, on_full="raise")
    submit(worker, pool, gate)
    assert gate.begun.wait(PATIENCE)
    assert submit(worker, pool, 1).cancel()
    expires: LightFuture[Any] | None = None
    while expires is None:  # the cancelled one leaves as soon as the worker hears of it
        try:
            expires = submit(worker, pool, 1, expires_at=worker.clock() + 0.01)
        except QueueFull:
            worker.wait(0.001)
    assert isinstance(expires.exception(PATIENCE), RequestExpired)
    last = submit(worker, pool, 2)
    gate.go.set()
    assert last.result(PATIENCE) == 2
    worker.shutdown()


def test_who_waits_for_room_is_sent_away_when_the_worker_is_closed() -> None:
    """With WorkerStopped, and nothing of it is left."""
    worker, pool, gate = RateLimitedWorker(max_queue=1), Pool(max_concurrency=1), Gate()
    submit(worker, pool, gate)
    assert gate.begun.wait(PATIENCE)
    submit(worker, pool, 1)
    caught: list[BaseException] = []

    def blocked() -> None:
        try:
            submit(worker, pool, 2)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=blocked)
    thread.start()
    while not worker.engine.admission._gates:  # type: ignore[union-attr]
        thread.join(0.001)
    worker.shutdown(wait=False)
    thread.join(PATIENCE)
    assert isinstance(caught[0], WorkerStopped)
    gate.go.set()
    assert worker.wait(PATIENCE)


def test_a_call_from_inside_a_call_is_not_refused_for_room() -> None:
    """Its outer call would wait for itself."""
    worker, pool = RateLimitedWorker(max_queue=1, on_full="raise"), Pool()
    outer = submit(worker, pool, lambda: [submit(worker, pool, number, nested=in_call()) for number in range(20)])
    assert [future.result(PATIENCE) for future in outer.result(PATIENCE)] == list(range(20))
    worker.shutdown()


@pytest.mark.parametrize("options", [{"max_queue": 0}, {"max_queue": True}, {"max_queue_per_tenant": 1.5}])
def test_a_cap_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    """By name, at once."""
    with pytest.raises(ValueError if options == {"max_queue": 0} else TypeError, match=next(iter(options))):
        RateLimitedWorker(**options)


def test_on_full_has_two_values() -> None:
    """Anything else is an error that says so."""
    with pytest.raises(ValueError, match='"block" or "raise"'):
        RateLimitedWorker(on_full="drop")


# -- callbacks


def test_a_callback_that_raises_is_logged_and_harms_nobody(
    worker: RateLimitedWorker, caplog: pytest.LogCaptureFixture
) -> None:
    """As the standard library has it."""
    gate, called = Gate(), list[int]()
    future = submit(worker, Pool(), gate)
    future.add_done_callback(lambda _: 1 / 0)
    future.add_done_callback(lambda _: called.append(1))
    gate.go.set()
    assert worker.wait(PATIENCE)
    assert called == [1]
    assert "ZeroDivisionError" in caplog.text


def test_a_callback_that_blocks_holds_nobodys_place(worker: RateLimitedWorker) -> None:
    """With one place, the next call runs while the callback of the last one waits for it."""
    pool, first_gate, seen = Pool(max_concurrency=1), Gate(), list[str]()
    first = submit(worker, pool, first_gate)
    second = submit(worker, pool, "second")
    first.add_done_callback(lambda _: seen.append(second.result(PATIENCE)))
    first_gate.go.set()
    assert worker.wait(PATIENCE)
    assert seen == ["second"]


def test_a_callback_may_submit_to_a_full_queue() -> None:
    """It waits for room, which others make."""
    worker, pool, gate = RateLimitedWorker(max_queue=1), Pool(max_concurrency=1), Gate()
    more: list[LightFuture[Any]] = []
    first = submit(worker, pool, gate)
    assert gate.begun.wait(PATIENCE)
    submit(worker, pool, 1)
    first.add_done_callback(lambda _: more.extend(submit(worker, pool, number) for number in range(5)))
    gate.go.set()
    assert worker.wait(PATIENCE)
    assert [future.result(PATIENCE) for future in more] == list(range(5))
    worker.shutdown()


def test_waiting_for_the_worker_includes_the_callbacks(worker: RateLimitedWorker) -> None:
    """When nothing is pending, they have run."""
    gate, slow, seen = Gate(), Gate(), list[int]()
    future = submit(worker, Pool(), gate)
    future.add_done_callback(lambda _: seen.append(len([slow()])))
    gate.go.set()
    assert slow.begun.wait(PATIENCE)
    assert not worker.wait(0.01)
    slow.go.set()
    assert worker.wait(PATIENCE)
    assert seen == [1]


# -- streams and turns


def test_an_open_stream_keeps_its_place_until_it_ends(worker: RateLimitedWorker) -> None:
    """The future is done, the place is not free, and its end may be told twice."""
    pool, jobs = Pool(max_concurrency=1), list[Any]()

    def opens() -> Answer:
        jobs.extend(worker.engine.flying)
        return Answer("stream", Feedback(ANSWERED), open=True)

    assert submit(worker, pool, opens).result(PATIENCE) == "stream"
    waiting = submit(worker, pool, "next")
    assert not worker.wait(0.01)
    assert not waiting.done()
    for _ in range(2):
        worker.stream_ended(jobs[0], Usage(1, 1))
    assert waiting.result(PATIENCE) == "next"
    assert worker.wait(PATIENCE)


def turn(worker: RateLimitedWorker, pool: Pool, **options: Any) -> TurnJob:
    return TurnJob(worker, worker.next_sequence(), pool, Cost(), submitted_at=worker.clock(), **options)


def test_a_turn_is_taken_in_the_callers_own_thread(worker: RateLimitedWorker) -> None:
    """At once when nobody waits, and the place is free again afterwards."""
    pool = Pool(max_concurrency=1)
    for _ in range(50):
        job = turn(worker, pool)
        worker.submit(job)
        job.wait()
        assert job.state is State.SENDING
        worker.answered(job, Feedback(ANSWERED))
    assert worker.wait(PATIENCE)


def test_turns_of_real_threads_never_exceed_the_places(worker: RateLimitedWorker) -> None:
    """Twenty threads share three places."""
    pool, lock, inside, most = Pool(max_concurrency=3), threading.Lock(), [0], [0]

    def take_turns() -> None:
        for _ in range(10):
            job = turn(worker, pool)
            worker.submit(job)
            job.wait()
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            with lock:
                inside[0] -= 1
            worker.answered(job, Feedback(ANSWERED))

    threads = [threading.Thread(target=take_turns) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert worker.wait(PATIENCE)
    assert 1 <= most[0] <= 3


def test_a_turn_that_expires_or_is_cancelled_raises_where_it_waits(worker: RateLimitedWorker) -> None:
    """RequestExpired, or CancelledError as of a cancelled future."""
    pool, gate = Pool(max_concurrency=1), Gate()
    submit(worker, pool, gate)
    assert gate.begun.wait(PATIENCE)
    late = turn(worker, pool, expires_at=worker.clock() + 0.01)
    worker.submit(late)
    with pytest.raises(RequestExpired):
        late.wait()
    dropped_ = turn(worker, pool)
    worker.submit(dropped_)
    assert worker.cancel_queued() == 1
    with pytest.raises(CancelledError):
        dropped_.wait()
    gate.go.set()


# -- the end


def test_after_shutdown_nothing_is_accepted(worker: RateLimitedWorker) -> None:
    """With an error that is a RuntimeError too, and nothing is left behind by the attempt."""
    worker.shutdown()
    with pytest.raises(WorkerStopped, match="closed"):
        submit(worker, Pool(), 1)
    assert isinstance(WorkerStopped("x"), RuntimeError)
    worker.shutdown()
    assert worker.wait(0)
    assert worker.closed


def test_shutdown_waits_for_everything_that_was_accepted(worker: RateLimitedWorker) -> None:
    """Queued calls are sent first."""
    pool = Pool(max_concurrency=2)
    futures = [submit(worker, pool, number) for number in range(50)]
    worker.shutdown()
    assert all(future.done() for future in futures)


def test_shutdown_with_cancel_futures_tries_nothing_again(worker: RateLimitedWorker) -> None:
    """What is in flight ends with its own error, and what waits is cancelled."""
    pool, gate = Pool(max_concurrency=1), Gate(dropped(RetryPolicy(max_retries=5)))
    first = submit(worker, pool, gate, "never")
    assert gate.begun.wait(PATIENCE)
    second = submit(worker, pool, "never")
    worker.shutdown(wait=False, cancel_futures=True)
    assert second.cancelled()
    gate.go.set()
    assert isinstance(first.exception(PATIENCE), OSError)
    assert worker.wait(PATIENCE)


def test_the_threads_end_with_the_worker() -> None:
    """After shutdown, of the worker's own and the senders none is left."""
    worker = RateLimitedWorker()
    futures = [submit(worker, Pool(), number) for number in range(20)]
    wait(futures, PATIENCE)
    threads = [worker.engine.thread, *worker.engine.senders.threads]
    worker.shutdown()
    for thread in threads:
        assert thread is not None
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_forgotten_worker_leaves_no_thread() -> None:
    """When nobody holds it and nothing is pending, its threads end."""
    worker = RateLimitedWorker()
    assert submit(worker, Pool(), 1).result(PATIENCE) == 1
    assert worker.wait(PATIENCE)
    threads = [worker.engine.thread, *worker.engine.senders.threads]
    watched = weakref.ref(worker.engine)
    del worker
    gc.collect()
    for thread in threads:
        assert thread is not None
        thread.join(PATIENCE)
        assert not thread.is_alive()
    gc.collect()
    assert watched() is None


def test_a_forgotten_worker_still_ends_what_it_accepted() -> None:
    """Pending calls keep it alive."""
    worker, pool = RateLimitedWorker(), Pool(max_concurrency=1, min_interval=0.005)
    futures = [submit(worker, pool, number) for number in range(10)]
    del worker
    gc.collect()
    assert [future.result(PATIENCE) for future in futures] == list(range(10))


def test_an_idle_worker_keeps_only_its_own_thread(worker: RateLimitedWorker) -> None:
    """The senders leave; that they do so by themselves is tested with the pool."""
    wait([submit(worker, Pool(), number) for number in range(20)], PATIENCE)
    assert worker.wait(PATIENCE)
    for _ in range(2_000):
        worker.engine.senders.dismiss()
        if not worker.engine.senders.threads:
            break
        worker.engine.senders.dismiss()
        threading.Event().wait(0.005)
    assert len(worker.engine.senders.threads) == 0
    assert worker.engine.thread is not None
    assert worker.engine.thread.is_alive()


def test_threads_that_were_kept_for_a_queue_leave_when_it_is_empty_in_real_time(worker: RateLimitedWorker) -> None:
    """Nobody submits any more, and nobody waits for it."""
    pool, gate = Pool(max_concurrency=1), Gate()
    senders, pause = worker.engine.senders, threading.Event()
    senders.idle_seconds = 0.001
    futures = [submit(worker, pool, gate), *(submit(worker, pool, number) for number in range(20))]
    for _ in range(10):
        futures[-1]._call.prepare()
    for _ in range(2_000):
        if len(senders.kept) == len(senders.threads) - 1:
            break
        pause.wait(0.005)
    assert senders.kept
    gate.go.set()
    for thread in list(senders.threads):
        thread.join(PATIENCE)
    assert len(senders.threads) == 0


def test_a_call_keeps_nothing_alive_when_it_has_ended(worker: RateLimitedWorker) -> None:
    """Neither the job nor what it carries, even while its future is kept."""
    futures, jobs = [], []
    for step in (1, ValueError("kept by its future")):
        future = submit(worker, Pool(), step)
        wait([future], PATIENCE)
        futures.append(future)
    worker.wait(PATIENCE)
    for thread_has_moved_on in range(2):
        submit(worker, Pool(), thread_has_moved_on).result(PATIENCE)
    for future in futures:
        jobs.append(future._call)
        assert future.exception(0) is None or future.exception(0).__traceback__ is not None
    assert jobs == [None, None]
    gc.collect()
    assert not [job for job in gc.get_objects() if isinstance(job, Script) and job.steps[0] == 1]


# -- faults


class Faulty(MemoryBudget):
    """A budget that fails where it is told to."""

    def __init__(self, *methods: str) -> None:
        super().__init__()
        for name in methods:
            setattr(self, name, self._fail)

    def _fail(self, *args: Any, **kwargs: Any) -> Any:
        raise OSError("the store is gone")


@pytest.mark.parametrize("method", ["reserve", "observe", "settle"])
@pytest.mark.parametrize("step", ["answer", dropped(), ValueError("own")], ids=["answered", "failed", "raised"])
def test_a_broken_store_loses_no_call(method: str, step: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Every future ends, nothing stays pending, and the worker goes on."""
    worker = RateLimitedWorker(budget=Faulty(method))
    futures = [submit(worker, Pool(), step) for _ in range(20)]
    assert not wait(futures, PATIENCE).not_done
    assert worker.wait(PATIENCE)
    worker.shutdown()
    for future in futures:
        future.exception(0)


def test_a_pool_that_cannot_be_hashed_costs_only_its_own_calls(
    worker: RateLimitedWorker, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault in one call's own objects is that call's error."""
    bad = submit(worker, [])  # type: ignore[arg-type]
    assert isinstance(bad.exception(PATIENCE), TypeError)
    assert submit(worker, Pool(), 1).result(PATIENCE) == 1
    assert worker.wait(PATIENCE)


def test_two_workers_of_one_budget_never_share_a_number() -> None:
    """A call that another worker's call is mistaken for would go out uncounted."""
    budget, pool = MemoryBudget(), Pool(max_concurrency=3)
    workers = [RateLimitedWorker(budget=budget) for _ in range(3)]
    gates = [Gate() for _ in range(6)]
    futures = [submit(workers[number % 3], pool, gate) for number, gate in enumerate(gates)]
    for gate in gates[:3]:
        assert gate.begun.wait(PATIENCE)
    assert budget.reserve(pool, -1, Cost(), 0.0) == math.inf
    for gate in gates:
        gate.go.set()
    # A worker hears of its own calls' ends only; each of these has one that was sent.
    assert not wait(futures[:3], PATIENCE).not_done
    for worker in workers:
        worker.shutdown(wait=False, cancel_futures=True)
    wait(futures, PATIENCE)


def test_no_worker_thread_means_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system has no thread left, submit says so and nothing is pending."""
    worker = RateLimitedWorker()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            submit(worker, Pool(), 1)
    assert worker.pending == 0
    assert submit(worker, Pool(), 1).result(PATIENCE) == 1
    worker.shutdown()


def test_where_only_the_main_thread_can_start_others_the_worker_has_its_own_from_the_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So the first call may be made when no thread can be had any more."""
    monkeypatch.setattr(engine, "MAIN_ENDS_ALL", True)
    worker = RateLimitedWorker()
    monkeypatch.setattr(threading.Thread, "start", _refuse)
    assert submit(worker, Pool(), 1).result(PATIENCE) == 1
    worker.shutdown()


def test_no_sending_thread_means_late_and_not_never(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's own thread is the last resort."""
    worker, start = RateLimitedWorker(), threading.Thread.start

    def only_the_worker(self: threading.Thread) -> None:
        if "worker" not in self.name:
            _refuse(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", only_the_worker)
    futures = [submit(worker, Pool(), number) for number in range(10)]
    assert [future.result(PATIENCE) for future in futures] == list(range(10))
    worker.shutdown()


def test_no_thread_at_all_is_said_with_what_to_do_and_the_next_call_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the very first call on; nothing of the refused ones is left behind, and no room is taken."""
    worker = RateLimitedWorker(max_queue=1, on_full="raise")
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", _refuse)
        for number in range(3):
            with pytest.raises(RuntimeError, match=r"can't start new thread: .*ulimit -u.* submit again"):
                submit(worker, Pool(), number)
        assert worker.pending == 0
    assert submit(worker, Pool(), 7).result(PATIENCE) == 7
    worker.shutdown()


def _refuse(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_random_traffic_of_real_threads_ends_every_call_once() -> None:
    """Calls that answer, fail, are refused, cancelled, expire or submit more: every one ends exactly once."""
    worker, random = RateLimitedWorker(ageing=0.01), Random(7)
    pools = [Pool(max_concurrency=2), Pool(min_interval=0.0005), Pool()]
    ends: dict[int, int] = {}
    futures: list[LightFuture[Any]] = []
    quick = RetryPolicy(max_retries=1, initial=0.001)

    def one(depth: int = 0) -> LightFuture[Any]:
        kinds: list[Callable[[], Any]] = [
            lambda: 1, lambda: 2, lambda: ValueError("own"), lambda: dropped(quick),
            lambda: one(depth + 1) if depth < 2 else 3,
        ]  # fmt: skip
        steps = [random.choice(kinds) for _ in range(3)] + [lambda: "last"]
        if len(futures) == 100:  # each refusal after it would make all of its pool wait, in real time
            steps.insert(0, lambda: AttemptFailed(Feedback(Outcome(Kind.LIMITED, 0.001, status=429)), quick, OSError()))
        soon = random.choice([None, None, worker.clock() + random.uniform(0.001, 0.05)])
        options = {"priority": random.randrange(11), "tenant": random.choice("abc"), "expires_at": soon}
        future = submit(worker, random.choice(pools), *steps, nested=in_call(), **options)
        futures.append(future)
        future.add_done_callback(lambda each: ends.update({id(each): ends.get(id(each), 0) + 1}))
        return future

    for _ in range(300):
        future = one()
        if random.random() < 0.2:
            future.cancel()
    assert worker.wait(PATIENCE)
    assert all(future.done() for future in futures)
    assert [ends.get(id(future)) for future in futures] == [1] * len(futures)
    assert worker.pending == worker.in_flight == 0
    for future in futures:
        if not future.cancelled():
            future.exception(0)
    worker.shutdown()
