"""What became of a batch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BatchInterrupted", "BatchResult"]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of the lines of a batch.

    Attributes:
        total: lines that were read, the bad ones included.
        answered: calls that were answered in this run.
        failed: calls that failed in this run.
        skipped: lines whose calls were answered in an earlier run.
        failed_before: lines whose calls failed in an earlier run, and were not tried again.
        bad: lines that could not be sent.
        unfinished: lines that were read, and have no answer because the batch was stopped.
        stopped: "cost", "time", "cancelled" (by `client.cancel()`) or "interrupt"; None when the input came to its end.
        reason: the numbers of the cap on the cost, when that stopped it.
        seconds: how long it took.
        path: the file of the answers; None for a pipe or a file object.
        errors_path: the file of the rows that failed, which is there if any did; None when they go with the answers.
    """

    total: int = 0
    answered: int = 0
    failed: int = 0
    skipped: int = 0
    failed_before: int = 0
    bad: int = 0
    unfinished: int = 0
    stopped: str | None = None
    reason: str | None = None
    seconds: float = 0.0
    path: str | None = None
    errors_path: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every line of the input has an answer."""
        return self.stopped is None and not (self.failed or self.failed_before or self.bad or self.unfinished)


class BatchInterrupted(KeyboardInterrupt):
    """Ctrl-C during a batch; what was answered is written, and the same call goes on where it stopped.

    Attributes:
        result: what became of the lines so far.
    """

    def __init__(self, result: BatchResult) -> None:
        resume = "; the same call again does the rest" if result.path is not None else ""
        super().__init__(f"{result.answered:,} answered and written, {result.unfinished:,} still to do{resume}")
        self.result = result
