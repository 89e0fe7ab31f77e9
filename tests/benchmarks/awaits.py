"""What an `await` costs: our AsyncOpenAI beside the plain one, thousands of awaits at once on one loop, in one run.

    python tests/benchmarks/awaits.py

No network: httpx2's MockTransport answers every call after the same pause, so the rest is the client's own CPU. The two
take turns, and the cheapest round of each counts: whatever else a machine does only ever adds. A collection of the
garbage collector costs the more the more calls wait, for either client; the second half of the table is without it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from typing import Any

import httpx2
import openai

from ratelimited_llm.openai import AsyncOpenAI

MESSAGES: Any = [{"role": "user", "content": "Say in one word whether this review is positive: I would buy it again."}]
ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4.1-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 22, "completion_tokens": 2, "total_tokens": 24},
}  # fmt: skip
BASE_URL = "https://api.openai.com/v1"  # for its dialect; nothing is sent anywhere
LIMITS = {"requests": 10_000_000, "tokens": 1_000_000_000}


class Provider:
    """Answers after a pause, with the headers of a limit that nobody reaches."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.calls = 0

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.calls += 1
        used = self.calls % 1000
        headers = {"x-request-id": f"req_{self.calls}"}
        for name, limit in LIMITS.items():
            headers[f"x-ratelimit-limit-{name}"] = str(limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(limit - used)
            headers[f"x-ratelimit-reset-{name}"] = f"{used // 100}ms"
        await asyncio.sleep(self.latency)
        return httpx2.Response(200, json=ANSWER, headers=headers)


async def measure(kind: Any, calls: int, latency: float, **ours: Any) -> tuple[float, float]:
    """CPU microseconds a call, and seconds in all, of so many awaits at once."""
    transport = httpx2.MockTransport(Provider(latency))
    http_client = httpx2.AsyncClient(transport=transport)
    async with kind(api_key="sk-simulated", base_url=BASE_URL, http_client=http_client, **ours) as client:
        ask = client.chat.completions.create
        await ask(model="gpt-4.1-mini", messages=MESSAGES)
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        answers = await asyncio.gather(*[ask(model="gpt-4.1-mini", messages=MESSAGES) for _ in range(calls)])
        used = (time.process_time() - cpu) / calls * 1e6, time.perf_counter() - wall
        assert len(answers) == calls
        assert all(answer.choices[0].message.content for answer in answers)
        return used


def compare(calls: int, latency: float, rounds: int) -> None:
    """Run both in turn, and print the least CPU of each, the difference, and the medians of the times they take."""
    pairs = []
    for number in range(rounds):
        runs = {}
        for kind in (openai.AsyncOpenAI, AsyncOpenAI)[:: 1 if number % 2 else -1]:
            options = {"rpm": LIMITS["requests"], "tpm": LIMITS["tokens"]} if kind is AsyncOpenAI else {}
            runs[kind] = asyncio.run(measure(kind, calls, latency, **options))
        pairs.append((runs[openai.AsyncOpenAI], runs[AsyncOpenAI]))
    plain, ours = (min(cpu for cpu, _ in runs) for runs in zip(*pairs, strict=True))
    waits = [statistics.median(wall for _, wall in runs) for runs in zip(*pairs, strict=True)]
    name = f"{calls:,} at once" + ("" if gc.isenabled() else ", no collections")
    print(
        f"{name:34}{plain:9.0f} us{ours:9.0f} us{ours - plain:+9.0f} us{waits[0]:8.2f} s{waits[1]:8.2f} s",
        flush=True,
    )


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds that each answer takes")
    options = parser.parse_args()
    # The ramp of a first burst, which ends after some thousand calls and paces them by the clock until then.
    asyncio.run(measure(AsyncOpenAI, 6_000, 0.0, rpm=LIMITS["requests"], tpm=LIMITS["tokens"]))
    print(f"{'CPU a call':34}{'plain':>12}{'ours':>12}{'added':>12}{'plain':>10}{'ours':>10}")
    for collecting in (True, False):
        if not collecting:
            gc.disable()
        compare(options.calls, options.latency, options.rounds)
        compare(1_000, options.latency, options.rounds)
        compare(1, options.latency / 100, 20 * options.rounds)


if __name__ == "__main__":
    main()
