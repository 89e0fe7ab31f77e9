"""The fault campaign: rains of trouble over real sockets, and what must hold in each of them.

    python tests/faults/campaign.py --seed 1 --calls 2000 --rounds 5

Every round is a process of its own (`rain.py`) in which 16 threads ask `calls` questions in every way there is
(`ways.py`), while a hostile provider (`hostile.py`) answers four of ten with trouble; and in the middle (`middle.py`),
in an order that the seed gives, the process is forked, stopped and put to sleep, its clocks jump, threads, files and
the disk run out, the limit changes, and the provider is gone for a while. Afterwards:

1. every call has ended, with its own answer or with an error that the plain SDK could have raised;
2. nobody was given anything of another call, an error's words and a part of a stream included;
3. no call was tried more than three times beyond refusals, and all together no more than 1.1 times each, beyond the
   few retries that are always there (`RetryBudget`; how few is set here, so that they are soon spent);
4. within 10 seconds there is full rate again, and each client can have as many calls in flight as before;
5. no thread, no file and no socket is left when the clients are closed;
6. what the journal has are the answers to its questions, and of the answered ones it has all.

A provider that answers with another call's words tells them to whom it answers: here it never does, since each reply is
made of its own request. So whoever is given another's tag was given it by us, or by an HTTP client that reads what an
earlier reply has left in its connection.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # pytest imports files without their directory
from hostile import Hostile
from middle import MIDDLE as IN_THE_PROCESS

from ratelimited_llm.core.retry import RetryBudget

HERE = ("stop", "suspend", "limits", "outage")  # what is done, or done too, by whoever started the process
MIDDLE = tuple(dict.fromkeys([*HERE, *IN_THE_PROCESS]))
FULL_RATE = 10.0  # seconds within which there must be full rate again
STOPPED = 1.2  # seconds: longer than the clients' patience with an attempt
OUTAGE = 2.0
LOWER = 3_000  # requests a minute, told for a while instead of 60,000
PATIENCE = 240.0  # seconds that a round may take
RESERVE = 5  # retries that each worker always has; the library's own hundred would last for most of a round
WORKERS = 3  # the clients share one; the executor and the manager have their own
ATTEMPTS = 3  # of one call, beyond refusals: the SDKs' two retries
# What an SDK makes something of that is no answer: then there is nothing to compare, and no error either.
NO_ANSWER = frozenset({"other_json", "deep_json", "broken_json", "empty_status", "stream_that_is_none", "both_lengths",
                       "body_longer_than_told", "stream_of_broken_chunks", "gzip_garbage", "no_gzip_at_all",
                       "stream_of_broken_json", "stream_truncated", "truncated", "rejected"})  # fmt: skip
# Errors of the SDKs, of what is below them, and of ours; and what JSON of 20,000 levels is to Python.
EXPECTED = ("openai.", "groq.", "anthropic.", "httpx.", "httpx2.", "requests.", "json.decoder.", "ratelimited_llm.",
            "builtins.OSError: [Errno 24]", "builtins.RecursionError", "builtins.UnicodeDecodeError", "urllib3.",
            "builtins.RuntimeError: can't start new thread")  # fmt: skip


@dataclass
class Found:
    """What was seen in one round.

    Attributes:
        calls, answered, failed, odd, given_up: what became of the calls.
        requests, refused: what arrived at the provider, and of it what a limit is said to have refused.
        rained, recovered: seconds of the rain, and until there was full rate again.
        wrong: everything that must not be.
    """

    calls: int
    answered: int = 0
    failed: int = 0
    odd: int = 0
    given_up: int = 0
    requests: int = 0
    refused: int = 0
    rained: float = 0.0
    recovered: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter, repr=False)
    errors: Counter[str] = field(default_factory=Counter, repr=False)
    wrong: list[str] = field(default_factory=list)


class Round:
    """One rain.

    Args:
        directory: for the journal.
        seed: of everything.
        calls: questions.
        middle: what happens in the middle, in this order.
        trouble: the share of requests that get into trouble.
        quick: whether all that takes time takes less: attempts, stops, outages, and the pauses after trouble.
    """

    def __init__(
        self, directory: Path, *, seed: int, calls: int, middle: list[str], trouble: float = 0.4, quick: bool = False
    ) -> None:
        self.journal = directory / "run.db"
        self.seed, self.calls, self.middle, self.trouble, self.quick = seed, calls, middle, trouble, quick
        self.found = Found(calls)

    def run(self) -> Found:
        """Let it rain, and judge."""
        with Hostile(seed=self.seed, trouble=self.trouble) as provider:
            self.provider = provider
            result = self._rain()
            if result is not None:
                self._judge(result)
                self._judge_journal({str(tag) for tag in result["kept"]})
        return self.found

    def _rain(self) -> dict[str, Any] | None:
        options = {
            "url": self.provider.url, "calls": self.calls, "seed": self.seed, "disturb": self.middle,
            "directory": str(self.journal.parent), "reserve": RESERVE,
            **({"rests": 0.02, "timeout": 0.4, "probes": 42, "width": 24} if self.quick else {}),
        }  # fmt: skip
        child = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("rain.py")), json.dumps(options)],
            stdout=subprocess.PIPE, env={**os.environ, "NO_PROXY": "127.0.0.1"},
        )  # fmt: skip
        watch = threading.Timer(PATIENCE, child.kill)
        watch.start()
        assert child.stdout is not None
        line = b""
        for line in child.stdout:
            self._middle(line.decode().strip(), child)
        child.stdout.close()
        watch.cancel()
        watch.join()
        if child.wait():
            self.found.wrong.append(f"the process ended with {child.returncode}")
            return None
        result: dict[str, Any] = json.loads(line)
        return result

    def _middle(self, name: str, child: subprocess.Popen[bytes]) -> None:
        self.provider.limit = LOWER if name == "limits" else 60_000
        if name in ("stop", "suspend"):
            child.send_signal(signal.SIGSTOP)
            time.sleep(STOPPED * (0.4 if self.quick else 1.0))
            child.send_signal(signal.SIGCONT)
        elif name == "outage":
            self.provider.down = True
            time.sleep(OUTAGE * (0.1 if self.quick else 1.0))
            self.provider.down = False

    # -- what must hold -----------------------------------------------------------------------------------------------

    def _judge(self, result: dict[str, Any]) -> None:
        found, provider = self.found, self.provider
        found.wrong += result["wrong"]
        outcomes: dict[str, list[str]] = {
            tag: outcome for tag, outcome in result["outcomes"].items() if not tag.startswith("probe")
        }
        missing = {str(number) for number in range(self.calls)} - outcomes.keys()
        if missing:
            found.wrong.append(f"{len(missing)} calls have not ended: {sorted(missing)[:20]}")
        for tag, (what, detail) in outcomes.items():
            self._judge_call(tag, what, detail)
        found.requests = sum(count for tag, count in provider.seen.items() if not tag.startswith("probe"))
        found.refused = provider.kinds["refused"] + provider.kinds["refused_without_words"]
        found.kinds = provider.kinds
        self._judge_attempts()
        found.rained = result["rained"]
        if result["recovered"] is None or result["recovered"] > FULL_RATE:
            found.wrong.append(f"full rate only after {result['recovered']} s")
        found.recovered = result["recovered"] or 0.0
        found.wrong += [f"{group}: only {came} at a time" for group, came in provider.narrow.items()]
        found.wrong += [f"left behind: {what}" for what in result["left"]]

    def _judge_attempts(self) -> None:
        found, provider = self.found, self.provider
        # The questions that are asked to see the rate earn retries as well.
        most = self.calls + RetryBudget().share * len(provider.seen) + RESERVE * WORKERS
        if found.requests - found.refused > most:
            found.wrong.append(f"a storm: {found.requests} requests, {found.refused} refused, of {self.calls} calls")
        for tag, count in provider.seen.items():
            tries = count - provider.done[tag]["refused"] - provider.done[tag]["refused_without_words"]
            if tries > ATTEMPTS:
                found.wrong.append(f"call {tag} was tried {tries} times: {dict(provider.done[tag])}")

    def _judge_call(self, tag: str, what: str, detail: str) -> None:
        found = self.found
        if what == "answered":
            found.answered += 1
        elif what == "odd":
            found.odd += 1
            if not NO_ANSWER & self.provider.done[tag].keys():
                found.wrong.append(f"call {tag} was given {detail}, after {dict(self.provider.done[tag])}")
        elif what == "given up":
            found.given_up += 1
        else:
            found.failed += 1
            found.errors[detail.partition(":")[0]] += 1
            if not detail.startswith(EXPECTED):
                found.wrong.append(f"call {tag} failed with {detail}")

    def _judge_journal(self, kept: set[str]) -> None:
        with contextlib.closing(sqlite3.connect(self.journal)) as file:
            if file.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                self.found.wrong.append("the journal is corrupt")
            query = "SELECT a.request, a.body FROM calls c JOIN answers a ON a.id = c.answer"
            answers = {json.loads(request)["messages"][0]["content"]: body for request, body in file.execute(query)}
        missing = kept - answers.keys()
        if missing:
            self.found.wrong.append(f"{len(missing)} answers are not in the journal: {sorted(missing)[:20]}")
        for tag, body in answers.items():
            text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)
            if "chatcmpl-" in text and f'"chatcmpl-{tag}"' not in text:
                self.found.wrong.append(f"the journal has for {tag}: {text[:80]!r}")


def main() -> None:
    """Rain as often as asked, print what was found, and end with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--calls", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="shorter pauses, stops and outages")
    parser.add_argument("--only", default=",".join(MIDDLE), help="what happens in the middle, with commas")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)
    print(f"seed {seed}")
    wrong: list[str] = []
    for number in range(options.rounds):
        middle = [name for name in options.only.split(",") if name]
        random.Random(seed + number).shuffle(middle)
        with tempfile.TemporaryDirectory() as directory:
            one = Round(
                Path(directory), seed=seed + number, calls=options.calls, middle=middle, quick=options.quick
            ).run()
        wrong += [f"round {number}: {each}" for each in one.wrong]
        print(f"round {number} ({', '.join(middle)}):\n  {one}")
        print(f"  errors: {dict(one.errors.most_common())}\n  provider: {dict(one.kinds.most_common())}", flush=True)
    print("\n".join(wrong) or "every call ended with what was its own, no storm, nothing left behind")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
