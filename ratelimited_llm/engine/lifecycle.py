"""What happens to every worker of the process when it is interrupted, ends or forks.

A script that ends with calls pending drains them, as `concurrent.futures.ThreadPoolExecutor` does. After an unhandled
Ctrl-C only what is in flight is waited for, briefly, and the queue is dropped; another Ctrl-C gives up that too. An
interrupt that the script handles changes nothing: it may go on with its client. Where somebody types the next line
(a notebook, a prompt) an interrupt only stops the waiting. A notebook's kernel that ends drops its queue, since nobody
is there any more to read the answers. The child of a fork starts with empty queues: the parent's calls are answered in
the parent.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..forks import at_fork

if TYPE_CHECKING:
    from ..gathering.crew import Crew
    from ..worker import RateLimitedWorker

__all__ = ["answered_by", "at_the_end", "leave", "register", "resumes_with", "watch_crew", "when_drained"]

SILENT = 1.0  # seconds of draining before a word is said about it
LAST_ANSWERS = 4.5  # seconds that what is in flight has after Ctrl-C, so that the process is gone within five
KERNEL_PATIENCE = 2.0  # the same when a kernel ends, which Jupyter terminates after half of five seconds
FORK_PATIENCE = 5.0  # seconds that a fork waits for a step to end, which lasts microseconds

_workers: weakref.WeakSet[RateLimitedWorker] = weakref.WeakSet()
_crews: weakref.WeakSet[Crew] = weakref.WeakSet()
_lock = threading.RLock()  # two threads may make clients at once
_held: list[threading.Lock] = []  # between the two halves of a fork
_answer_counts: list[Callable[[], int]] = []
_journal_paths: list[Callable[[], str | None]] = []
_queue_dropped = False  # Ctrl-C has ended the draining
_interrupted_at_exit = False  # the same, and it was not Ctrl-C that had ended the script
_closers: list[Callable[[], None]] = []
_after_draining: list[Callable[[], None]] = []
# `with` blocks that were left by Ctrl-C: when, and how many calls they cancelled.
_interrupted_blocks: list[tuple[float, int]] = []


def register(worker: RateLimitedWorker) -> None:
    """Have this worker drained at exit, and emptied in the child of a fork."""
    with _lock:
        _workers.add(worker)
    _listen_to_cells()


def watch_crew(crew: Crew) -> None:
    """Have the threads of a `map` start nothing more at exit, and waited for."""
    with _lock:
        _crews.add(crew)


def answered_by(count: Callable[[], int]) -> None:
    """Tell how many calls were answered so far, for the last words after Ctrl-C; several counts are added up."""
    if count not in _answer_counts:
        _answer_counts.append(count)


def resumes_with(path: Callable[[], str | None]) -> None:
    """Tell which journal keeps the answers, for the last words after Ctrl-C; None when none does."""
    if path not in _journal_paths:
        _journal_paths.append(path)


def at_the_end(close: Callable[[], None]) -> None:
    """Have this called when the process ends and nothing can be sent any more; it must not take long."""
    if close not in _closers:
        _closers.append(close)


def when_drained(tell: Callable[[], None]) -> None:
    """Have this called when the last call has ended, while threads still work, and before any `atexit` function."""
    if tell not in _after_draining:
        _after_draining.append(tell)


def leave(cancel: Callable[[], int], wait: Callable[[float], object], wish: str | None = None) -> bool:
    """A `with` block is left by Ctrl-C: end its client's calls as the script's end would, unless they are to go on.

    Args:
        cancel: cancels what the client has queued, and answers how many.
        wait: waits for what is left, at most so many seconds.
        wish: the client's `on_interrupt`; None for what is usual here.

    Returns:
        Whether the client is to be closed now; otherwise its calls go on.
    """
    if (wish or _usual()) == "keep":
        return False
    _interrupted_blocks.append((time.monotonic(), cancel()))
    wait(LAST_ANSWERS)
    return True


def _all() -> list[RateLimitedWorker]:
    with _lock:
        return list(_workers)


def _all_crews() -> list[Crew]:
    with _lock:
        return list(_crews)


# -- interrupts -------------------------------------------------------------------------------------------------------


def _usual() -> str:
    """What an interrupt does with the queue where nothing else was said: there is a prompt, or there is a script."""
    return "keep" if hasattr(sys, "ps1") else "cancel"  # IPython sets it too, with and without a kernel


def _wish(job: Any) -> str:
    return getattr(job, "on_interrupt", None) or _usual()


def _cancel_as_wished() -> tuple[int, bool]:
    """Cancel the queue but for the calls that are to be kept: how many, and whether there are any of the others."""
    kept: list[Any] = []

    def unwanted(job: Any) -> bool:
        if _wish(job) == "cancel":
            return True
        kept.append(job)
        return False

    cancelled = sum(worker.cancel_queued(unwanted) for worker in _all())
    return cancelled, bool(kept) or any(
        _wish(job) == "keep" for worker in _all() for job in worker.engine.flying.copy()
    )


def _last_error() -> BaseException | None:
    """What the script, or the last cell that failed, died of: whoever prints a traceback leaves it in `sys`."""
    return getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)


def _shell() -> Any:
    """IPython's shell; None when we are in none."""
    module = sys.modules.get("IPython")
    try:
        return None if module is None else module.get_ipython()
    except Exception:  # half imported
        return None


