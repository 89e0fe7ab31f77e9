"""What a gateway costs: added latency, requests per second, and a thousand open streams; beside the provider alone.

    python tests/benchmarks/gateway.py [--streams 1000] [--calls 400]

The provider (the simulator) and the gateway are processes of their own; every round asks both, in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time

import httpx

PROVIDER = """
import sys
from ratelimited_llm.simulator import Simulator
per_token, tokens = float(sys.argv[1]), int(sys.argv[2])
provider = Simulator("openai", per_token_latency=per_token, output_tokens=tokens).start()
print(provider.base_url, flush=True)
sys.stdin.read()
"""
BODY = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "hello, how are you today?"}]}


def provider(per_token: float, tokens: int) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-c", PROVIDER, str(per_token), str(tokens)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def gateway(base_url: str) -> tuple[subprocess.Popen[str], str]:
    environment = {**os.environ, "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "k", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-m", "ratelimited_llm", "serve", "--port", "0"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    found = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
    assert found is not None
    return process, found[0] + "/v1"


async def one(client: httpx.AsyncClient, url: str) -> float:
    began = time.perf_counter()
    response = await client.post(url + "/chat/completions", json=BODY, headers={"authorization": "Bearer k"})
    assert response.status_code == 200, response.text
    return time.perf_counter() - began


async def warm(client: httpx.AsyncClient, *urls: str) -> None:
    """Past the ramp that every first burst to a new provider takes (8 calls in 0.1 s, then twice as many, ...)."""
    for url in urls:
        for _ in range(10):
            await asyncio.gather(*[one(client, url) for _ in range(100)])


async def latency(direct: str, through: str, calls: int) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        await warm(client, direct, through)
        times: dict[str, list[float]] = {direct: [], through: []}
        for _ in range(calls):
            for url in (direct, through):
                times[url].append(await one(client, url))
    told = {url: sorted(each) for url, each in times.items()}
    for name, share in (("p50", 0.5), ("p95", 0.95)):
        alone, ours = (1000 * told[url][int(share * calls)] for url in (direct, through))
        print(f"latency {name}: {alone:.2f} ms alone, {ours:.2f} ms through the gateway: {ours - alone:+.2f} ms")


async def throughput(direct: str, through: str, calls: int) -> None:
    async with httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=32)) as client:
        rates = {}
        for url in (direct, through, direct, through):
            began = time.perf_counter()
            await asyncio.gather(*[one(client, url) for _ in range(calls)])
            rates.setdefault(url, []).append(calls / (time.perf_counter() - began))
    alone, ours = (statistics.median(rates[url]) for url in (direct, through))
    print(f"32 at a time: {alone:.0f} requests/s alone, {ours:.0f} through the gateway")


async def stream(client: httpx.AsyncClient, url: str, gate: asyncio.Semaphore, seen: list[float]) -> int:
    """One stream; answers its events."""
    events = 0
    async with gate:
        pass
    began = time.perf_counter()
    async with client.stream("POST", url + "/chat/completions", json={**BODY, "stream": True}, timeout=120) as response:
        assert response.status_code == 200, response.status_code
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                if not events:
                    seen.append(time.perf_counter() - began)
                events += 1
    return events


async def streams(url: str, many: int, root: str) -> None:
    limits = httpx.Limits(max_connections=None)
    clients = [httpx.AsyncClient(trust_env=False, limits=limits) for _ in range(max(1, many // 32))]
    gate, seen = asyncio.Semaphore(1), list[float]()
    began = time.perf_counter()
    tasks = [asyncio.ensure_future(stream(clients[n % len(clients)], url, gate, seen)) for n in range(many)]
    most = 0
    async with httpx.AsyncClient(trust_env=False, timeout=60) as watcher:
        while not all(task.done() for task in tasks):
            if root:
                told = (await watcher.get(root + "/v1/queue/stats")).json()
                most = max(most, told["streams"])
            await asyncio.sleep(0.5)
    events = await asyncio.gather(*tasks, return_exceptions=True)
    seconds = time.perf_counter() - began
    whole = sum(isinstance(each, int) and each > 2 for each in events)
    for client in clients:
        await client.aclose()
    others = {type(each).__name__ for each in events if not isinstance(each, int)}
    where = f"; at most {most} open at once, by the gateway's own count" if root else " (the provider alone)"
    begin = statistics.median(seen) if seen else float("nan")
    print(f"{many} streams: {whole} whole in {seconds:.1f} s, {sum(e for e in events if isinstance(e, int)):,} events, "
          f"first after {begin:.2f} s (median){where} {others or ''}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=20.0, help="that a stream lasts")
    args = parser.parse_args()
    for per_token, tokens in ((0.0, 20), (args.seconds / 10, 10)):
        process, direct = provider(per_token, tokens)
        served, through = gateway(direct)
        try:
            if not per_token:
                asyncio.run(latency(direct, through, args.calls))
                asyncio.run(throughput(direct, through, args.calls))
            else:
                asyncio.run(streams(direct, args.streams, ""))
                asyncio.run(streams(through, args.streams, through.removesuffix("/v1")))
                print(
                    "health:", json.dumps(httpx.get(through.removesuffix("/v1") + "/healthz", trust_env=False).json())
                )
        finally:
            served.terminate()
            print("gateway ended with", served.wait(40))
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
