"""What whoever waits gets to see, and when: in virtual time, by threads, and on a real terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest

from ratelimited_llm.books.status import PoolStatus, Status
from ratelimited_llm.display.modes import chosen, fitting
from ratelimited_llm.display.pace import IN_PLACE, LINE_BY_LINE, LINGER, Waiting, pause
from ratelimited_llm.display.progress import FIRST_SLICE, NAME, Progress
from ratelimited_llm.display.screen import columns

PATIENCE = 10.0
OPEN = Status(
    at=0.0, elapsed=10.0, total=20, submitted=20, answered=5, replayed=0, failed=0, cancelled=0, queued=12,
    in_flight=3, refused=0, retries=0, perhaps_paid=0, input_tokens=100, output_tokens=50, spent=None, expected=None,
    eta=7.0, latency=None, latency_p95=None, pools=(PoolStatus("host", "", 12, 3, 5.0, 150.0),),
)  # fmt: skip
OVER = replace(OPEN, answered=20, queued=0, in_flight=0)
LINE = "5/20 25%  5 rpm  150 tpm  3 open  0x429  ETA 0:07"
DRAWN = f"\r{LINE}\x1b[K"
ERASED = "\r\x1b[K"
SUMMARY = "20 answered, 0 failed, 0 refused, in 0:10; 150 tokens\n"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Screen:
    """What a terminal shows of what was written to it: text, \\r, \\n and erase-to-end-of-line."""

    def __init__(self) -> None:
        self.lines = [""]
        self.column = 0

    def show(self, written: str) -> Screen:
        for part in written.replace("\x1b[K", "\x1b").replace("\r\n", "\n"):
            row = self.lines[-1]
            if part == "\r":
                self.column = 0
            elif part == "\n":
                self.lines.append("")
                self.column = 0
            elif part == "\x1b":
                self.lines[-1] = row[: self.column]
            else:
                self.lines[-1] = row[: self.column].ljust(self.column) + part + row[self.column + 1 :]
                self.column += 1
        return self


class ByHand(Progress):
    """One that starts no thread."""

    def _start(self) -> None:
        pass


class Bench:
    """A Progress in virtual time, whose ticker's steps are taken by hand."""

    def __init__(self, mode: bool | str | None = None, stream: Any = None, **environ: str) -> None:
        self.now = 1_000.0
        self.status: Callable[[], Status] = lambda: OPEN
        self.stream = Terminal() if stream is None else stream
        self.progress = ByHand(
            lambda: self.status(), mode, stream=self.stream, clock=lambda: self.now, environ=environ, sliced=True
        )

    def wait(self, seconds: float, steps: int = 1) -> list[str]:
        """Wait so long, with steps of the ticker; answers what was written by each, and by the end of the wait."""
        seen = []
        with self.progress:
            seen.append(self.written())
            for _ in range(steps):
                self.now += seconds / steps
                self.progress._step(self.now)
                seen.append(self.written())
        seen.append(self.written())
        return seen

    def written(self) -> str:
        text: str = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        return text


# -- when: pure --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waiting", "seconds"),
    [
        (Waiting(since=100.0, left=90.0, before=0.0), 1.0),  # a long way to go: one look a second
        (Waiting(since=98.5, left=90.0, before=0.0), 0.5),
        (Waiting(since=98.0, left=90.0, before=0.0), 0.0),
        (Waiting(since=99.9, left=99.8, before=1.9), 0.0),  # short waits add up
        (Waiting(since=90.0, left=80.0, before=0.0, said=99.75), 0.25),
        (Waiting(since=90.0, left=80.0, before=0.0, said=99.5), 0.0),
        (Waiting(since=None, left=99.5, before=9.0, said=99.0), 0.1),  # due, and nobody to see it
        (Waiting(since=None, left=99.5, before=0.0), 1.0),
        (Waiting(since=None, left=100.0 - LINGER, before=9.0), None),
    ],
)
def test_when_to_look_again(waiting: Waiting, seconds: float | None) -> None:
    """After 2 s of waiting, then twice a second; never again when nobody has waited for a while."""
    left = pause(IN_PLACE, waiting, now=100.0)
    assert left == (None if seconds is None else pytest.approx(seconds))


def test_plain_lines_come_every_thirty_seconds() -> None:
    """The first one after 30 s as well."""
    times = []
    now, said = 0.0, None
    while now < 100.0:
        left = pause(LINE_BY_LINE, Waiting(since=0.0, left=-1.0, before=0.0, said=said), now)
        assert left is not None
        if left == 0.0:
            times.append(now)
            said = now
        now += left or 1.0
    assert times == [30.0, 60.0, 90.0]


