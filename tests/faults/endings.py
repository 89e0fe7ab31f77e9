"""Scripts of all kinds that end with work under way, or are struck by signals at any moment: each is gone soon after.

    python tests/faults/endings.py --seed 1 --runs 100

A script that nobody strikes ends well and with all its calls answered, whatever thread has made them. One that is
struck once by Ctrl-C or SIGTERM ends by that, or well. What two strikes leave is the interpreter's affair, but end it
must.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ratelimited_llm.simulator import Simulator

__all__ = ["SCRIPTS", "Ending", "ended"]

PACKAGE = Path(__file__).parents[2]
PATIENCE = 40.0  # seconds from the last strike; those that are not struck have two or three seconds of work
LATEST = 2.2  # seconds after its imports at which a script is struck
CALLS = 60
FAULTS = ("worker_failed", "sender_failed", "fork_step_failed", "Fatal Python error")

START = """
import faulthandler, os, signal, sys, threading, time
faulthandler.register(signal.SIGUSR1)
from concurrent.futures import ThreadPoolExecutor
from ratelimited_llm import OpenAI, QueueManager, RateLimitedExecutor
client = OpenAI(min_interval=0.01, max_concurrency=8)
blocking = client.with_options(mode="blocking")
def ask(number, client=client, **more):
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": str(number)}], **more)
def text(answer):
    return answer.choices[0].message.content
print("ready", flush=True)
"""
# Each makes CALLS calls, or calls of a function, unless it is struck.
SCRIPTS = {
    "drained": "answers = [ask(n) for n in range(60)]",
    "read": "for answer in [ask(n) for n in range(60)]: text(answer)",
    "mapped": "client.map(lambda n: text(ask(n)), range(60))",
    "gathered": "client.gather([ask(n) for n in range(60)])",
    "in a with block": """
        with client:
            text([ask(n) for n in range(60)][-1])
    """,
    "one by one": "for n in range(60): ask(n, blocking)",
    "in a pool": """
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: text(ask(n, blocking)), range(60)))
    """,
    "in threads": """
        def work():
            for n in range(15): text(ask(n))
        for _ in range(4): threading.Thread(target=work).start()
    """,
    "in threads, blocking": """
        def work():
            for n in range(15): ask(n, blocking)
        for _ in range(4): threading.Thread(target=work).start()
    """,
    "called back": """
        for answer in [ask(n) for n in range(30)]: answer.add_done_callback(lambda _: ask("more"))
    """,
    "streams": """
        for stream in [ask("word " * 20, stream=True) for _ in range(60)]:
            for chunk in stream: pass
    """,
    "a journal": """
        client = OpenAI(min_interval=0.01, journal=os.environ["JOURNAL"])
        for answer in [ask(f"{time.time()} {n}", client) for n in range(60)]: text(answer)
    """,
    "a shared budget": """
        client = OpenAI(rpm=6_000, budget="sqlite:///" + os.environ["JOURNAL"] + ".budget")
        answers = [ask(n, client) for n in range(60)]
    """,
    "a manager": """
        manager = QueueManager(client=client)
        for n in range(60):
            body = {"model": "m", "messages": [{"role": "user", "content": str(n)}]}
            manager.enqueue_request("chat.completions", body)
    """,
    "two keys": """
        other = OpenAI(min_interval=0.02, api_key="sk-other")
        answers = [ask(n, one) for n in range(30) for one in (client, other)]
    """,
    "a function": """
        executor = RateLimitedExecutor(min_interval=0.01, max_concurrency=4)
        for n in range(60): executor.submit(ask, n, blocking)
    """,
}


@dataclass
class Ending:
    """One run.

    Attributes:
        script: its name.
        strikes: signals, each so many seconds after the one before; the first after the script's imports.
    """

    script: str
    strikes: tuple[tuple[float, signal.Signals], ...] = ()


def ended(ending: Ending, folder: Path, python: tuple[str, ...] = (sys.executable,)) -> list[str]:
    """Let it end; answers what was wrong."""
    with Simulator("openai", answer="echo", latency=0.03) as provider:
        child = subprocess.Popen(
            [*python, "-c", START + textwrap.dedent(SCRIPTS[ending.script])],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={
                **os.environ, **provider.env(), "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(PACKAGE),
                "JOURNAL": str(folder / "run.db"), "RATELIMITED_LLM_PROGRESS": "none",
            },
        )  # fmt: skip
        assert child.stdout is not None
        child.stdout.readline()
        for seconds, strike in ending.strikes:
            time.sleep(seconds)
            child.send_signal(strike)
        try:
            _, said = child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGUSR1)
            time.sleep(0.5)
            child.kill()
            return [f"it hung: {child.communicate()[1]}"]
        answered = provider.counters.answered
    wrong = [f"it said {fault!r}: {said}" for fault in FAULTS if fault in said and len(ending.strikes) < 2]
    if child.returncode not in _expected(ending):
        wrong.append(f"it ended with {child.returncode}: {said}")
    if not ending.strikes and answered != CALLS:
        wrong.append(f"{answered} of {CALLS} calls were answered: {said}")
    return wrong


def _expected(ending: Ending) -> set[int]:
    strikes = {strike for _, strike in ending.strikes}
    well = {0, 1} if signal.SIGINT in strikes else {0}  # 1: it came as an error of something else, and nobody caught it
    return well | {-strike for strike in strikes} | {128 + strike for strike in strikes}


def any_ending(rng: random.Random) -> Ending:
    """One of all that can be."""
    many = rng.choice((0, 0, 1, 1, 1, 2))
    strike = rng.choice((signal.SIGINT,) * 5 + (signal.SIGTERM,))
    waits = [rng.random() * LATEST, rng.choice((0.0, 0.001, 0.05, 0.5))]
    return Ending(rng.choice(sorted(SCRIPTS)), tuple((seconds, strike) for seconds in waits[:many]))


def main() -> None:
    """Let many scripts end, print what was wrong with each, and end with 1 if anything was."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    rng, found = random.Random(options.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as folder, suppress(KeyboardInterrupt):
        for number in range(options.runs):
            ending = any_ending(rng)
            wrong = ended(ending, Path(folder))
            found["wrong" if wrong else "good"] += 1
            for each in wrong:
                print(f"run {number}, {ending}: {each}", flush=True)
    print(", ".join(f"{count} {what}" for what, count in found.items()))
    sys.exit(found["wrong"] > 0)


if __name__ == "__main__":
    main()
