"""kill -9 at random points of journalled runs: nothing that anybody has seen is lost, and little is sent twice.

    python tests/faults/kills.py --kills 100

A run asks 300 questions with 8 in flight and says each answer as soon as it has it. It is killed, its journal is looked
at, and it is started again, until the kills are used up; then one run ends in peace. The runs wait in every way there
is: futures, threads, and streams in both. The provider answers the same question differently each time, so an answer
that is in the journal can only be the one that was given.
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

from ratelimited_llm.simulator import Simulator
from ratelimited_llm.stores.journal import Journal

WIDTH = 8
PATIENCE = 60.0  # seconds that a run may take
SETTLED = 0.05  # seconds without a request after which a dead run's last ones have arrived

CHILD = """
import json, os, sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from ratelimited_llm import OpenAI

path, mode, streams, calls = sys.argv[1], sys.argv[2], sys.argv[3] == "streams", int(sys.argv[4])
def say(*what):
    os.write(1, json.dumps(what).encode() + b"\\n")
say("ready")
client = OpenAI(journal=path, max_concurrency=8, rpm=100_000, mode=mode)
def ask(number):
    message = {"role": "user", "content": f"question {number}"}
    return client.chat.completions.create(model="m", messages=[message], stream=streams)
def tell(number, answer):
    if streams:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
    else:
        text = answer.choices[0].message.content
    say(number, text)
with ThreadPoolExecutor(2 * 8) as threads:
    if mode == "blocking":
        list(threads.map(lambda number: tell(number, ask(number)), range(calls)))
    else:
        futures = {ask(number): number for number in range(calls)}
        work = map if not streams else threads.map  # a stream keeps its place until somebody reads it
        list(work(lambda future: tell(futures[future], future), as_completed(futures)))
