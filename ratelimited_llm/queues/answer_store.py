"""Where answers lie until they are fetched: on the server of the queue, beside it.

Keys, each under "rll:<name of the queue>:": `result:<id>` is an answer; `claim:<id>` says which worker is at a job, and
goes away by itself soon after that worker does; `gone:<id>` says that nobody waits for it any more; `replies:<process>`
are the ids of answers that a process has not heard of; `process:<process>` is there for as long as the server has not
lost its memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .address import QueueAddress

__all__ = ["AnswerStore", "Found"]

AT_ONCE = 500  # answers that are fetched together
GONE_FOR = 86_400  # seconds


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a job that was delivered.

    Attributes:
        answered: its answer is there.
        gone: nobody waits for it any more.
        elsewhere: another worker is at it.
    """

    answered: bool
    gone: bool
    elsewhere: bool


class AnswerStore:
    """The keys of one queue on its server. Thread-safe; every method raises redis-py's errors.

    Args:
        client: of redis-py.
        address: the queue.
    """

    def __init__(self, client: Any, address: QueueAddress) -> None:
        self._client = client
        self._key = address.key
        self._keep = max(1, int(address.keep))

    # -- for workers --------------------------------------------------------------------------------------------------

    def claim(self, ids: Sequence[str], worker: str, seconds: float) -> list[Found]:
        """Say that this worker is at these jobs, and hear what is known of each; in one round trip.

        A claim lasts for so many seconds unless it is renewed, and is not made where there is no need to send.
        """
        pipe = self._client.pipeline(transaction=False)
        for each in ids:
            pipe.exists(self._key("result", each))
            pipe.exists(self._key("gone", each))
            pipe.set(self._key("claim", each), worker, nx=True, px=int(seconds * 1000))
            pipe.get(self._key("claim", each))
        said, found = pipe.execute(raise_on_error=False), []
        for at in range(0, len(said), 4):
            answered, gone, claimed, owner = said[at : at + 4]
            for each in (answered, gone, claimed):
                if isinstance(each, Exception):
                    raise each
            # What is no claim at all (an error, then) is as good as somebody else's: it is looked at again.
            found.append(Found(bool(answered), bool(gone), owner is not None and owner != worker.encode()))
        return found

    def renew(self, ids: Iterable[str], seconds: float) -> None:
        """Make the worker's claims on these jobs last for so many seconds from now."""
        self._each("pexpire", ids, int(seconds * 1000))

    def release(self, ids: Iterable[str]) -> None:
        """End the worker's claims on these jobs."""
        self._each("delete", ids)

    def _each(self, command: str, ids: Iterable[str], *args: Any) -> None:
        pipe = self._client.pipeline(transaction=False)
        for each in ids:
            getattr(pipe, command)(self._key("claim", each), *args)
        pipe.execute()

    def answer(self, job: str, submitter: str, answer: bytes) -> None:
        """Keep an answer, unless there is one, and tell who waits for it; all or nothing."""
        replies = self._key("replies", submitter)
        pipe = self._client.pipeline(transaction=True)
        pipe.set(self._key("result", job), answer, nx=True, ex=self._keep)
        pipe.delete(self._key("claim", job))
        pipe.rpush(replies, job)
        pipe.expire(replies, self._keep)
        _keep_first(pipe)

    def tell(self, job: str, submitter: str) -> None:
        """Tell somebody of an answer that was there already."""
        replies = self._key("replies", submitter)
        pipe = self._client.pipeline(transaction=True)
        pipe.exists(replies)
        pipe.rpush(replies, job)
        pipe.expire(replies, self._keep)
        _keep_first(pipe)

    # -- for submitters -----------------------------------------------------------------------------------------------

    def told(self, submitter: str, seconds: float) -> list[str]:
        """The ids of answers that came, waiting so many seconds for the first; an empty list when none came."""
        replies = self._key("replies", submitter)
        first = self._client.blpop([replies], timeout=seconds)
        if first is None:
            return []
        more = self._client.lpop(replies, AT_ONCE - 1) or []
        return [each.decode("ascii", "replace") for each in (first[1], *more)]

    def read(self, ids: Sequence[str]) -> list[bytes | None]:
        """The answers of these jobs, as far as they are there."""
        answers: list[bytes | None] = []
        for at in range(0, len(ids), AT_ONCE):
            answers.extend(self._client.mget([self._key("result", each) for each in ids[at : at + AT_ONCE]]))
        return answers

    def forget(self, job: str) -> None:
        """Its answer does not count: it is to be asked for again."""
        self._client.delete(self._key("result", job), self._key("gone", job))

    def wanted_again(self, job: str) -> None:
        """Take `give_up` back: somebody waits for this job again."""
        self._client.delete(self._key("gone", job))

    def give_up(self, ids: Iterable[str]) -> None:
        """Nobody waits for these any more: workers need not send them."""
        pipe = self._client.pipeline(transaction=False)
        for each in ids:
            pipe.set(self._key("gone", each), b"1", ex=GONE_FOR)
        pipe.execute()

    def mark(self, submitter: str) -> bool:
        """Leave a mark for a day; False when there was none, as on a server that has lost its memory."""
        return self._client.set(self._key("process", submitter), b"1", ex=GONE_FOR, get=True) is not None

    def unmark(self, submitter: str) -> None:
        """This process waits for nothing any more."""
        self._client.delete(self._key("process", submitter), self._key("replies", submitter))


def _keep_first(pipe: Any) -> None:
    """Run a transaction whose first command counts: the others fail if somebody has put other things under the key of
    a list, and then who waits finds the answer in its next sweep."""
    first = pipe.execute(raise_on_error=False)[0]
    if isinstance(first, Exception):
        raise first