# -- which mode --------------------------------------------------------------------------------------------------------


def test_the_mode_is_what_the_argument_or_the_environment_says() -> None:
    """An argument goes before the variable, a name before TQDM_DISABLE, and nothing said is auto."""
    variable = {"RATELIMITED_LLM_PROGRESS": " Plain "}
    assert chosen(None, {}) == chosen(True, variable) == chosen("auto", variable) == "auto"
    assert chosen(False, variable) == chosen("none", {}) == "none"
    assert chosen(None, variable) == "plain"
    assert chosen("bar", variable) == "bar"
    assert chosen(None, {"TQDM_DISABLE": "1"}) == chosen(True, {"TQDM_DISABLE": "1"}) == "none"
    assert chosen(None, {"TQDM_DISABLE": "0"}) == "auto"
    assert chosen("bar", {"TQDM_DISABLE": "1"}) == "bar"
    assert {chosen(None, {"RATELIMITED_LLM_PROGRESS": no}) for no in ("0", "false", "No", " off ")} == {"none"}
    assert {chosen(None, {"RATELIMITED_LLM_PROGRESS": yes}) for yes in ("", "1", "True", "yes", "on")} == {"auto"}
    assert chosen(None, {"TQDM_DISABLE": "1", **variable}) == "plain"


def test_a_wrong_mode_is_an_error_that_names_the_choices() -> None:
    """At the constructor, where it was given."""
    with pytest.raises(ValueError, match=r'one of "auto", "bar", "plain", "log", "notebook", "none", not \'bars\''):
        Progress(lambda: OPEN, "bars")
    with pytest.raises(TypeError, match="not 3"):
        Progress(lambda: OPEN, 3)  # type: ignore[arg-type]


def test_a_wrong_variable_is_said_once_and_not_followed(caplog: pytest.LogCaptureFixture) -> None:
    """A script does not fail for it."""
    for _ in range(3):
        assert chosen(None, {"RATELIMITED_LLM_PROGRESS": "loud"}) == "auto"
    assert len(caplog.messages) == 1
    assert "'loud'" in caplog.messages[0]
    assert '"plain"' in caplog.messages[0]


def test_auto_draws_in_place_only_on_a_terminal_that_can_erase() -> None:
    """Not in a file, not on a dumb terminal, and not on a stream that is missing or closed."""
    closed = Terminal()
    closed.close()
    assert fitting("auto", Terminal(), {"TERM": "xterm"}) == fitting("auto", Terminal(), {}) == "bar"
    assert fitting("auto", Terminal(), {"TERM": "dumb"}) == fitting("auto", io.StringIO(), {}) == "plain"
    assert fitting("auto", None, {}) == "plain"
    assert fitting("auto", closed, {}) in ("plain", "bar")
    assert fitting("bar", io.StringIO(), {}) == "bar"


def test_the_narrower_of_columns_and_terminal_counts() -> None:
    """80 where neither is known, and nonsense is ignored."""
    assert columns(io.StringIO(), {}) == 80
    assert columns(io.StringIO(), {"COLUMNS": "44"}) == 44
    assert columns(None, {"COLUMNS": "wide"}) == columns(None, {"COLUMNS": "0"}) == 80
    assert columns(None, {"COLUMNS": "9" * 5_000}) == 80


# -- drawing, in virtual time ------------------------------------------------------------------------------------------


def test_nothing_is_drawn_in_the_first_two_seconds() -> None:
    """A short script sees nothing at all, and no summary either."""
    bench = Bench()
    assert bench.wait(1.9, steps=8) == [""] * 10
    bench.status = lambda: OVER
    bench.progress.close()
    assert bench.written() == ""


def test_the_line_is_drawn_while_it_waits_and_erased_before_the_wait_returns() -> None:
    """At most twice a second."""
    bench = Bench()
    assert bench.wait(4.0, steps=16) == ["", *[""] * 7, *[DRAWN, ""] * 4, DRAWN, ERASED]


def test_a_row_of_short_waits_is_shown_like_a_long_one() -> None:
    """`for a in answers: print(...)`: each wait begins with the line and ends without it."""
    bench = Bench()
    seen = []
    for _ in range(30):
        seen.append("".join(bench.wait(0.1)))
        bench.now += 0.01
    assert seen[:19] == [""] * 19
    for text in seen[20:]:
        assert text.startswith(DRAWN)
        assert text.endswith(ERASED)
    assert Screen().show("".join(seen)).lines == [""]


