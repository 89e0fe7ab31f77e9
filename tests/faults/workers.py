"""Two workers of a shared queue, one of them killed in the middle: nothing is lost, and little is sent twice.

    python tests/faults/workers.py [--rounds 5] [--calls 500] [--engine dramatiq]

A round submits its calls through `queue=`, lets two processes of `ratelimited-llm worker` send them to a provider on
this machine, and kills one with SIGKILL when a third is answered. It counts what was lost and what was sent twice, and
compares the time with the ideal: what was done when the kill came, and the rest at the pace of one worker. A last round
kills nobody: while low calls wait in their hundreds, high ones come in small groups, and the provider's log tells
whether a low one was begun while a high one waited.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from servers import valkey_server

from ratelimited_llm import OpenAI
from ratelimited_llm.simulator import Simulator

CONCURRENCY = 16
LATENCY = 0.4  # seconds of a call
HEARTBEAT = {"dramatiq": 5.0, "celery": 20.0}  # Celery's is its visibility timeout
TAKEN = 0.25  # seconds from taking a call to its arrival, at worst, on a busy machine
LATE = 10.0  # seconds beyond heartbeat and ideal
MAIN = "import sys; from ratelimited_llm.cli import main; sys.exit(main(sys.argv[1:]))"


@dataclass
class Round:
    """What came of one round: calls lost, sent twice, seconds in all, and what would have been ideal."""

    lost: int
    twice: int
    seconds: float
    ideal: float
    in_flight: int

    def good(self, heartbeat: float) -> bool:
        return not self.lost and self.twice <= CONCURRENCY and self.seconds <= self.ideal + heartbeat + LATE

    def __str__(self) -> str:
        return (
            f"lost {self.lost}, sent twice {self.twice} (in flight when killed: {self.in_flight}), "
            f"{self.seconds:.1f} s, ideal {self.ideal:.1f} s"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--engine", choices=sorted(HEARTBEAT), default="dramatiq")
    args = parser.parse_args()
    heartbeat = HEARTBEAT[args.engine]
    good = True
    for number in range(args.rounds):
        ended = killed(args.engine, args.calls, heartbeat)
        good = good and ended.good(heartbeat)
        print(f"round {number + 1}: {ended}{'' if ended.good(heartbeat) else '   <- not good'}", flush=True)
    ages, waits = priorities(args.engine)
    overtaken = sum(age > TAKEN for age in ages)
    print(
        f"priorities: {len(ages)} low calls, {overtaken} begun while a high one had waited for over {TAKEN} s ", end=""
    )
    print(f"(longest {max(ages):.3f} s); ", end="")
    print(f"high ones began after {sorted(waits)[len(waits) // 2]:.3f} s (median), {max(waits):.3f} s (worst)")
    good = good and not overtaken
    return 0 if good else 1


def killed(engine: str, calls: int, heartbeat: float) -> Round:
    """Kill one of two workers when a third of the calls is answered."""
    with valkey_server() as server, Simulator("openai", answer="echo", latency=LATENCY) as provider:
        address = address_of(engine, server.url, heartbeat)
        workers = [start(address, provider, heartbeat) for _ in range(2)]
        try:
            with OpenAI(api_key="sk-none", base_url="http://127.0.0.1:9", queue=address, progress=False) as client:
                began = time.monotonic()
                answers = [ask(client, f"call {number}") for number in range(calls)]
                while provider.counters.answered < calls // 3:
                    time.sleep(0.01)
                at_kill = time.monotonic() - began
                before, flying = provider.counters.answered, provider.counters.in_flight
                workers[0].send_signal(signal.SIGKILL)
                lost = sum(not good_answer(answer, f"call {number}") for number, answer in enumerate(answers))
                seconds = time.monotonic() - began
            sent = Counter(record.tag for record in provider.log)
        finally:
            end(workers)
        ideal = at_kill + (calls - before) * LATENCY / CONCURRENCY
        twice = sum(count - 1 for count in sent.values())
        return Round(lost, twice, seconds, ideal, flying)


def good_answer(answer: Any, text: str) -> bool:
    try:
        return bool(answer.result(timeout=120).choices[0].message.content == text)
    except Exception as error:
        print(f"{text}: {type(error).__name__}: {error}", file=sys.stderr)
        return False


def priorities(engine: str) -> tuple[list[float], list[float]]:
    """How long a high call had waited, for each low one that arrived at the provider; and how long each high one did.

    A call arrives some hundredths of a second after its worker has taken it, more on a busy machine.
    """
    with valkey_server() as server, Simulator("openai", answer="echo", latency=LATENCY) as provider:
        address = address_of(engine, server.url, 20.0)
        workers = [start(address, provider, 20.0) for _ in range(2)]
        try:
            with OpenAI(api_key="sk-none", base_url="http://127.0.0.1:9", queue=address, progress=False) as client:
                answers = [ask(client.with_options(priority="low"), f"low {number}") for number in range(400)]
                high, submitted = client.with_options(priority="high"), {}
                for group in range(10):
                    time.sleep(0.3)
                    for number in range(8):
                        text = f"high {group}.{number}"
                        answers.append(ask(high, text))
                        submitted[text] = time.monotonic()
                for answer in answers:
                    answer.result(timeout=120)
            begun = {record.tag: record.arrived for record in provider.log}
        finally:
            end(workers)
    waits = {text: (at, begun[text]) for text, at in submitted.items()}
    low = [at for text, at in begun.items() if text.startswith("low")]
    ages = [max((moment - at for at, until in waits.values() if at < moment < until), default=0.0) for moment in low]
    return ages, [until - at for at, until in waits.values()]


def ask(client: Any, text: str) -> Any:
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])


def address_of(engine: str, url: str, heartbeat: float) -> str:
    return f"{engine}+{url}" + (f"?visibility={heartbeat:g}" if engine == "celery" else "")


def start(address: str, provider: Simulator, heartbeat: float) -> subprocess.Popen[str]:
    """A worker process that has said that it is there."""
    worker = subprocess.Popen(
        [sys.executable, "-c", MAIN, "worker", "--queue", address, "--concurrency", str(CONCURRENCY),
         "--heartbeat", f"{heartbeat:g}", "--provider", "openai", "--rpm", "100k", "--tpm", "100M"],
        env={**os.environ, **provider.env()}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert worker.stderr is not None
    worker.stderr.readline()
    return worker


def end(workers: list[subprocess.Popen[str]]) -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        try:
            said = worker.communicate(timeout=30)[1]
        except subprocess.TimeoutExpired:
            worker.kill()
            said = worker.communicate()[1]
        if worker.returncode not in (0, -signal.SIGKILL):
            print(f"a worker ended with {worker.returncode}: {said}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
