"""Waiting for calls that other processes have in flight: one thread looks, and only while somebody waits."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .journal_file import JournalFile
from .journal_values import Place, Recorded
from .journal_work import Callback, tell

__all__ = ["Watch"]

SOON, LATER = 0.1, 0.2  # seconds between two looks: at first, and when nothing has happened for a while
PATIENT = 20  # looks


class Watch:
    """Those who wait for another process. Thread-safe.

    Args:
        file: where its answers will be.
        heard: told of an end first; answers what the others may be told.
    """

    def __init__(self, file: JournalFile, heard: Callable[[Place, Recorded | None], Recorded | None]) -> None:
        self._file = file
        self._heard = heard
        self._lock = threading.Lock()
        self._waiting: dict[Place, list[Callback]] = {}
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._owners: dict[Place, int | None] = {}  # of the thread: who had it in flight when the file last changed

    def add(self, place: Place, callback: Callback) -> None:
        """Have it called once, when that call has ended; at the first look if it is in nobody's hands."""
        with self._lock:
            self._waiting.setdefault(place, []).append(callback)
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = threading.Thread(target=self._loop, name="ratelimited-llm-journal", daemon=True)
            try:
                self._thread.start()
                return
            except RuntimeError:  # the interpreter ends, and starts no more threads
                self._thread = threading.current_thread()
        self._loop()

    def look(self) -> None:
        """Have the thread look now instead of at its next turn."""
        self._wake.set()

    def _loop(self) -> None:
        version, looks = None, 0
        while True:
            with self._lock:
                places = list(self._waiting)
                if not places:
                    self._thread = None
                    return
            seen = self._file.version()
            changed = seen != version or seen < 0
            looks = 0 if changed else looks + 1
            version = seen
            for place in places:
                self._look_at(place, changed=changed)
            self._wake.wait(SOON if looks < PATIENT else LATER)
            self._wake.clear()

    def _look_at(self, place: Place, *, changed: bool) -> None:
        """Tell those who wait for a call if it has ended. While the file does not change, only its owner can die."""
        if changed or place not in self._owners:
            answer, self._owners[place] = self._file.owner(place)
            if answer is not None and self._owners[place] is None:
                self._tell(place, self._file.find(place))
                return
        run = self._owners[place]
        if run is None or not self._file.alive(run):
            self._tell(place, None)

    def _tell(self, place: Place, answer: Recorded | None) -> None:
        self._owners.pop(place, None)
        answer = self._heard(place, answer)
        with self._lock:
            waiting = self._waiting.pop(place, [])
        for callback in waiting:
            tell(callback, answer)
