"""How a script ends: with calls pending, after Ctrl-C, in threads that outlive the main one. Real child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2]
PATIENCE = 15.0
START = """
import sys, threading, time
from ratelimited_llm import RateLimitedExecutor

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()

def tell_when_draining():
    # The drain itself says when it has begun to wait. An interrupt between the script's last line and the drain is
    # the interpreter's: it prints it as ignored, and nobody else hears of it.
    from ratelimited_llm.engine import lifecycle
    def tells(seconds, wait=lifecycle._wait):
        lifecycle._wait = wait
        say("draining")
        return wait(seconds)
    lifecycle._wait = tells
"""


class Child:
    """A script in a process of its own."""

    def __init__(self, script: str) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `end`
        code = START + textwrap.dedent(script)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code], stdout=subprocess.PIPE, stderr=self._errors, text=True,
            env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        )  # fmt: skip
        self._watch = threading.Timer(PATIENCE, self.process.kill)
        self._watch.start()

    def hear(self, word: str) -> None:
        """Wait until it says so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == word:
                return
        pytest.fail(f"it never said {word!r}: {self.end()}")

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def end(self) -> tuple[list[str], str, int]:
        """Wait for its end: the lines that were not heard yet, its errors, its exit code."""
        assert self.process.stdout is not None
        with self.process, self._errors:
            lines = self.process.stdout.read().split("\n")[:-1]
            code = self.process.wait()
            self._watch.cancel()
            if code == -signal.SIGKILL:
                pytest.fail(f"it hung; it said {lines} {self.errors()}")
            return lines, self.errors(), code


def run(script: str) -> tuple[list[str], str, int]:
    """Run a script to its end: its lines, its errors, its exit code."""
    return Child(script).end()


def test_what_is_pending_at_the_end_of_a_script_is_drained() -> None:
    """All answers come, in order, with a rate limit and more calls than threads; and nobody complains."""
    lines, err, code = run("""
        executor = RateLimitedExecutor(min_interval=0.002)
        for number in range(100):
            executor.submit(say, number)
    """)
    assert (sorted(map(int, lines)), err, code) == (list(range(100)), "", 0)


def test_retries_and_callbacks_work_while_the_interpreter_ends() -> None:
    """A call that fails is tried again, and a callback that submits more is served."""
    lines, err, code = run("""
        left = [OSError("once"), OSError("twice")]
        def fails():
            if left:
                raise left.pop()
            say("third time")
        from ratelimited_llm.engine import lifecycle
        lifecycle.SILENT = 10
        executor = RateLimitedExecutor(min_interval=0.01, retry_on=(OSError,))
        executor.submit(fails).add_done_callback(lambda _: executor.submit(say, "and more"))
    """)
    assert (lines, err, code) == (["third time", "and more"], "", 0)


def test_several_calls_are_sent_at_a_time_while_the_interpreter_ends() -> None:
    """Threads are there beforehand: some releases of Python 3.12 start none any more."""
    lines, err, code = run("""
        executor = RateLimitedExecutor()
        barrier = threading.Barrier(8)
        go = threading.Event()
        def meets():
            go.wait()
            barrier.wait(10)
            say("met")
        for _ in range(8):
            executor.submit(meets)
        threading._register_atexit(go.set)  # called before ours
    """)
    assert (lines, err, code) == (["met"] * 8, "", 0)


def test_a_long_drain_says_how_many_are_waiting() -> None:
    """After a second of silence; nothing else is printed."""
    lines, err, code = run("""
        from ratelimited_llm.engine import lifecycle
        lifecycle.SILENT = 0.01
        executor = RateLimitedExecutor(min_interval=0.05)
        for number in range(6):
            executor.submit(say, number)
    """)
    assert (lines, code) == ([str(number) for number in range(6)], 0)
    assert err.startswith("ratelimited_llm: waiting for ")
    assert "Ctrl-C to drop them" in err


def test_a_thread_that_outlives_the_main_one_is_served() -> None:
    """A worker is not closed before every thread of the user has ended."""
    lines, err, code = run("""
        executor = RateLimitedExecutor(min_interval=0.001)
        executor.submit(int)
        main = threading.main_thread()
        def later():
            main.join()
            say(*[executor.submit(int, number).result() for number in range(5)])
            executor.submit(say, "left behind")
        threading.Thread(target=later).start()
    """)
    assert (lines, err, code) == (["0 1 2 3 4", "left behind"], "", 0)


