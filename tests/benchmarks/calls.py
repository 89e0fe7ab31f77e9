"""What a call costs: ours beside the plain SDK, in the same run, against a simulator in a process of its own.

    python tests/benchmarks/calls.py

Prints a table. Machines are noisy: read the ratios and the medians, not the milliseconds. The two take turns, block by
block; what the worker's thread still has to do when a block's last answer is there belongs to that block.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MODEL = "gpt-4.1-mini"
MESSAGES: Any = [{"role": "user", "content": "Say in one word whether this review is positive: I would buy it again."}]
BLOCK = 20  # calls, one after the other: a machine's speed drifts within a second, so a block takes much less
REST = 0.002  # seconds; a process that uses less than a tenth of them is at rest


def simulator(latency: float) -> tuple[subprocess.Popen[str], str]:
    """Start a simulator without limits of its own, and answer its process and base URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ratelimited_llm", "sim", "--port", "0", "--latency", str(latency),
         "--rpm", "10000000", "--output-tokens", "20"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    url = process.stdout.readline().split(" at ")[1].split(",")[0]
    return process, url


def one_by_one(client: Any, calls: int) -> None:
    """Read each answer before the next call."""
    for _ in range(calls):
        assert client.chat.completions.create(model=MODEL, messages=MESSAGES).choices


def in_threads(client: Any, calls: int, width: int) -> None:
    """As everybody writes it: a pool of threads, each with a blocking call."""
    with ThreadPoolExecutor(width) as pool:
        list(pool.map(lambda _: client.chat.completions.create(model=MODEL, messages=MESSAGES).choices, range(calls)))


def as_futures(client: Any, calls: int, width: int) -> None:
    """Submit, and read the oldest whenever `width` are open."""
    answers: deque[Any] = deque()
    for _ in range(calls):
        if len(answers) == width:
            assert answers.popleft().choices
        answers.append(client.chat.completions.create(model=MODEL, messages=MESSAGES))
    assert all(answer.choices for answer in answers)


def come_to_rest() -> None:
    """Wait until no thread of this process does anything, or so it seems."""
    for _ in range(100):
        cpu = time.process_time()
        time.sleep(REST)
        if time.process_time() - cpu < REST / 10:
            return


def cost(job: Callable[[], None], calls: int) -> tuple[float, float]:
    """CPU milliseconds a call, until all threads are at rest, and calls a second."""
    cpu, wall = time.process_time(), time.perf_counter()
    job()
    wall = time.perf_counter() - wall
    come_to_rest()
    return (time.process_time() - cpu) / calls * 1e3, calls / wall


def compare(name: str, plain: Callable[[], None], ours: Callable[[], None], calls: int, rounds: int) -> None:
    """Run both in turn, and print the medians of each, of the ratios of their times, and of the differences."""
    for job in (plain, ours, ours):  # connections, what the SDK imports late, and the ramp of a first burst
        job()
    come_to_rest()
    pairs = []
    for number in range(rounds):  # whatever comes second would always find the caches of the first
        if number % 2:
            pairs.append((cost(plain, calls), cost(ours, calls)))
        else:
            second = cost(ours, calls)
            pairs.append((cost(plain, calls), second))
    middle = statistics.median
    print(
        f"{name:34}{middle(p[0] for p, _ in pairs):9.2f} ms{middle(o[0] for _, o in pairs):9.2f} ms"
        f"{middle(o[0] - p[0] for p, o in pairs):+9.2f} ms{middle(o[1] / p[1] for p, o in pairs):10.2f}"
    )


def import_time(statement: str) -> float:
    """Milliseconds that a statement takes in a fresh interpreter, beyond starting one."""

    def run(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began

    return statistics.median(run(statement) - run("pass") for _ in range(5)) * 1e3


def in_flight(name: str, make: Callable[[str], Any], run: Callable[[Any, int, int], None], width: int) -> None:
    """Have so many calls in flight at once against a provider that takes two seconds."""
    process, url = simulator(2.0)
    try:
        client = make(url)
        one_by_one(client, 1)
        most = [0]
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.05):
                most[0] = max(most[0], threading.active_count())

        threading.Thread(target=watch).start()
        began, cpu = time.perf_counter(), time.process_time()
        run(client, width, width)
        wall, used = time.perf_counter() - began, time.process_time() - cpu
        done.set()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{name:34}{used / width * 1e3:9.2f} ms{wall:9.1f} s{most[0]:9} threads{memory:8.0f} MB")
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=2_000, help="calls in flight in the last table; 0 to leave it out")
    parser.add_argument("--only", choices=("plain", "ours"), help="of the last table, so that each has its own process")
    options = parser.parse_args()
    os.environ["NO_PROXY"] = "127.0.0.1"

    import openai

    import ratelimited_llm as ours

    def plain_client(url: str) -> Any:
        return openai.OpenAI(base_url=url, api_key="sk-simulated")

    def our_client(url: str, **options: Any) -> Any:
        return ours.OpenAI(base_url=url, api_key="sk-simulated", **options)

    if options.only is None:
        process, url = simulator(0.0)
        try:
            plain, futures = plain_client(url), our_client(url)
            blocking = futures.with_options(mode="blocking")
            calls, rounds = options.calls, options.rounds
            print(f"{'CPU a call':34}{'plain':>12}{'ours':>12}{'added':>12}{'calls/s':>10}")
            blocks = max(1, calls * rounds // BLOCK)
            one = lambda client: lambda: one_by_one(client, BLOCK)  # noqa: E731
            wide = lambda client: lambda: in_threads(client, calls, 64)  # noqa: E731
            one_by_one(blocking, 500)  # the ramp again, which spaces the first calls to a provider
            compare("one in flight, blocking", one(plain), one(blocking), BLOCK, blocks)
            compare("one in flight, future", one(plain), one(futures), BLOCK, blocks)
            compare("64 in flight, blocking", wide(plain), wide(blocking), calls, rounds)
            compare("64 in flight, future", wide(plain), lambda: as_futures(futures, calls, 64), calls, rounds)
            with tempfile.TemporaryDirectory() as directory:
                kept = our_client(url, journal=os.path.join(directory, "run.db"), mode="blocking")
                # Beside ours without one, so that what is added is the journal's.
                compare("one in flight, + journal", one(blocking), one(kept), BLOCK, blocks)
                compare("64 in flight, + journal", wide(blocking), wide(kept), calls, rounds)
                kept.close()
        finally:
            process.terminate()
            process.wait()
        for statement in ("import ratelimited_llm", "import openai"):
            print(f"{statement:34}{import_time(statement):9.0f} ms")
    if options.width and options.only is None:
        print(f"\n{options.width:,} in flight, 2 s latency")
        for name in ("plain", "ours"):
            command = [sys.executable, __file__, "--only", name, "--width", str(options.width)]
            subprocess.run(command, check=True)
    elif options.only == "plain":
        in_flight("threads, plain SDK", plain_client, in_threads, options.width)
    elif options.only == "ours":
        in_flight("futures, ours", our_client, as_futures, options.width)


if __name__ == "__main__":
    main()
