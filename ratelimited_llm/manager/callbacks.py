"""Telling somebody that a request has ended: once, whatever its end, by a function or a coroutine function.

A callback with one parameter gets the response; when there is none, it gets
`{"request_id": ..., "success": False, "error": "..."}`. One that takes three gets (request_id, result, error), of which
one of the last two is None.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable
from typing import Any

from .background import Background

__all__ = ["Callback", "calling"]

_log = logging.getLogger("ratelimited_llm")
_here = threading.local()


def calling() -> bool:
    """Whether this thread is inside a callback, whose request has not ended before it returns."""
    return getattr(_here, "depth", 0) > 0


class Callback:
    """A user's function, and the event loop that was running where it was given.

    Raises:
        TypeError: it is no function, or takes neither one argument nor three.
    """

    __slots__ = ("_fn", "_loop", "_whole")

    def __init__(self, fn: Callable[..., Any]) -> None:
        if not callable(fn):
            raise TypeError(f"callback must be a function, not {fn!r}")
        self._fn = fn
        self._whole = _takes(fn, 3)
        if not self._whole and not _takes(fn, 1):
            raise TypeError(f"callback must take (response) or (request_id, result, error); {fn!r} takes neither")
        self._loop = _running_loop()

    def call(self, request_id: str, result: Any, error: BaseException | None, background: Background) -> None:
        """Tell it. What it raises is logged and harms nobody; a coroutine runs where it was given, if that still runs.

        Args:
            request_id: whose end it is.
            result: the answer; None when there is none.
            error: what it failed with; None when it was answered.
            background: where coroutines run that were not given in a loop.
        """
        _here.depth = getattr(_here, "depth", 0) + 1
        try:
            if self._whole:
                told = self._fn(request_id, result, error)
            elif error is None:
                told = self._fn(result)
            else:
                text = str(error) or type(error).__name__
                told = self._fn({"request_id": request_id, "success": False, "error": text})
            if inspect.iscoroutine(told):
                self._run(_logged(told, request_id), background)
        except Exception:
            _log.exception("callback_failed: request %s", request_id)
        finally:
            _here.depth -= 1

    def _run(self, coroutine: Any, background: Background) -> None:
        loop = self._loop
        if loop is not None and loop.is_running():
            try:
                asyncio.run_coroutine_threadsafe(coroutine, loop)
                return
            except RuntimeError:  # it was closed just now
                pass
        background.submit(coroutine)


async def _logged(told: Any, request_id: str) -> None:
    try:
        await told
    except Exception:
        _log.exception("callback_failed: request %s", request_id)


def _takes(fn: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(fn).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # a built-in that does not say
        return count == 1
    return True


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
