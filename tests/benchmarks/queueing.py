"""What the queue itself costs: RateLimitedExecutor beside ThreadPoolExecutor, in the same run.

    python tests/benchmarks/queueing.py

(Not called queue.py: a script's own folder comes first on the path, and the standard library's would be hidden.)
"""

from __future__ import annotations

import gc
import resource
import statistics
import sys
import time
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from typing import Any

from ratelimited_llm import RateLimitedExecutor

CALLS = 20_000
QUEUED = 1_000_000


def memory() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * 4096


def round_trip(executor: Executor) -> tuple[float, float]:
    """Microseconds a call to submit, and from the first submit to the last answer."""
    began = time.perf_counter()
    futures = [executor.submit(int) for _ in range(CALLS)]
    submitted = time.perf_counter() - began
    wait(futures)
    return submitted / CALLS * 1e6, (time.perf_counter() - began) / CALLS * 1e6


def one_by_one(executor: Executor) -> float:
    """Microseconds a call when each answer is waited for before the next submit."""
    began = time.perf_counter()
    for _ in range(CALLS // 4):
        executor.submit(int).result()
    return (time.perf_counter() - began) / (CALLS // 4) * 1e6


def wakeups() -> int:
    """How often threads of this process have gone to sleep so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


def main() -> None:
    """Measure everything and print it."""
    print(f"{'':34}{'ThreadPoolExecutor':>20}{'ours':>10}")
    with ThreadPoolExecutor(8) as plain, RateLimitedExecutor(max_concurrency=8) as ours:
        pairs = [(round_trip(plain), round_trip(ours)) for _ in range(5)]
        alone = [(one_by_one(plain), one_by_one(ours)) for _ in range(5)]
    for what, index in (("submit, 8 at a time (us)", 0), ("round trip, 8 at a time (us)", 1)):
        theirs = statistics.median(pair[0][index] for pair in pairs)
        print(f"{what:34}{theirs:20.1f}{statistics.median(pair[1][index] for pair in pairs):10.1f}")
    print(f"{'round trip, one by one (us)':34}", end="")
    print("{:20.1f}{:10.1f}".format(*(statistics.median(pair[side] for pair in alone) for side in (0, 1))))
    ratios = [mine[1] / other[1] for other, mine in pairs], [mine / other for other, mine in alone]
    print("ours / theirs, medians of the pairs: {:.1f} and {:.1f}".format(*map(statistics.median, ratios)))
    gc.collect()
    slow = RateLimitedExecutor(rpm=1, burst=1)
    slow.submit(int).result()
    before, began = memory(), time.perf_counter()
    futures: list[Any] = [slow.submit(int) for _ in range(QUEUED)]
    seconds = time.perf_counter() - began
    print(f"{QUEUED:,} queued: {seconds:.1f} s, {seconds / QUEUED * 1e6:.1f} us and ", end="")
    print(f"{(memory() - before) / QUEUED - sys.getsizeof(futures) / QUEUED:.0f} bytes a call")
    time.sleep(1.0)  # what was left in the inbox is taken in
    cpu, slept = time.process_time(), wakeups()
    time.sleep(3.0)
    woken = wakeups() - slept - 1  # one is this thread's own
    print(f"idle with them: {(time.process_time() - cpu) / 3.0:.2%} of a CPU, {woken} wake-ups in 3 s")
    began = time.perf_counter()
    slow.shutdown(cancel_futures=True)
    print(f"cancelled in {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
