"""Open streams: they keep their place until they are read, closed or forgotten, and settle what they used."""

from __future__ import annotations

import _thread
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..core.request import Usage
from ..providers import Dialect

if TYPE_CHECKING:
    from .journaled import Tape

__all__ = ["StreamWatch"]

DEEPEST = 30  # calls inside of each other that the end of a stream takes, and some more


class StreamWatch:
    """Sees the chunks of one stream, and says once when it has ended.

    Args:
        dialect: where the usage stands in a chunk.
        ended: called once with the usage and the error that ended it, from any thread, a finalizer included.
        saw: called with each chunk, by whoever reads it, for as long as it answers that it wants the next one.
    """

    __slots__ = ("_dialect", "_ended", "_error", "_lock", "_reader", "_tell", "_usage")

    def __init__(
        self,
        dialect: Dialect,
        ended: Callable[[Usage | None, BaseException | None], None],
        saw: Callable[[Any], bool] | None = None,
    ) -> None:
        self._dialect = dialect
        self._ended: Callable[[Usage | None, BaseException | None], None] | None = ended
        self._tell = saw
        self._usage: Usage | None = None
        self._error: BaseException | None = None
        self._reader = 0  # the thread that is waiting for the next chunk, inside of the SDK
        self._lock = threading.RLock()  # reentrant: a finalizer may close what this thread is closing

    def over_response(self, response: Any, tape: Tape | None = None) -> None:
        """Have the end of an httpx response reported, whoever reads, closes or forgets it; and its bytes recorded.

        Its byte stream stays the object that it is: httpx and the SDKs look for more on it than bytes.
        """
        stream = response.stream
        kind: Any = type(stream)
        stream.__class__ = _reporting(kind)
        stream.at_end = self.end
        stream.tape = tape
        weakref.finalize(stream, self.end).atexit = False

    def over_stream(self, stream: Any) -> None:
        """Have the chunks of an SDK stream looked at."""
        iterator = getattr(stream, "_iterator", None)
        if iterator is not None:
            stream._iterator = (self._observe_async if hasattr(iterator, "__anext__") else self._observe)(iterator)

    def _saw(self, chunk: Any) -> Any:
        if self._tell is not None and not self._tell(chunk):
            self._tell = None
        self._usage = self._dialect.stream_usage(chunk, self._usage)
        return chunk

    def _observe(self, chunks: Iterator[Any]) -> Iterator[Any]:
        try:
            self._reader = threading.get_ident()
            for chunk in chunks:
                self._reader = 0
                yield self._saw(chunk)
                self._reader = threading.get_ident()
        except GeneratorExit:
            raise
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._reader = 0
            if hasattr(chunks, "close"):
                chunks.close()
            self.end()

    async def _observe_async(self, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
        try:
            self._reader = threading.get_ident()
            async for chunk in chunks:
                self._reader = 0
                yield self._saw(chunk)
                self._reader = threading.get_ident()
        except GeneratorExit:
            raise
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._reader = 0
            self.end()

    def end(self) -> None:
        """It is over; only the first time counts."""
        if self._reader == threading.get_ident():
            return  # the SDK closes the answer on its way out, with the error that `_observe` is about to see
        try:
            _go_down(DEEPEST)
        except RecursionError:
            # The collector came at the bottom of a recursion, where what follows would break off half way. There may
            # be no room for any call of a Python function here.
            try:
                _thread.start_new_thread(self._end, ())
                return
            except RuntimeError:  # no thread can be started, so here at least some of it is tried
                pass
        self._end()

    def _end(self) -> None:
        with self._lock:
            ended, self._ended, self._tell = self._ended, None, None
            # A finalizer holds us until the stream is gone, and by its traceback the error would hold the stream.
            error, self._error = self._error, None
        if ended is not None:
            ended(self._usage, error)


def _go_down(calls: int) -> None:
    """Make so many calls inside of each other; raises RecursionError where they do not fit."""
    if calls:
        _go_down(calls - 1)


@lru_cache(maxsize=16)
def _reporting(kind: Any) -> Any:
    """The class of a byte stream that reports its close.

    A function put in its place on the one stream would have to hold it: strongly, and a forgotten stream is left to the
    garbage collector; weakly, and the collector, when it closes the SDK's stream, finds it gone and its socket open.
    """

    members: dict[str, Any] = {"__module__": kind.__module__}
    if hasattr(kind, "__iter__"):
        members.update(_of_threads(kind))
    if hasattr(kind, "__aiter__"):
        members.update(_of_tasks(kind))
    return type(kind.__name__, (kind,), members)


def _of_threads(kind: Any) -> dict[str, Any]:
    def close(self: Any) -> None:
        try:
            kind.close(self)
        finally:
            self.at_end()

    def __iter__(self: Any) -> Iterator[bytes]:
        tape = self.tape
        if tape is None:
            yield from kind.__iter__(self)
            return
        for chunk in kind.__iter__(self):
            tape.passes(chunk)
            yield chunk
        tape.is_exhausted()

    return {"close": close, "__iter__": __iter__}


def _of_tasks(kind: Any) -> dict[str, Any]:
    async def aclose(self: Any) -> None:
        try:
            await kind.aclose(self)
        finally:
            self.at_end()

    async def __aiter__(self: Any) -> AsyncIterator[bytes]:
        tape = self.tape
        async for chunk in kind.__aiter__(self):
            if tape is not None:
                tape.passes(chunk)
            yield chunk
        if tape is not None:
            tape.is_exhausted()

    return {"aclose": aclose, "__aiter__": __aiter__}
