"""What a client of ours can do that the SDK's cannot: look at its calls, wait for them, and do many at once.

Each method is a sentence or two; what does the work is imported when it is first used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from .books.status import History, Status
from .core.checks import number, path_of
from .engine import lifecycle
from .engine.jobs import in_call

if TYPE_CHECKING:
    from .batch import BatchResult
    from .batch.estimated import Estimate
    from .runtime import Runtime

__all__ = ["Conveniences", "Looking"]

SDKClient = TypeVar("SDKClient")
T = TypeVar("T")
R = TypeVar("R")
OnError = str | Callable[[BaseException], Any]
Raise = Literal["raise"]
Generate = Literal["generator", "generator_unordered"]


class Looking(Generic[SDKClient]):
    """What every client can be asked, whether its calls are waited for by threads or by tasks. All is thread-safe.

    It is generic, and has no slots, because the SDKs' clients are just so: only then have a door and its SDK class the
    same layout, and an instance can be lent to the SDK as one of its own.
    """

    _runtime: Runtime

    def status(self) -> Status:
        """What has become of the calls so far: counts, limits, cost, and when the last one will be answered.

        A value that does not change; takes about a millisecond, and never waits for a call.
        """
        return self._runtime.status()

    def history(self) -> History:
        """The course of the run in equal slices of time, at most some hundred of them."""
        return self._runtime.history()

    def report(self, path: str | PathLike[str] | None = None) -> str:
        """A page about the run, with pictures: one HTML file that needs nothing else.

        Args:
            path: where to write it; None to write nothing.

        Returns:
            The HTML: a string that a notebook shows as the page, and whose repr is short.

        Raises:
            TypeError, ValueError: it is no path.
            OSError: it cannot be written there.
        """
        from .display.report import report

        target = None if path is None else Path(path_of("path", path)).expanduser()
        page = report(self.status(), self.history(), title=f"{type(self).__name__} run")
        if target is not None:
            target.write_text(page, encoding="utf-8")
        return page

    def _ipython_display_(self) -> None:
        from .display.notebook import show_client

        show_client(type(self).__name__, self._runtime.status)

    def cancel(self) -> int:
        """Cancel the calls that still wait in the queue; answers how many. What was sent goes on."""
        return self._runtime.cancel()


class Conveniences(Looking[SDKClient]):
    """The methods that a door adds to its SDK's client. All are thread-safe, and speak of the client and its copies."""

    __slots__ = ()

    # -- waiting ------------------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> bool:
        """Block until every call made so far has ended, at most `timeout` seconds; True when they have."""
        seconds = None if timeout is None else number("timeout", timeout, "a number of seconds")
        return self._runtime.watch(self._runtime.ledger.wait, seconds)

    # fmt: off
    @overload
    def gather(
        self, futures: Mapping[Any, Any], fn: Callable[[Any], Any] | None = None, *, on_error: OnError = "raise",
        timeout: float | None = None,
    ) -> list[Any]: ...
    @overload
    def gather(
        self, futures: Iterable[Future[T]], fn: None = None, *, on_error: Raise = "raise", timeout: float | None = None
    ) -> list[T]: ...
    @overload
    def gather(
        self, futures: Iterable[Future[T]], fn: Callable[[T], R], *, on_error: Raise = "raise",
        timeout: float | None = None,
    ) -> list[R]: ...
    @overload
    def gather(
        self, futures: Iterable[T], fn: None = None, *, on_error: Raise = "raise", timeout: float | None = None
    ) -> list[T]: ...
    @overload
    def gather(
        self, futures: Iterable[T], fn: Callable[[T], R], *, on_error: Raise = "raise", timeout: float | None = None
    ) -> list[R]: ...
    @overload
    def gather(
        self, futures: Iterable[Any], fn: Callable[[Any], Any] | None = None, *, on_error: OnError,
        timeout: float | None = None,
    ) -> list[Any]: ...
    # fmt: on
    def gather(
        self,
        futures: Iterable[Any],
        fn: Callable[[Any], Any] | None = None,
        *,
        on_error: OnError = "raise",
        timeout: float | None = None,
    ) -> list[Any]:
        """Wait for queued calls, and return their answers in order, each as `fn` makes it.

        Args:
            futures: what the calls returned: a list, a pandas Series, a generator...
            fn: makes something of each answer; None for the answers themselves.
            on_error: of a call that failed: "raise" its error, "none" (None in its place), "return" (the exception in
                its place), or a function of the exception.
            timeout: seconds for all; None for no bound.

        Raises:
            TimeoutError: not all were there in time. Nothing is cancelled by it.
        """
        from .gathering.gather import gather

        return gather(futures, fn, on_error=on_error, timeout=timeout)

    # -- many at once -------------------------------------------------------------------------------------------------

    # fmt: off
    @overload
    def map(
        self, fn: Callable[..., R], *iterables: Iterable[Any], return_as: Literal["list"] = "list",
        on_error: Raise = "raise", max_workers: int | None = None, timeout: float | None = None,
    ) -> list[R]: ...
    @overload
    def map(
        self, fn: Callable[..., R], *iterables: Iterable[Any], return_as: Generate, on_error: Raise = "raise",
        max_workers: int | None = None, timeout: float | None = None,
    ) -> Iterator[R]: ...
    @overload
    def map(
        self, fn: Callable[..., Any], *iterables: Iterable[Any], return_as: str = "list", on_error: OnError = "raise",
        max_workers: int | None = None, timeout: float | None = None,
    ) -> Any: ...
    # fmt: on
    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        return_as: str = "list",
        on_error: OnError = "raise",
        max_workers: int | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Run a function that was written for one item and for waiting, on many items at a time.

        Calls made in it wait their turn and return plain answers: `df["label"] = client.map(classify, df.text)`.

        Args:
            fn: called with one item of each iterable, in a thread.
            *iterables: as for the built-in map.
            return_as: "list", "generator" (in order, as they come) or "generator_unordered".
            on_error: as for `gather`.
            max_workers: threads at most; None for as many as the limits can use, up to 256.
            timeout: seconds for all; None for no bound.
        """
        from .gathering.mapping import begun

        answers = begun(
            fn, *iterables, return_as=return_as, on_error=on_error, max_workers=max_workers, timeout=timeout
        )
        if return_as != "list":
            return answers
        with self._runtime.progress:
            self._runtime.progress.lasts()
            results = list(answers)
        self._runtime.progress.finish()
        return results

    def batch(self, source: Any, target: Any, **options: Any) -> BatchResult:
        """Answer a file of calls (OpenAI Batch lines, bare bodies, prompts, CSV) into a file; again to go on.

        Args:
            source: a path, "-" or an open file.
            target: a path, or "-"; answers are appended as they come, and what is there is not asked for again.
            **options: see `ratelimited_llm.batch.run_batch`.
        """
        from .batch import run_batch

        return run_batch(self, source, target, **options)

    def estimate(self, source: Any, **options: Any) -> Estimate:
        """What a file of calls will take: requests, tokens, time, cost; by the same core in virtual time, nothing sent.

        Args:
            source: as for `batch`.
            **options: see `ratelimited_llm.batch.estimate.estimate`.
        """
        from .batch.estimate import estimate

        return estimate(self, source, **options)

    # -- the end ------------------------------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the client as `concurrent.futures.Executor.shutdown` ends an executor.

        Args:
            wait: block until the calls made so far have ended, and close the HTTP client then. Otherwise they go on,
                and the HTTP client is closed when it is collected.
            cancel_futures: cancel the calls that still wait in the queue.
        """
        if cancel_futures:
            self.cancel()
        if wait:
            self.close()

    def close(self) -> None:
        """Wait for the calls made so far, then close the HTTP client; as at the end of a `with` block."""
        runtime = getattr(self, "_runtime", None)  # not there when the SDK refused its arguments
        if runtime is not None and not in_call():
            self.wait()
            runtime.progress.close()
        super().close()  # type: ignore[misc]

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            runtime = self._runtime
            if not lifecycle.leave(runtime.cancel, runtime.ledger.wait, runtime.on_interrupt):
                return  # something is still in flight: the HTTP client is closed when it is collected
        self.close()