def test_a_pause_between_waits_starts_anew() -> None:
    """Who waits 1.5 s, works for a while and waits 1.5 s is shown nothing."""
    bench = Bench()
    assert bench.wait(1.5, steps=3) == [""] * 5
    bench.now += 5.0
    assert bench.wait(1.5, steps=3) == [""] * 5


def test_waits_inside_a_wait_count_once() -> None:
    """The line stays until the outermost one returns."""
    bench = Bench()
    with bench.progress:
        bench.now += 3.0
        bench.progress._step(bench.now)
        with bench.progress, bench.progress:
            assert bench.written() == DRAWN
        assert bench.written() == ""
    assert bench.written() == ERASED


def test_the_line_is_never_wider_than_the_terminal() -> None:
    """One column is left free, since some terminals wrap at the last one; without room nothing is drawn."""
    narrow = "".join(Bench(COLUMNS="30").wait(3.0))
    assert narrow == "\r5/20 25%  0x429  ETA 0:07\x1b[K" + ERASED
    assert "".join(Bench(COLUMNS="3").wait(3.0)) == ""


def test_a_bar_of_the_user_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`for a in tqdm(answers)`: the line would wipe out tqdm's; it comes back when that bar is closed."""
    tqdm = pytest.importorskip("tqdm").tqdm
    monkeypatch.setattr(tqdm, "monitor_interval", 0)  # no thread of its own
    bench = Bench()
    with tqdm(total=3, file=io.StringIO()):
        assert "".join(bench.wait(3.0, steps=6)) == ""
    assert "".join(bench.wait(0.6)) == DRAWN + ERASED
    with tqdm(total=3, file=io.StringIO()):
        assert "".join(bench.wait(0.6)) == ""


def test_plain_lines_where_there_is_no_terminal() -> None:
    """A line after 30 s and every 30 s, and a summary once the calls are over."""
    bench = Bench(stream=io.StringIO())
    seen = "".join(bench.wait(95.0, steps=95))
    assert seen == f"{LINE}\n" * 3
    bench.progress.finish()
    assert bench.written() == ""  # not over yet
    bench.status = lambda: OVER
    bench.progress.close()
    bench.progress.close()
    assert bench.written() == SUMMARY


def test_plain_lines_add_up_short_waits_and_keep_their_distance() -> None:
    """A loop that works 3 s and waits 2 s hears of it too, and not more often than every 30 s."""
    bench = Bench("plain")
    moments = []
    for _ in range(60):
        if "".join(bench.wait(2.0, steps=2)):
            moments.append(bench.now)
        bench.now += 3.0
    assert moments
    assert moments[0] >= 1_000.0 + 30.0
    assert all(later - earlier >= 28.0 for earlier, later in pairwise(moments))
    assert len(moments) >= 6


def test_who_makes_one_call_at_a_time_gets_one_summary() -> None:
    """The calls are over after each wait then, which is no news; the end of the client is."""
    bench = Bench()
    for _ in range(3):
        bench.status = lambda: replace(OVER, total=6, submitted=6, answered=5, in_flight=1)
        assert "5/6 83%" in "".join(bench.wait(3.0))
        bench.status = lambda: OVER
        bench.progress.finish()
        assert bench.written() == ""
    bench.progress.close()
    assert bench.written() == SUMMARY


def test_the_log_gets_the_same_lines(caplog: pytest.LogCaptureFixture) -> None:
    """By `ratelimited_llm.progress` at INFO; the stream gets nothing."""
    caplog.set_level(logging.INFO, "ratelimited_llm.progress")
    bench = Bench("log")
    assert "".join(bench.wait(65.0, steps=65)) == ""
    bench.status = lambda: OVER
    bench.progress.close()
    assert caplog.messages == [LINE, LINE, SUMMARY.strip()]


def test_none_is_silent_and_never_asks() -> None:
    """However long it waits."""
    bench = Bench(False)
    bench.status = lambda: pytest.fail("asked")
    with bench.progress:
        bench.now += 100.0
    bench.progress.close()
    assert bench.written() == ""


def test_a_redirected_stderr_gets_it() -> None:
    """Without a stream of its own, it is what sys.stderr is at that moment."""
    now = [0.0]
    progress = Progress(lambda: OPEN, "bar", clock=lambda: now[0], environ={}, sliced=True)
    with contextlib.redirect_stderr(Terminal()) as stream, progress:
        now[0] = 3.0
        progress._step(3.0)
    assert stream.getvalue() == DRAWN + ERASED


# -- what goes wrong ---------------------------------------------------------------------------------------------------


