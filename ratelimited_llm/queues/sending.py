"""How a worker makes a call for somebody else: through its own client's queue and limits, the answer kept whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..calls.attempt import Attempt
from ..calls.queued_call import QueuedCall
from ..calls.replay import recorded_answer
from ..calls.sdk_options import RAW_HEADER
from ..core.feedback import ANSWERED, Feedback
from ..core.request import Usage
from ..engine.jobs import Answer
from ..stores.journal_values import Recorded
from .payload import Job

if TYPE_CHECKING:
    from ..engine.light_future import LightFuture

__all__ = ["Fetched", "RemoteCall", "kept_error", "send"]


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a call brought: the provider's answer as it came, what it used, and how often it was sent."""

    recorded: Recorded
    usage: Usage | None
    tries: int


class RemoteCall(QueuedCall):
    """A call that is made for another process: its result is a `Fetched`, and a stream is read to its end here."""

    __slots__ = ()

    def _declared(self) -> Any:
        return Fetched

    def _answer(self, job: Any, attempt: Attempt, value: Any) -> Answer:
        response = attempt.accepted
        body = response.read()  # of a stream, that is where it is waited for; it keeps its place meanwhile
        self.account.news.answered(self.pool.family, attempt.readings)
        usage = self._used(response.headers.get("content-type", ""), body)
        if usage is not None:
            self.learn(usage)
        self.runtime.ledger.answered(self, usage)
        fetched = Fetched(recorded_answer(response, body, self.sent_at), usage, self.tries)
        return Answer(fetched, Feedback(ANSWERED, attempt.readings, usage))

    def _used(self, kind: str, body: bytes) -> Usage | None:
        dialect = self.account.dialect
        if "text/event-stream" not in kind:
            return dialect.usage(_json(body)) if "json" in kind else None
        used: Usage | None = None
        for line in body.splitlines():
            if line.startswith(b"data:"):
                event = _json(line[5:])
                if event is not None:
                    used = dialect.stream_usage(event, used)
        return used


def _json(text: bytes) -> Any:
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    return None


def send(client: Any, job: Job, options: Mapping[str, Any]) -> tuple[RemoteCall, LightFuture[Fetched]]:
    """Queue a job as a call of this client; the key, the base URL and the default headers are the client's.

    Args:
        client: one of our doors for threads.
        job: it was checked.
        options: how it is queued, as for `with_options`.

    Raises:
        BudgetExceeded, WorkerStopped: it was not accepted.
    """
    door = type(client)
    runtime = client._runtime.with_options(options)
    given: dict[str, Any] = {"headers": {**job.headers, RAW_HEADER: "true"}}
    for name in ("timeout", "max_retries", "idempotency_key"):
        if getattr(job, name) is not None:
            given[name] = getattr(job, name)
    if job.query:
        given["params"] = dict(job.query)
    request = door._sdk._models.FinalRequestOptions.construct(method="post", url=job.path, json_data=job.body, **given)
    plain = partial(door._base.request, client)
    stream_cls = door._sdk.Stream[object] if job.stream else None
    call = RemoteCall(client, plain, runtime, client._account(client._runtime), object, request, job.stream, stream_cls)
    return call, call.as_future()


def kept_error(error: BaseException) -> Recorded | None:
    """The provider's answer that an SDK's error stands for; None when it stands for none."""
    response, status = getattr(error, "response", None), getattr(error, "status_code", None)
    if response is None or not isinstance(status, int) or status < 400:
        return None
    body = b""
    with suppress(Exception):
        body = response.read()
    headers = tuple((name, value) for name, value in response.headers.multi_items() if name != "content-encoding")
    return Recorded(status, headers, body, 0.0)
