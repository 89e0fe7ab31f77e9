"""One call's place in a shared queue: it is sent by a worker elsewhere, and rests here until that has its answer.

To the call it is what a place in a journal is (`journaled.Entry`): somebody else works for the answer, always. With a
journal on top, the journal is asked first, and keeps what the workers answer.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..calls import replay  # noqa: F401 - by the first call, or a fork could catch a thread in the middle of the import
from ..calls.snapshot import given_only
from ..engine.jobs import NotNeeded
from .payload import InvalidJob, Job

if TYPE_CHECKING:
    from ..calls.journaled import Entry
    from ..calls.sdk_call import SDKCall
    from ..stores.journal import Recorded
    from .answers import Delivered
    from .submitting import RemoteQueue

__all__ = ["RemoteEntry"]

LOCAL = ("x-stainless-", "____stainless_")  # headers by which an SDK talks to itself


class RemoteEntry:
    """One call in a shared queue.

    Args:
        call: it.
        queue: where to.
        journal: its place in a journal; None when there is none.
    """

    elsewhere: ClassVar[Literal[True]] = True  # whatever comes of it, it is never sent from here

    __slots__ = ("_arrived", "_call", "_callback", "_id", "_journal", "_lock", "_queue")

    def __init__(self, call: SDKCall, queue: RemoteQueue, journal: Entry | None) -> None:
        self._call: SDKCall | None = call
        self._queue = queue
        self._journal = journal
        self._id: str | None = None  # once it was submitted
        self._arrived: Any = None
        self._callback: Callable[[Any], None] | None = None
        self._lock = threading.Lock()

    def find(self) -> Recorded | Delivered | None:
        """The answer, from the journal or a worker; None while there is none."""
        if self._arrived is None and self._journal is not None and self._id is None:
            return self._journal.find()
        return self._arrived  # type: ignore[no-any-return]

    def enlist(self) -> bool:
        """Have it answered: always False, since it is never this process that sends it. Blocks for a second at most.

        Raises:
            SharedStoreLost: the queue did not take it.
            InvalidJob: it is no call that a queue carries.
        """
        if self._id is None and (self._journal is None or self._claimed(self._journal)):
            job = self._job()
            self._id = job.id
            try:
                self._queue.submit(job, self, resumed=self._journal is not None)
            except BaseException:
                self._id = None
                raise
        return False

    def _claimed(self, journal: Entry) -> bool:
        """Whether it is this call of all that keep the same journal that has it answered."""
        if not journal.enlist():
            return False
        try:
            journal.claim()
        except NotNeeded as found:
            self._arrived = found.answer
            return False
        return True

    def follow(self, callback: Callable[[Any], None]) -> None:
        """Have it called with the answer; or with None, and then it is to be asked for again."""
        with self._lock:
            if self._id is not None and self._arrived is None:
                self._callback = callback
                return
        if self._arrived is not None or self._journal is None:
            callback(self._arrived)
        else:
            self._journal.follow(callback)

    def arrived(self, delivered: Delivered) -> None:
        """The answer is there; on the thread that waits for all of them."""
        self._call = None  # what is not needed any more should not hold the request
        with self._lock:
            self._arrived = delivered
            callback, self._callback = self._callback, None
        if callback is not None:
            callback(delivered)

    def keep(self, delivered: Delivered) -> None:
        """Keep it in the journal, if there is one, before anybody sees it."""
        if self._journal is not None and delivered.answer is not None and delivered.good:
            self._journal.record(delivered.answer)

    def release(self, error: BaseException | None = None) -> None:
        """It has ended without an answer, or needs none any more. May be called from a finalizer, and repeatedly."""
        if self._id is not None:
            self._queue.give_up(self._id)
        if self._journal is not None:
            self._journal.release(error)

    def afresh(self) -> RemoteEntry:
        """What the journal has cannot be read: the call's place without one."""
        assert self._call is not None
        return RemoteEntry(self._call, self._queue, None)

    # -- what travels -------------------------------------------------------------------------------------------------

    def _job(self) -> Job:
        call, queue = self._call, self._queue
        assert call is not None
        options, own = call.options, call.runtime.options
        if options.files or getattr(options, "content", None) is not None:
            raise InvalidJob("a call with files or binary content cannot go through queue=: it carries JSON only")
        body = given_only(options.json_data)
        if options.extra_json:
            body = {**body, **options.extra_json} if isinstance(body, dict) else options.extra_json
        path, _, query = options.url.partition("?")
        try:
            now = queue.clock.now()
        except Exception as error:
            from .redis_server import lost

            raise lost(queue.address, error, "does not answer") from error
        return Job(
            id=self._name(), submitter=queue.submitter, provider=call.runtime.provider, path=path.rstrip("/"),
            body=body, query=_query(query, options.params), headers=_headers(options.headers),
            priority=own.rank, tenant=own.tenant, tag=own.tag, submitted=now,
            deadline=own.deadline, max_wait=own.max_wait, timeout=_timeout(options.timeout),
            max_retries=options.max_retries if isinstance(options.max_retries, int) else None,
            idempotency_key=options.idempotency_key,
        )  # fmt: skip

    def _name(self) -> str:
        """The id: of a journalled call it is the same in every run of the script, of any other a new one."""
        journal = self._journal
        if journal is None:
            return uuid.uuid4().hex
        parts = (_identity(str(journal.journal.path)), journal.key.hex(), str(journal.number))
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _identity(path: str) -> str:
    """What tells one journal from all others, also from one that was deleted before and had the same name."""
    began: Any = ""
    with suppress(sqlite3.Error):
        connection = sqlite3.connect(f"file:{path.replace('?', '%3f').replace('#', '%23')}?mode=ro", uri=True)
        try:
            began = connection.execute("SELECT number, started, pid FROM runs ORDER BY number LIMIT 1").fetchone()
        finally:
            connection.close()
    return f"{path}\0{began}"


def _query(in_url: str, params: Any) -> dict[str, str]:
    query = dict(part.partition("=")[::2] for part in in_url.split("&") if part)
    query.update({str(name): str(value).lower() for name, value in dict(params or {}).items()})
    return query


def _headers(headers: Any) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        return {}
    return {
        name.lower(): value
        for name, value in headers.items()
        if not name.lower().startswith(LOCAL) and isinstance(value, str)
    }


def _timeout(timeout: Any) -> float | None:
    """Seconds for one attempt, as far as the caller said something of its own."""
    if isinstance(timeout, (int, float)) and not isinstance(timeout, bool):
        return float(timeout)
    read = getattr(timeout, "read", None)
    return float(read) if isinstance(read, (int, float)) else None