_listening: weakref.WeakSet[Any] = weakref.WeakSet()


def _listen_to_cells() -> None:
    shell = _shell()
    if shell is None or shell in _listening:
        return
    _listening.add(shell)
    _first_sight(getattr(sys, "last_value", None))  # an interrupt of an earlier cell
    shell.events.register("post_run_cell", _after_cell)


def _after_cell(result: Any) -> None:
    """After each cell, in the main thread: say what an interrupt has left, once."""
    # A magic such as %%time shows the error itself, and hands on none.
    error = getattr(result, "error_in_exec", None) or getattr(sys, "last_value", None)
    if not _first_sight(error):
        return
    _cancel_as_wished()
    queued = sum(worker.queued for worker in _all())
    if queued:
        from ..display import notebook  # nothing of it is needed before

        print(notebook.interrupted(queued))  # noqa: T201 - in the cell, by the thread that was interrupted


def _first_sight(error: Any) -> bool:
    """Whether this is an interrupt that was not looked at before."""
    if not isinstance(error, KeyboardInterrupt) or hasattr(error, "_ratelimited_llm_seen"):
        return False
    error._ratelimited_llm_seen = True  # type: ignore[attr-defined]
    return True


# -- the end of the process -------------------------------------------------------------------------------------------


def _drain() -> None:
    """Wait for what is pending. The workers stay open: threads that outlive the main one may still use them."""
    _drain_workers()
    for tell in _after_draining:
        with suppress(Exception, KeyboardInterrupt):
            tell()


def _drain_workers() -> None:
    global _interrupted_at_exit
    dropped, died_of_it, kernel = 0, False, False
    try:  # from the first line on: Ctrl-C may strike right now
        died_of_it = _usual() == "cancel" and isinstance(_last_error(), KeyboardInterrupt)
        kernel = hasattr(_shell(), "kernel")
        dropped = sum(crew.stop() for crew in _all_crews()) + (_cancelled_before() if died_of_it else 0)
        _end_pauses()
        for worker in _all():
            worker.leave_streams()
        if not dropped and not _pending() and not any(crew.running for crew in _all_crews()):
            return
        if died_of_it:
            cancelled, some_are_kept = _cancel_as_wished()
            dropped += cancelled
        if some_are_kept if died_of_it else not kernel:
            _finish()
            return
    except KeyboardInterrupt:
        _interrupted_at_exit = not died_of_it
    with suppress(KeyboardInterrupt):
        _drop(dropped, KERNEL_PATIENCE if kernel else _patience(), silent=kernel)


def _end_pauses() -> None:
    """What waits in a queue that its script has paused would be waited for without end: it is cancelled."""
    paused = [worker for worker in _all() if worker.paused]
    cancelled = sum(worker.cancel_queued() for worker in paused)
    for worker in paused:
        worker.resume()
    if cancelled:
        _say(f"{cancelled:,} requests cancelled that waited in a paused queue")


def _pending() -> int:
    return sum(worker.pending for worker in _all())


def _finish() -> None:
    """Wait for everything, however long it takes, and say so."""
    if not _wait(SILENT):
        left = _pending()
        running = sum(crew.running for crew in _all_crews())
        what = _counted(left, "queued request") if left else _counted(running, "function") + " in map()"
        _say(f"waiting for {what} (Ctrl-C to drop them)")
        _wait(None)


