"""What happens when a stream has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.feedback import Feedback
from ..core.request import Usage

if TYPE_CHECKING:
    from .journaled import Tape
    from .sdk_call import SDKCall

__all__ = ["StreamEnd"]


class StreamEnd:
    """Told of a stream's chunks and of its end, it has them counted, traced and settled. May be called in a finalizer.

    Args:
        call: whose stream it is.
        job: the call as the worker has it.
        tape: records the stream for a journal; None when there is none.
    """

    __slots__ = ("begun", "call", "job", "tape")

    def __init__(self, call: SDKCall, job: Any, tape: Tape | None) -> None:
        self.call = call
        self.job = job
        self.tape = tape
        self.begun = False

    def saw(self, chunk: Any) -> bool:
        """A chunk was read; answers whether the next one matters too."""
        call = self.call
        if not self.begun:
            self.begun = True
            call.runtime.ledger.first_chunk(call)
        if call.trace is None:
            return False
        call.trace.chunk(call, chunk)
        return True

    def __call__(self, usage: Usage | None, error: BaseException | None) -> None:
        trouble = None
        body = getattr(error, "body", None)
        if body:
            trouble = Feedback(self.call.account.dialect.classify_event(body))
        if usage is not None:
            self.call.learn(usage)
        if self.tape is not None:
            self.tape.ended()
        self.call.runtime.ledger.stream_ended(self.call, usage)
        if self.call.trace is not None:
            self.call.trace.stream_over(self.call, self.job.worker.engine, usage, error)
        self.job.worker.stream_ended(self.job, usage, trouble)
