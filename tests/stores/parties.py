"""Several real processes that share one budget and send to one provider, for as long as they are let."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# The provider's bucket holds a second's worth. The processes take less than half of it at once, so that what the
# network does to the order of arrivals is nothing that it could refuse.
RPM, SMOOTH, BURST = 12_000, 1.0, 60

OWN_CALLS = """
import http.client, json, sys, threading, time
from urllib.parse import urlsplit
from ratelimited_llm import RateLimitedExecutor

provider, budget = sys.argv[1:3]
seconds, rpm, burst = map(float, sys.argv[3:6])
body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5})
place, mine, statuses, longest = urlsplit(provider), threading.local(), {}, 0.0

def send(n):
    if not hasattr(mine, "connection"):
        mine.connection = http.client.HTTPConnection(place.hostname, place.port, timeout=10)
    mine.connection.request("POST", place.path + "/chat/completions", body, {"Authorization": "Bearer k"})
    answer = mine.connection.getresponse()
    answer.read()
    return answer.status

executor = RateLimitedExecutor(rpm=rpm, burst=int(burst), budget=budget, budget_name="party")
print("ready", flush=True)
sys.stdin.readline()
end, futures = time.monotonic() + seconds, []
while time.monotonic() < end:
    started = time.monotonic()
    futures.append(executor.submit(send, len(futures)))
    longest = max(longest, time.monotonic() - started)
    time.sleep(0.001 if len(futures) < 200 else 1.0 / 300)
executor.shutdown(cancel_futures=True)
for future in futures:
    error = None if future.cancelled() else future.exception()
    what = "cancelled" if future.cancelled() else type(error).__name__ if error else future.result()
    statuses[str(what)] = statuses.get(str(what), 0) + 1
print(json.dumps({"statuses": statuses, "longest": longest, "submitted": len(futures)}), flush=True)
"""


@dataclass
class Outcome:
    """What one process has to tell: how its calls ended, how many it submitted, and its longest submit."""

    statuses: dict[str, int] = field(default_factory=dict)
    longest: float = 0.0
    submitted: int = 0
    said: str = ""

    @property
    def answered(self) -> int:
        return self.statuses.get("200", 0)


class Party:
    """Processes that start together. Use it in a `with` block: none outlives it.

    Args:
        script: what each of them runs.
        arguments: of each; see `OWN_CALLS`.
        number: how many.
    """

    def __init__(self, arguments: Sequence[Any], number: int, script: str = OWN_CALLS) -> None:
        self._children = [
            subprocess.Popen(
                [sys.executable, "-c", script, *map(str, arguments)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for _ in range(number)
        ]  # fmt: skip

    def __enter__(self) -> Party:
        return self

    def __exit__(self, *error: object) -> None:
        for child in self._children:
            child.kill()
        for child in self._children:
            child.communicate()

    def start(self) -> float:
        """Let them begin, when all are ready; answers when that was."""
        for child in self._children:
            assert child.stdout is not None
            line = child.stdout.readline()
            assert line == "ready\n", (line, child.communicate()[1])
        for child in self._children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        return time.monotonic()

    def end(self, timeout: float = 20.0) -> list[Outcome]:
        """Wait for them; what each has to tell."""
        outcomes = []
        for child in self._children:
            told, said = child.communicate(timeout=timeout)
            assert child.returncode == 0, said
            outcomes.append(Outcome(**json.loads(told), said=said))
        return outcomes