class Broken(Terminal):
    """Fails as a pipe without a reader does."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [Broken(), None, 3])
def test_a_broken_stream_does_not_hurt_a_wait(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe without a reader, no console at all, or nonsense."""
    monkeypatch.setattr(sys, "stderr", None)
    now = [0.0]
    for mode in ("bar", "plain"):
        progress = ByHand(lambda: OPEN, mode, stream=stream, clock=lambda: now[0], sliced=True)
        with progress:
            now[0] += 50.0
            progress._step(now[0])
        progress.close()


def test_a_stream_that_was_closed_does_not_hurt_a_wait() -> None:
    """In the middle of it."""
    bench = Bench("bar")
    with bench.progress:
        bench.now += 3.0
        bench.progress._step(bench.now)
        bench.stream.close()
        bench.now += 3.0
        bench.progress._step(bench.now)
    bench.progress.close()


def test_a_status_that_raises_does_not_hurt_a_wait() -> None:
    """Nothing is drawn, and nothing is said."""
    bench = Bench()

    def fail() -> Status:
        raise ZeroDivisionError

    bench.status = fail
    assert "".join(bench.wait(5.0, steps=10)) == ""
    bench.progress.close()


def test_an_exception_in_the_wait_leaves_a_clean_line() -> None:
    """Ctrl-C among them."""
    bench = Bench()

    def interrupted() -> None:
        with bench.progress:
            bench.now += 3.0
            bench.progress._step(bench.now)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert bench.written() == DRAWN + ERASED


def torn_at(point: int, bench: Bench) -> bool:
    """Wait with a Ctrl-C at the n-th point at which the interpreter might hear of it; False when it came too late."""
    left = point

    def strike(frame: Any, event: str, arg: Any) -> None:
        nonlocal left
        if (
            event in ("call", "c_return")
            and "display" in frame.f_code.co_filename
            and "test_" not in frame.f_code.co_filename
        ):
            left -= 1
            if left < 0:
                sys.setprofile(None)
                raise KeyboardInterrupt

    try:
        sys.setprofile(strike)
        with bench.progress:
            pass
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def test_an_interrupt_at_any_point_leaves_nobody_waiting() -> None:
    """Nothing is drawn into what the user does next, and the next wait is one like any other."""
    for point in range(200):
        bench = Bench()
        bench.wait(3.0)
        bench.now += 0.1
        torn = torn_at(point, bench)
        bench.written()
        bench.now += 0.6
        bench.progress._step(bench.now)
        assert bench.written() == "", point
        assert "".join(bench.wait(3.0, steps=6)).endswith(DRAWN + ERASED), point
        if not torn:
            break
    assert 4 < point < 199


# -- threads -----------------------------------------------------------------------------------------------------------


def tickers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


@pytest.fixture(autouse=True)
def _no_ticker_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + PATIENCE
    for ticker in tickers():
        ticker.join(max(0.0, deadline - time.monotonic()))
    assert not tickers()


def test_short_waits_start_no_thread() -> None:
    """Many of them cost next to nothing."""
    progress = Progress(lambda: OPEN, "bar", stream=Terminal(), sliced=True)
    for _ in range(1_000):
        with progress:
            pass
    assert not tickers()


def test_waits_that_last_share_one_thread_which_ends_by_itself() -> None:
    """It is a daemon, started by the first wait that lasts, and gone soon after the last one."""
    progress = Progress(lambda: OPEN, "bar", stream=Terminal(), sliced=True)
    seen = set()
    for _ in range(20):
        with progress:
            progress.lasts()
            (ticker,) = tickers()
            seen.add(ticker)
    assert len(seen) == 1
    assert ticker.daemon
    ticker.join(PATIENCE)
    assert not ticker.is_alive()
    with progress:
        progress.lasts()
        assert tickers() not in ([], [ticker])
    progress.close()


def test_a_row_of_short_waits_lasts_as_well() -> None:
    """Once half a second was waited in all, the next one starts the thread."""
    now = [0.0]
    progress = Progress(lambda: OPEN, "bar", stream=Terminal(), clock=lambda: now[0], sliced=True)
    for times in range(20):
        with progress:
            assert bool(tickers()) == (times * 0.125 >= FIRST_SLICE), times
            now[0] += 0.125
        if tickers():
            break
    assert tickers()
    progress.close()


def test_waits_of_other_threads_draw_nothing() -> None:
    """Their prints would land anywhere."""
    stream = Terminal()
    progress = Progress(lambda: OPEN, "bar", stream=stream)
    seen: list[list[threading.Thread]] = []

    def work() -> None:
        with progress:
            progress.lasts()
            seen.append(tickers())
        progress.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [[]]
    assert stream.getvalue() == ""