def test_a_thread_may_make_the_first_call_when_the_main_one_has_ended() -> None:
    """As with the plain SDK; some releases of Python 3.12 start no thread by then."""
    lines, err, code = run("""
        executor = RateLimitedExecutor(min_interval=0.001)
        main = threading.main_thread()
        def later(number):
            main.join()
            say(executor.submit(int, number).result())
        for number in range(3):
            threading.Thread(target=later, args=(number,)).start()
    """)
    assert (sorted(lines), err, code) == (["0", "1", "2"], "", 0)


def test_a_script_that_fails_still_drains() -> None:
    """Only Ctrl-C drops the queue."""
    lines, err, code = run("""
        executor = RateLimitedExecutor(min_interval=0.005)
        for number in range(10):
            executor.submit(say, number)
        raise ValueError("an error of the script")
    """)
    assert (len(lines), code) == (10, 1)
    assert "an error of the script" in err


def test_an_unread_worker_ends_the_process_at_once() -> None:
    """A worker with nothing pending keeps nobody waiting, nor does one that was shut down."""
    lines, err, code = run("""
        with RateLimitedExecutor() as executor:
            say(executor.submit(int).result())
        other = RateLimitedExecutor()
        other.submit(int).result()
    """)
    assert (lines, err, code) == (["0"], "", 0)


INTERRUPTED = """
    from ratelimited_llm.engine import lifecycle
    lifecycle.LAST_ANSWERS = {patience}
    executor = RateLimitedExecutor(max_concurrency=2)
    go = threading.Event()
    def answer(number):
        sent.release()
        go.wait(60)
        say("answered", number)
    sent = threading.Semaphore(0)
    futures = [executor.submit(answer, number) for number in range(1_000)]
    {more}
    sent.acquire(); sent.acquire()
    say("both are sent")
    {rest}
"""


needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for a child")


@needs_signals
@pytest.mark.parametrize(
    ("rest", "moment"),
    [("futures[-1].result()", "both are sent"), ("tell_when_draining()", "draining")],
    ids=["while waiting", "while draining"],
)
def test_ctrl_c_sends_nothing_more_and_keeps_what_is_answered(rest: str, moment: str) -> None:
    """What was sent is waited for, what is queued is cancelled, and the process ends."""
    answered_then = "futures[-1].add_done_callback(lambda last: go.set())"  # once the queue is cancelled
    script = Child(INTERRUPTED.format(patience=10.0, more=answered_then, rest=rest))
    script.hear(moment)
    script.interrupt()
    lines, err, code = script.end()
    assert (sorted(lines), code) == (["answered 0", "answered 1"], -signal.SIGINT)
    assert err.count("interrupted: 998 cancelled, 0 abandoned") == 1
    assert err.count("Traceback") <= 1  # the script's own, if it was still running


@needs_signals
def test_ctrl_c_gives_up_what_is_not_answered_soon() -> None:
    """It has a while, and no longer."""
    script = Child(INTERRUPTED.format(patience=0.05, more="", rest="futures[-1].result()"))
    script.hear("both are sent")
    script.interrupt()
    lines, err, _ = script.end()
    assert lines == []
    assert err.count("interrupted: 998 cancelled, 2 abandoned") == 1


@needs_signals
def test_ctrl_c_while_draining_lets_the_rest_of_the_end_happen() -> None:
    """Threads of the script end, `atexit` functions run, what was printed arrives; then the process dies of it."""
    script = Child("""
        import atexit
        atexit.register(say, "atexit")
        from ratelimited_llm.engine import lifecycle
        lifecycle.LAST_ANSWERS = 0.01
        go = threading.Event()
        executor = RateLimitedExecutor(max_concurrency=1)
        executor.submit(go.wait, 10)
        dropped = threading.Event()
        executor.submit(say, "never").add_done_callback(lambda never: dropped.set())
        def later():
            threading.main_thread().join()
            dropped.wait()
            say("thread")
        threading.Thread(target=later).start()
        tell_when_draining()
        sys.stdout.write("unflushed ")
    """)
    script.hear("unflushed draining")
    script.interrupt()
    lines, err, code = script.end()
    assert (sorted(lines), code) == (["atexit", "thread"], -signal.SIGINT)
    assert err == "ratelimited_llm: interrupted: 1 cancelled, 1 abandoned\n"