status = client.status()
say("end", status.perhaps_paid, status.replayed, status.answered, status.queued, status.in_flight)
"""


@dataclass
class Found:
    """What was seen of one campaign: the runs of one script on one journal.

    Attributes:
        kills: runs that were killed before their end.
        told: answers that were seen, in all runs.
        sent, twice: requests; and those of them that were not the first for their question.
        most_twice: the most questions that one kill left in flight.
        claims: the most calls that a kill left as perhaps paid in the file.
        wrong: everything that must not be.
    """

    kills: int = 0
    told: int = 0
    sent: int = 0
    twice: int = 0
    most_twice: int = 0
    claims: int = 0
    wrong: list[str] = field(default_factory=list)


class Campaign:
    """One journal and the runs that are killed over it.

    Args:
        directory: where the journal is.
        streams: whether the answers are streams.
        calls: questions.
        rng: when and how.
        longest: seconds after its start within which a run is killed.
    """

    def __init__(self, directory: Path, *, streams: bool, calls: int, rng: random.Random, longest: float) -> None:
        self.path = directory / "run.db"
        self.streams = streams
        self.calls = calls
        self.rng = rng
        self.longest = longest
        self.found = Found()
        self.modes: Counter[str] = Counter()

    def run(self, kills: int) -> Found:
        """Kill that many runs, or as many as it takes until everything is answered; then let one end."""
        with Simulator(latency=(0.01, 0.05), output_tokens=(5, 20), answer="text") as provider:
            self.provider = provider
            while self.found.kills < kills and len(self.answers()) < self.calls:
                self._killed_run()
            self._last_run()
            self.found.sent = len(provider.log)
        self.found.twice = self.found.sent - self.calls
        if self.found.twice > WIDTH * self.found.kills:
            self._wrong(f"{self.found.twice} sent twice in {self.found.kills} kills")
        return self.found

    def _wrong(self, text: str) -> None:
        self.found.wrong.append(f"{'streams' if self.streams else 'answers'}, kill {self.found.kills}: {text}")

    # -- the runs -----------------------------------------------------------------------------------------------------

    def _start(self) -> subprocess.Popen[bytes]:
        mode = self.rng.choice(["future", "blocking"])
        self.modes[mode] += 1
        shape = "streams" if self.streams else "answers"
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, str(self.path), mode, shape, str(self.calls)],
            stdout=subprocess.PIPE, env={**os.environ, **self.provider.env()},
        )  # fmt: skip

    def _killed_run(self) -> None:
        before, begun = self.answers(), len(self.provider.log)
        child = self._start()
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(self.rng.uniform(0.0, self.longest))
        child.send_signal(signal.SIGKILL)
        told = self._told(child.communicate()[0])
        if child.returncode == -signal.SIGKILL:
            self.found.kills += 1
        self._settle()
        self._check_file()
        after = self.answers()
        self._check(told, before, after, begun)
        left = {self._number(each) for each in self.provider.log[begun:]} - after.keys()
        claims = self._claims()
        self.found.most_twice = max(self.found.most_twice, len(left))
        self.found.claims = max(self.found.claims, claims)
        if max(len(left), claims) > WIDTH:
            self._wrong(f"{len(left)} were in flight, {claims} are perhaps paid")

    def _last_run(self) -> None:
        before, begun, claims = self.answers(), len(self.provider.log), self._claims()
        child = self._start()
        watch = threading.Timer(PATIENCE, child.kill)
        watch.start()
        out, _ = child.communicate()
        watch.cancel()
        if child.returncode:
            self._wrong(f"the last run ended with {child.returncode}")
            return
        self._check_file()
        after, told = self.answers(), self._told(out)
        self._check(told, before, after, begun)
        if len(told) != self.calls or told != after:
            self._wrong(f"the last run told {len(told)} answers, the journal has {len(after)}")
        missing = self.calls - len(before)
        end = json.loads(out.splitlines()[-1])
        if end != ["end", claims, len(before), missing, 0, 0] or len(self.provider.log) - begun != missing:
            self._wrong(f"{missing} were missing, {claims} perhaps paid; {end}, {len(self.provider.log) - begun} sent")

    # -- what must hold -----------------------------------------------------------------------------------------------

    def _check(self, told: dict[int, str], before: dict[int, str], after: dict[int, str], begun: int) -> None:
        self.found.told += len(told)
        lost = [number for number, text in told.items() if after.get(number) != text]
        if lost:
            self._wrong(f"answers that were seen and are not in the journal: {lost}")
        if any(after.get(number) != text for number, text in before.items()):
            self._wrong("an answer of an earlier run has changed")
        again = sorted({self._number(each) for each in self.provider.log[begun:]} & before.keys())
        if again:
            self._wrong(f"sent although they were answered: {again}")

    def _check_file(self) -> None:
        if not self.path.exists():
            return
        with contextlib.closing(sqlite3.connect(self.path)) as file:
            if file.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                self._wrong("the file is corrupt")
        with Journal(self.path) as journal:
            if journal.stats().answered != len(self.answers()) or journal.trouble:
                self._wrong(f"the journal cannot be used: {journal.trouble}")

    def _settle(self) -> None:
        """Wait for what a dead run had written to its sockets."""
        seen = -1
        while seen != len(self.provider.log) or self.provider.counters.in_flight:
            seen = len(self.provider.log)
            time.sleep(SETTLED)

    def answers(self) -> dict[int, str]:
        """What is in the journal: the number of the question, and the answer."""
        rows = self._rows("SELECT a.request, a.body FROM calls c JOIN answers a ON a.id = c.answer")
        answers = {}
        for request, body in rows:
            prompt = json.loads(request)["messages"][0]["content"]
            answers[int(prompt.split()[1])] = _text_of_stream(body) if self.streams else _text_of(json.loads(body))
        return answers

    def _claims(self) -> int:
        return len(self._rows("SELECT 1 FROM calls WHERE run IS NOT NULL"))

    def _rows(self, query: str) -> list[Any]:
        if not self.path.exists():
            return []
        with contextlib.closing(sqlite3.connect(self.path)) as file:
            try:
                return file.execute(query).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):  # it was killed before the first commit
                    return []
                raise

    @staticmethod
    def _number(record: Any) -> int:
        return int(record.tag.split()[1])

    @staticmethod
    def _told(out: bytes) -> dict[int, str]:
        told = [json.loads(line) for line in out.splitlines() if line.endswith(b"]")]
        return {each[0]: each[1] for each in told if isinstance(each[0], int)}


def _text_of(answer: Any) -> str:
    return str(answer["choices"][0]["message"]["content"])


def _text_of_stream(body: bytes) -> str:
    events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ") and "[DONE]" not in line]
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def main() -> None:
    """Kill as often as asked, print what was found, and end with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--longest", type=float, default=1.5, help="seconds after its start when a run is killed")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)
    print(f"seed {seed}")
    rng, done, began = random.Random(seed), 0, time.monotonic()
    wrong: list[str] = []
    sums: Counter[str] = Counter()
    while done < options.kills:
        with tempfile.TemporaryDirectory() as directory:
            campaign = Campaign(
                Path(directory), streams=rng.random() < 0.5, calls=options.calls, rng=rng, longest=options.longest
            )
            found = campaign.run(options.kills - done)
        done += found.kills
        wrong += found.wrong
        sums.update(told=found.told, sent=found.sent, twice=found.twice, campaigns=1, **campaign.modes)
        for name in ("most_twice", "claims"):
            sums[name] = max(sums[name], getattr(found, name))
        print(f"{'streams' if campaign.streams else 'answers'}: {found}", flush=True)
    print(f"{done} kills in {time.monotonic() - began:.0f} s: {dict(sums)}")
    print("\n".join(wrong) or "nothing was lost, no file was corrupt")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