def test_a_terminal_that_stands_still_holds_nobody() -> None:
    """Ctrl-S stops the terminal in the middle of a write: the wait returns all the same, and nothing more is drawn."""
    going = threading.Event()
    begun = threading.Event()

    class Stopped(Terminal):
        def write(self, text: str) -> int:
            begun.set()
            going.wait(PATIENCE)
            return super().write(text)

    progress = Progress(lambda: OPEN, "bar", stream=Stopped(), clock=count(0.0, 3.0).__next__)
    try:
        with progress:
            assert begun.wait(PATIENCE)
        before = time.monotonic()
        with progress:
            pass
        assert time.monotonic() - before < PATIENCE / 2
    finally:
        going.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_child_of_a_fork_has_a_ticker_of_its_own() -> None:
    """When it waits, and not before."""
    progress = Progress(lambda: OPEN, "bar", stream=Terminal())
    with progress:
        pass
    assert tickers()
    child = os.fork()
    if not child:
        code = 1
        with contextlib.suppress(BaseException):
            before = tickers()
            with progress:
                code = 0 if not before and len(tickers()) == 1 else 2
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    progress.close()


# -- a real terminal ---------------------------------------------------------------------------------------------------

SCRIPT = """
import sys, time
sys.path.insert(0, {here!r})
from test_progress import OPEN, OVER, Progress
state = OPEN
progress = Progress(lambda: state, {mode!r})
print("begin")
{body}
"""
LOOP = """
with progress:
    time.sleep(1.0)
print("one")
with progress:
    time.sleep(1.6)
print("two")
for word in "three", "four", "five":
    with progress:
        time.sleep(0.06)
    print(word)
state = OVER
progress.close()
print("end")
"""
FOR_EVER = """
with progress:
    time.sleep(60)
"""


def script(body: str, mode: str | None = None) -> list[str]:
    return [sys.executable, "-u", "-c", SCRIPT.format(here=str(Path(__file__).parent), mode=mode, body=body)]


def read_until(fd: int, enough: Callable[[str], bool]) -> str:
    """Read what a terminal shows; a terminal whose last writer is gone ends with an error on Linux."""
    text = ""
    while not enough(text):
        try:
            data = os.read(fd, 4096)
        except OSError:
            break
        if not data:
            break
        text += data.decode()
    return text


@contextlib.contextmanager
def on_a_terminal(command: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    pty = pytest.importorskip("pty", reason="no terminals here")
    ours, theirs = pty.openpty()
    environ = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "TQDM_DISABLE")}
    environ |= {"TERM": "xterm", "RATELIMITED_LLM_PROGRESS": "", "NO_COLOR": "1"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True)
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_on_a_terminal_prints_and_line_never_meet() -> None:
    """Nothing in the first 2 s; the line while it waits; what is left on the screen are the prints and the summary."""
    with on_a_terminal(script(LOOP)) as (process, terminal):
        written = read_until(terminal, lambda text: False)
        assert process.wait(PATIENCE) == 0
    lines = ["begin", "one", "two", "three", "four", "five", SUMMARY.strip(), "end", ""]
    assert Screen().show(written).lines == lines
    assert LINE not in written.partition("one")[0]
    assert written.partition("two")[0].count(LINE) in (1, 2)
    assert Screen().show(written.partition("two")[0].rpartition(ERASED)[0]).lines[-1] == LINE
    assert written.count("\x1b") >= 4
    for word in ("two", "three", "four", "five"):
        assert f"{ERASED}{word}" in written


def test_ctrl_c_leaves_a_clean_line() -> None:
    """The traceback begins where the line was."""
    with on_a_terminal(script(FOR_EVER)) as (process, terminal):
        written = read_until(terminal, lambda text: "\x1b[K" in text)
        process.send_signal(signal.SIGINT)
        written += read_until(terminal, lambda text: False)
        process.wait(PATIENCE)
    lines = Screen().show(written).lines
    assert lines[:2] == ["begin", "Traceback (most recent call last):"]
    assert lines[-2:] == ["KeyboardInterrupt", ""]


def test_a_pipe_gets_no_escape_and_nothing_in_a_short_run() -> None:
    """A log file stays a log file."""
    ended = subprocess.run(
        script('with progress:\n    time.sleep(0.1)\nprogress.close()\nprint("end")'), capture_output=True, check=True,
        text=True,
    )  # fmt: skip
    assert ended.stdout == "begin\nend\n"
    assert ended.stderr == ""