@needs_signals
def test_the_last_words_say_what_is_answered_and_how_to_go_on() -> None:
    """As far as somebody knows it."""
    script = Child("""
        from ratelimited_llm.engine import lifecycle
        lifecycle.answered_by(lambda: 1_800)
        lifecycle.answered_by(lambda: 12)
        lifecycle.resumes_with(lambda: None)
        lifecycle.resumes_with(lambda: "run.db")
        lifecycle.LAST_ANSWERS = 0.01
        executor = RateLimitedExecutor(max_concurrency=1)
        stays = executor.submit(time.sleep, 60)
        for _ in range(1_180):
            executor.submit(int)
        say("waiting")
        stays.result()
    """)
    script.hear("waiting")
    script.interrupt()
    _, err, _ = script.end()
    assert "interrupted: 1,812 answered, 1,180 cancelled, 1 abandoned" in err
    assert "the answers are kept in run.db: run the same command again to go on" in err


@needs_signals
def test_answers_that_nothing_keeps_end_with_a_word_on_what_would_keep_them() -> None:
    """Whoever loses 1,800 answers to a Ctrl-C learns then how it would not happen again."""
    script = Child("""
        from ratelimited_llm.engine import lifecycle
        lifecycle.answered_by(lambda: 1_800)
        lifecycle.LAST_ANSWERS = 0.01
        executor = RateLimitedExecutor(max_concurrency=1)
        stays = executor.submit(time.sleep, 60)
        executor.submit(int)
        say("waiting")
        stays.result()
    """)
    script.hear("waiting")
    script.interrupt()
    _, err, _ = script.end()
    assert "interrupted: 1,800 answered, 1 cancelled, 1 abandoned" in err
    assert 'with journal="run.db" on the client' in err


@needs_signals
def test_calls_that_are_to_be_kept_are_drained_after_ctrl_c() -> None:
    """And the others are not; the process still ends as interrupted."""
    script = Child("""
        from ratelimited_llm.functions.function_job import FunctionJob
        FunctionJob.on_interrupt = property(lambda job: "keep" if job.tenant == "kept" else None)
        executor = RateLimitedExecutor(max_concurrency=1, max_queue=100)
        go = threading.Event()
        executor.submit(go.wait, 10)
        for number in range(3):
            executor.submit(say, "dropped", number)
            executor.with_options(tenant="kept").submit(say, "kept", number)
        threading._register_atexit(go.set)
        say("waiting")
        threading.Event().wait(60)
    """)
    script.hear("waiting")
    script.interrupt()
    lines, err, code = script.end()
    assert (lines, code) == (["kept 0", "kept 1", "kept 2"], -signal.SIGINT)
    assert "abandoned" not in err


def test_an_open_map_starts_nothing_more_at_the_end_of_a_script() -> None:
    """Nobody can read it any more; what has begun ends."""
    lines, err, code = run("""
        from ratelimited_llm.gathering.mapping import map_calls
        begun = threading.Event()
        def answer(number):
            begun.set()
            while "answers" not in globals() or not answers._crew._stopped:
                time.sleep(0.001)
            say("ended", number)
        answers = map_calls(answer, range(10), return_as="generator", max_workers=1)
        begun.wait()
    """)
    assert (lines, err, code) == (["ended 0"], "", 0)


@needs_signals
def test_a_second_ctrl_c_gives_up_what_is_in_flight() -> None:
    """At once, however long it was still given."""
    script = Child(INTERRUPTED.format(patience=60, more="", rest="futures[-1].result()"))
    script.hear("both are sent")
    script.interrupt()
    while "KeyboardInterrupt" not in script.errors():
        assert script.process.poll() is None
        time.sleep(0.01)
    while script.process.poll() is None:  # the next may come before the first has been dealt with: then once more
        script.interrupt()
        time.sleep(0.05)
    assert script.end()[0] == []


@needs_signals
def test_an_interrupt_that_the_script_handles_drops_nothing() -> None:
    """As in a notebook: it only stops the waiting."""
    script = Child("""
        executor = RateLimitedExecutor(min_interval=0.005)
        futures = [executor.submit(say, number) for number in range(40)]
        try:
            say("waiting")
            threading.Event().wait(60)
        except KeyboardInterrupt:
            say("handled")
    """)
    script.hear("waiting")
    script.interrupt()
    lines, err, code = script.end()
    assert "handled" in lines
    assert "39" in lines
    assert (err, code) == ("", 0)
