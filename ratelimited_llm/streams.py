"""Open streams: they keep their place until they are read to the end, closed, or forgotten, and settle what they used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from .core.request import Usage
from .providers import Dialect

__all__ = ["StreamWatch"]


class StreamWatch:
    """Sees the chunks of one stream, and says once when it has ended.

    Args:
        dialect: where the usage stands in a chunk.
        ended: called once with the usage and the error that ended it, from any thread, a finalizer included.
    """

    __slots__ = ("_dialect", "_ended", "_error", "_lock", "_usage")

    def __init__(self, dialect: Dialect, ended: Callable[[Usage | None, BaseException | None], None]) -> None:
        self._dialect = dialect
        self._ended: Callable[[Usage | None, BaseException | None], None] | None = ended
        self._usage: Usage | None = None
        self._error: BaseException | None = None
        self._lock = threading.RLock()  # reentrant: a finalizer may close what this thread is closing

    def over_response(self, response: Any) -> None:
        """Have the end of an httpx response reported, whoever reads or closes it."""
        response.stream = _watched(response.stream, self.end)

    def over_stream(self, stream: Any) -> None:
        """Have the chunks of an SDK stream looked at."""
        iterator = getattr(stream, "_iterator", None)
        if iterator is not None:
            stream._iterator = self._observe(iterator)

    def _observe(self, chunks: Iterator[Any]) -> Iterator[Any]:
        try:
            for chunk in chunks:
                self._usage = self._dialect.stream_usage(chunk, self._usage)
                yield chunk
        except GeneratorExit:
            raise
        except BaseException as error:
            self._error = error
            raise
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
            self.end()

    def end(self) -> None:
        """It is over; only the first time counts."""
        with self._lock:
            ended, self._ended = self._ended, None
        if ended is not None:
            ended(self._usage, self._error)


def _watched(stream: Any, ended: Callable[[], None]) -> Any:
    """The byte stream of a response, of the class that its own httpx asks for, with its end reported."""
    base = next(cls for cls in type(stream).__mro__ if cls.__name__ == "SyncByteStream")

    class Watched(base):  # type: ignore[misc,valid-type]
        def __iter__(self) -> Iterator[bytes]:
            yield from stream

        def close(self) -> None:
            try:
                stream.close()
            finally:
                ended()

        def __del__(self) -> None:
            ended()

    return Watched()
