"""Results of an executor's functions, kept in a journal: what was computed once is found again by the next run."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Any

from ..calls.journaled import Entry
from ..engine.jobs import Answer, NotNeeded
from ..engine.light_future import LightFuture, begin, pass_on, pause
from ..stores.journal import Journal, Recorded, call_key, open_journal
from .function_job import FunctionJob

__all__ = ["JournaledJob", "Memory", "launch"]

_log = logging.getLogger("ratelimited_llm.journal")
JSON = (("content-type", "application/json"),)


class Memory:
    """A journal, and how a call of a function is known again.

    Args:
        journal: a path, or a `Journal`.
        key: a function of the call's own arguments: what tells it from other calls of the same function, as JSON.

    Raises:
        TypeError: without a key.
        JournalError: the file cannot be used.
    """

    def __init__(self, journal: Any, key: Callable[..., Any] | None) -> None:
        if not callable(key):
            raise TypeError(
                "journal= needs key=, a function of a call's arguments that tells it from others: key=lambda text: text"
            )
        self.journal: Journal = open_journal(journal)
        self.key = key
        self._said = False

    def entry(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Entry:
        """The place of a call in the journal.

        Raises:
            TypeError: its key is no JSON.
        """
        name = f"{getattr(fn, '__module__', '')}.{getattr(fn, '__qualname__', type(fn).__qualname__)}"
        key = self.key(*args, **kwargs)
        return Entry(self.journal, call_key("function", name, key), key)

    def cannot_keep(self, value: object) -> None:
        """Say once that a result is no JSON."""
        if not self._said:
            self._said = True
            _log.warning(
                "not_kept: a result of type %s would not come back out of JSON as it is; such results are delivered, "
                "and not kept in %s", type(value).__name__, self.journal.path,
            )  # fmt: skip


class JournaledJob(FunctionJob):
    """One call of a function whose result is kept."""

    __slots__ = ("entry", "memory")

    entry: Entry
    memory: Memory

    def send(self) -> Answer:
        self.entry.claim()
        began = time.monotonic()
        answer = super().send()
        body = _stored(answer.value)
        if body is None:
            self.memory.cannot_keep(answer.value)
            self.entry.release()
        else:
            self.entry.record(Recorded(200, JSON, body, time.monotonic() - began))
        return answer

    def not_needed(self, found: NotNeeded) -> None:
        future, self.future = self.future, None
        if future is None:
            return
        if found.answer is not None:
            self.tally.replayed(self)
            _deliver(future, found.answer)
        else:
            self.tally.withdrawn(self)
            _queue(self, future, _follow)

    def _fail(self, error: BaseException) -> None:
        super()._fail(error)
        self.entry.release(error)

    def dropped(self) -> None:
        super().dropped()
        self.entry.release()


def launch(job: JournaledJob, future: LightFuture[Any], *, nested: bool) -> None:
    """Have the call answered: by the journal, by another call that is at the same, or by its function.

    Raises:
        QueueFull, WorkerStopped: it was not accepted.
    """
    found = job.entry.find()
    if found is not None:
        job.tally.replayed(job)
        _deliver(future, found)
    elif not job.entry.enlist():
        _follow(job, future)
    else:
        job.future = future
        try:
            job.worker.submit(job, nested=nested)
        except BaseException:
            job.entry.release()
            raise
        job.prepare()


def _follow(job: JournaledJob, future: LightFuture[Any]) -> None:
    """Wait for whoever works for the same result: as part of the queue, but never run.

    Raises:
        WorkerStopped: it was not accepted.
    """
    job.future = future
    pause(future)
    job.worker.follow(job)
    job.prepare()
    job.entry.follow(partial(_followed, job, future))


def _followed(job: JournaledJob, future: LightFuture[Any], found: Recorded | None) -> None:
    """Who was at it is done; on the journal's or a sending thread, which has other things to do."""
    job.worker.engine.senders.run(partial(_go_on, job, future, found))


def _go_on(job: JournaledJob, future: LightFuture[Any], found: Recorded | None) -> None:
    """End it with the result; or nobody is at it any more, and there is none: it is this call's turn."""
    try:
        if found is not None:
            job.tally.replayed(job)
            _deliver(future, found)
        elif not future.done():
            _queue(job, future, partial(launch, nested=True))
    finally:
        job.worker.cancel(job)  # only now: without one or the other nothing would be pending


def _queue(job: JournaledJob, future: LightFuture[Any], how: Callable[[Any, Any], None]) -> None:
    """Make another job of the call, which answers the future from now on."""
    twin = JournaledJob(job.worker, job.terms, job.cost, job.submitted_at, job.fn, job.args)
    twin.entry, twin.memory = job.entry, job.memory
    pass_on(future, twin)
    try:
        how(twin, future)
    except Exception as error:
        twin.future = future
        twin.give_up(error)


def _deliver(future: LightFuture[Any], found: Recorded) -> None:
    if begin(future):
        with suppress(InvalidStateError):  # its time was over just now
            future.set_result(json.loads(found.body))


def _stored(value: Any) -> bytes | None:
    """The JSON of a result that comes back as it was; None for any other."""
    try:
        body = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        return body if _same(json.loads(body), value) else None
    except (TypeError, ValueError, RecursionError):
        return None


def _same(back: Any, value: Any) -> bool:
    """Whether the two are equal and of equal types, so that True is not 1 and a tuple no list."""
    if type(back) is not type(value):
        return False
    if isinstance(value, dict):
        return back.keys() == value.keys() and all(_same(back[key], item) for key, item in value.items())
    if isinstance(value, list):
        return len(back) == len(value) and all(map(_same, back, value))
    return bool(back == value)