def _drop(cancelled: int, seconds: float, *, silent: bool) -> None:
    """Cancel what is queued, and give what is in flight a last chance."""
    global _queue_dropped
    _queue_dropped = True
    pending = _pending() > 0
    for worker in _all():
        worker.engine.close(final=True)
    cancelled += sum(worker.cancel_queued() for worker in _all())
    try:
        _wait(seconds)
    finally:
        if not silent and (pending or cancelled):
            _say_what_is_left(cancelled)


def _say_what_is_left(cancelled: int) -> None:
    abandoned = sum(worker.in_flight for worker in _all())
    answered = sum(count() for count in _answer_counts)
    told = f"{answered:,} answered, " if _answer_counts else ""
    _say(f"interrupted: {told}{cancelled:,} cancelled, {abandoned:,} abandoned")
    paths = dict.fromkeys(path for path in (resume() for resume in _journal_paths) if path)
    if paths:
        _say(f"the answers are kept in {', '.join(paths)}: run the same command again to go on")
    elif answered and cancelled:
        _say(
            'with journal="run.db" on the client, or RATELIMITED_LLM_JOURNAL=run.db, the next run would go on from here'
        )


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def _cancelled_before() -> int:
    return sum(number for _, number in _interrupted_blocks) + sum(crew.left_over for crew in _all_crews())


def _patience() -> float:
    """Seconds for what is in flight; less when a `with` block has just waited for it."""
    spent = time.monotonic() - _interrupted_blocks[-1][0] if _interrupted_blocks else LAST_ANSWERS
    return LAST_ANSWERS - spent if spent < LAST_ANSWERS else LAST_ANSWERS


def _wait(seconds: float | None) -> bool:
    """Wait for all of them, at most so long; True when nothing is pending."""
    end = None if seconds is None else time.monotonic() + seconds
    parts: list[Callable[[float | None], bool]] = [worker.wait for worker in _all() if worker.pending]
    parts += [crew.wait for crew in _all_crews() if crew.running]
    return all(part(None if end is None else max(0.0, end - time.monotonic())) for part in parts)


def _close() -> None:
    """The very last: nothing can be sent from here on."""
    if not _queue_dropped:
        _drain()
    for worker in _all():
        worker.shutdown(wait=False)
    for close in _closers:
        with suppress(Exception, KeyboardInterrupt):
            close()
    if _interrupted_at_exit:
        _end_as_interrupted()


def _say(text: str) -> None:
    with suppress(Exception):
        print(f"ratelimited_llm: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the main thread, at exit


class _LastWord:
    """Ends the process as an unhandled Ctrl-C does when one came while it was ending, so that a shell's loop stops too.

    It is said when the interpreter clears `sys`, which it does last and always (a module of ours may be held by one of
    our threads): every `atexit` function has run by then, and what was printed is written.
    """

    def __init__(self) -> None:
        # Bound here, and built-in: there are no modules any more when they are called.
        self._kill, self._who, self._how = os.kill, os.getpid(), int(signal.SIGINT)

    def __del__(self) -> None:
        self._kill(self._who, self._how)


def _end_as_interrupted() -> None:
    """Have the process die of SIGINT when all else is done; the next Ctrl-C ends it at once."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.ratelimited_llm_last_word = _LastWord()  # type: ignore[attr-defined]


# Before threading joins its threads, which is while threads can still work; atexit is too late for new connections.
_register_atexit = getattr(threading, "_register_atexit", atexit.register)
_register_atexit(_drain)
atexit.register(_close)


# -- forks ------------------------------------------------------------------------------------------------------------


def _before_fork() -> None:
    # Held across the fork, so that the child inherits no machine that is half way through a step. If a step should
    # hang, the child gets what there is rather than the parent no child.
    for worker in _all():
        core = worker.engine.core
        if core.acquire(timeout=FORK_PATIENCE):
            _held.append(core)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().release()
    for worker in _all():
        worker.engine.inbox.ring()  # who found the core taken has left a message


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    _held.clear()
    # All are usable before the first call ends: what is called back then may submit to any of them.
    for end_inherited in [worker.reset_after_fork() for worker in _all()]:
        end_inherited()


at_fork(_after_fork_in_child, before=_before_fork, in_parent=_after_fork_in_parent, after_all_others=True)
