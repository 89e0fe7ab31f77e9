"""Several processes on one shared budget: how evenly they share 200 requests/s, and what a reservation costs.

    python tests/benchmarks/shared.py            eight processes for ten seconds, by Valkey and by a file
    python tests/benchmarks/shared.py --doors    the same with the SDK's client in each of them
    python tests/benchmarks/shared.py --kills    the server is stopped, hung and emptied under them, five times

Wants: never above the bound, nothing refused, and each process within 15 % of an even share.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "stores")]

from parties import BURST, OWN_CALLS, RPM, SMOOTH, Outcome, Party  # noqa: E402
from servers import KeyServer, valkey_server  # noqa: E402

from ratelimited_llm.simulator import Simulator  # noqa: E402

DOORS = """
import json, sys, time
from ratelimited_llm import OpenAI

provider, budget = sys.argv[1:3]
seconds, rpm, burst = map(float, sys.argv[3:6])
client = OpenAI(api_key="k", base_url=provider, rpm=rpm, burst=int(burst), budget=budget)
ask = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
longest, statuses, futures = 0.0, {}, []
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + seconds
while time.monotonic() < end:
    started = time.monotonic()
    futures.append(client.chat.completions.create(**ask))
    longest = max(longest, time.monotonic() - started)
    time.sleep(0.001 if len(futures) < 100 else 1.0 / 60)
client.shutdown(cancel_futures=True)
for future in futures:
    error = None if future.cancelled() else future.exception()
    name = type(error).__name__ if error else "200"
    what = "cancelled" if future.cancelled() or name == "WorkerStopped" else name
    statuses[what] = statuses.get(what, 0) + 1
print(json.dumps({"statuses": statuses, "longest": longest, "submitted": len(futures)}), flush=True)
"""


def measure(
    label: str, budget: str, script: str, seconds: float, number: int,
    meanwhile: Callable[[], None] = lambda: None,
) -> list[Outcome]:  # fmt: skip
    """Let them run, and say how it went."""
    with (
        Simulator("openai", rpm=RPM, smooth=SMOOTH, latency=0.02, log_size=100_000) as provider,
        Party([provider.base_url, budget, seconds, RPM, BURST], number, script) as party,
    ):
        party.start()
        trouble = threading.Thread(target=meanwhile)
        trouble.start()
        outcomes = party.end(timeout=seconds + 60.0)
        trouble.join()
        arrived = [each.arrived for each in provider.log]
        counters = provider.counters
    whole = arrived[-1] - arrived[0]
    answered = [each.answered for each in outcomes]
    mean = sum(answered) / number
    off = max(abs(each / mean - 1.0) for each in answered) if mean else 0.0
    longest = max(each.longest for each in outcomes)
    ended = all(sum(each.statuses.values()) == each.submitted for each in outcomes)
    print(
        f"{label:22} {counters.requests:6} sent, at most {BURST + RPM / 60 * whole:6.0f} ({counters.refused} refused); "
        f"shares within {off:5.1%}; longest submit {longest:.2f} s; nothing lost: {ended}"
    )
    return outcomes


def harass(server: KeyServer) -> None:
    """Stop, hang and empty it, in turns."""
    for _ in range(5):
        for trouble in (server.pause, server.resume, server.restart, server.stop, server.start):
            time.sleep(0.8)
            trouble()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--doors", action="store_true")
    parser.add_argument("--kills", action="store_true")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--processes", type=int, default=8)
    args = parser.parse_args()
    script = DOORS if args.doors else OWN_CALLS
    with valkey_server() as server, tempfile.TemporaryDirectory() as folder:
        if args.kills:
            measure("valkey, harassed", server.url, script, 24.0, args.processes, lambda: harass(server))
            return
        measure("valkey", server.url, script, args.seconds, args.processes)
        measure("sqlite", f"sqlite:///{folder}/budget.db", script, args.seconds, args.processes)


if __name__ == "__main__":
    main()
