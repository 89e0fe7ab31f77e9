"""How near an estimate comes to the real run: both against the simulator, over real sockets.

    python tests/benchmarks/estimate.py            # all: about eight minutes
    python tests/benchmarks/estimate.py tpm        # those with this word in their name

The estimate is made before the run, by a client that has learned nothing; `error` is how far it was from the end.
Nothing here takes part in the test suite; `tests/cost/test_estimate.py` does the same at a small scale.
"""

from __future__ import annotations

import io
import json
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

from ratelimited_llm import providers, shared_workers
from ratelimited_llm.batch.estimate import estimate
from ratelimited_llm.openai import OpenAI
from ratelimited_llm.simulator import Simulator

Scenario = tuple[str, str, dict[str, Any], dict[str, Any], list[dict[str, Any]]]
LATENCY = 0.5
OUTPUT = 40
HOSTS = providers._HOSTS


def chats(count: int, size: tuple[int, int] = (100, 400), **options: Any) -> list[dict[str, Any]]:
    """Bodies of so many chat calls, of a text with so many bytes, the least and the most."""
    chance = random.Random(1)
    return [
        {"model": "m", "messages": [{"role": "user", "content": "word " * (chance.randint(*size) // 5)}], **options}
        for _ in range(count)
    ]


def scenarios() -> Iterator[Scenario]:
    """Name, provider, limits of both, options of the client alone, calls."""
    yield "rpm", "openai", {"rpm": 600}, {}, chats(1_000)
    yield "rpm with a small burst", "openai", {"rpm": 1_200, "smooth": 2.0}, {"burst": 40}, chats(1_000)
    yield "tpm", "openai", {"tpm": 60_000}, {}, chats(600, (400, 1_600))
    yield "rpm and tpm", "openai", {"rpm": 500, "tpm": 80_000}, {}, chats(800, (40, 1_600))
    yield "tpm, settled", "groq", {"tpm": 60_000}, {}, chats(800, (100, 800), max_tokens=400)
    yield "in flight", "openai", {}, {"rpm": 1e6, "max_concurrency": 10}, chats(1_000)


def lines(bodies: list[dict[str, Any]]) -> io.BytesIO:
    """The same as the input of a batch."""
    return io.BytesIO(b"".join(json.dumps(body).encode() + b"\n" for body in bodies))


def measure(provider: str, limits: dict[str, Any], options: dict[str, Any], bodies: list[dict[str, Any]]) -> Any:
    """The estimate, and the seconds that the run took."""
    shared_workers.forget()
    providers._HOSTS = (("127.0.0.1", provider), *HOSTS)  # who answers at this address is known, as it is in the world
    known = {name: value for name, value in limits.items() if name != "smooth"}
    with (
        Simulator(provider, latency=LATENCY, output_tokens=OUTPUT, **limits) as simulator,
        OpenAI(api_key="sk-none", base_url=simulator.base_url, progress=False, **known, **options) as client,
    ):
        foreseen = estimate(client, lines(bodies), latency=LATENCY, output_tokens=OUTPUT)
        began = time.monotonic()
        answers = [client.chat.completions.create(**body) for body in bodies]
        for answer in answers:
            assert answer.choices
        return foreseen, time.monotonic() - began, simulator.counters.refused


def main(word: str = "") -> None:
    print(f"{'scenario':26s} {'calls':>6s} {'estimate':>9s} {'measured':>9s} {'error':>7s}  binds        refused")
    for name, provider, limits, options, bodies in scenarios():
        if word in name:
            foreseen, took, refused = measure(provider, limits, options, bodies)
            error = foreseen.seconds / took - 1.0
            print(f"{name:26s} {len(bodies):6d} {foreseen.seconds:9.2f} {took:9.2f} {error:+7.2%}  "
                  f"{foreseen.binds!s:12s} {refused}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:2])
