"""What a journal costs: CPU and time of number + find + enlist + claim + record, per call.

    python tests/benchmarks/journal.py [FOLDER]

FOLDER is where the file is made: a disk, not memory (default: the system's temporary folder).
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ratelimited_llm.stores.journal import Journal, Recorded, call_key

CALLS = 4_096
ROUNDS = 3
HEADERS = tuple((f"x-ratelimit-{number}", "1234567890") for number in range(12))
BODY = b"b" * 1_500
REQUEST = b"r" * 800


def journal_calls(journal: Journal, keys: list[bytes]) -> None:
    """One call after another."""
    for key in keys:
        number = journal.number(key)
        journal.find(key, number)
        journal.enlist(key, number)
        journal.claim(key, number, lambda: REQUEST)
        journal.record(key, number, Recorded(200, HEADERS, BODY, 0.5, 1.0))


def find_all(journal: Journal, occurrence: int, keys: list[bytes]) -> None:
    """Look for answers."""
    for key in keys:
        journal.find(key, occurrence)


def measured(step: Callable[[list[bytes]], None], keys: list[bytes], threads: int) -> tuple[float, float]:
    """Milliseconds of CPU and of time per call, with so many threads."""
    workers = [threading.Thread(target=step, args=(keys[number::threads],)) for number in range(threads)]
    cpu, began = time.process_time(), time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return (time.process_time() - cpu) / len(keys) * 1e3, (time.perf_counter() - began) / len(keys) * 1e3


def main() -> None:
    """Measure everything and print it; the best of some rounds, since others use the machine too."""
    folder = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=folder) as place, Journal(Path(place) / "run.db") as journal:
        print(f"{'per call (ms)':34}{'CPU':>8}{'time':>8}")
        for threads in (1, 8, 64):
            rounds = []
            for turn in range(ROUNDS):
                keys = [call_key("p", "/x", {"n": [threads, turn, number]}) for number in range(CALLS)]
                rounds.append(measured(partial(journal_calls, journal), keys, threads))
            best = min(rounds)
            print(f"{f'claimed and recorded, {threads} threads':34}{best[0]:8.3f}{best[1]:8.3f}")
        for name, occurrence in (("found", 0), ("not found", 1)):
            cpu, seconds = measured(partial(find_all, journal, occurrence), keys, 1)
            print(f"{name:34}{cpu:8.3f}{seconds:8.3f}")
        began = time.perf_counter()
        stats = journal.stats()
        print(f"{stats.answered:,} answers, {stats.bytes / stats.answered:,.0f} bytes each; ", end="")
        print(f"counted in {(time.perf_counter() - began) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
