"""Memory and speed of a batch, measured: `python tests/benchmarks/batch.py --lines 1000000`. Run by hand.

The provider is a transport in this process that answers at once, so that what is measured is ours and the SDK's; its
answers are as long as short real ones. `--compare` does as many calls through a plain list of futures, on the same
client; `--answered` makes it a second run, which finds so many answers there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai

from ratelimited_llm import OpenAI
from ratelimited_llm.batch import Line, run_batch
from ratelimited_llm.batch.rows import answer_row

ANSWER = json.dumps({
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 40}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 60, "completion_tokens": 50, "total_tokens": 110},
}, indent=2).encode()  # fmt: skip

# A provider that tells no limit is approached with care, for as long as a minute.
HEADERS = {
    "content-type": "application/json", "x-request-id": "r",
    "x-ratelimit-limit-requests": "10000000", "x-ratelimit-remaining-requests": "9999999",
    "x-ratelimit-limit-tokens": "10000000000", "x-ratelimit-remaining-tokens": "9999999999",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that the provider thinks")
    parser.add_argument("--compare", action="store_true", help="against a plain list of calls")
    parser.add_argument("--answered", type=int, default=0, help="lines that an earlier run has answered")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        write_input(source, args.lines)
        print(f"{args.lines:,} lines, {source.stat().st_size / 2**20:,.0f} MB; at the start {rss():.0f} MB")
        if args.answered:
            write_answers(target, args.answered)
        with client_of(args.latency) as client:
            print(timed("batch", args.lines - args.answered, lambda: run_batch(client, source, target)))
    if args.compare:
        with client_of(args.latency) as client:
            timed("plain list", args.lines, lambda: plain(client, args.lines))


def plain(client: Any, count: int) -> None:
    """What a script does: all calls in a list, then their answers."""
    answers = [client.chat.completions.create(**body(number)) for number in range(count)]
    for answer in answers:
        assert answer.choices[0].message.content


def body(number: int) -> dict[str, Any]:
    text = f"Is review {number} positive or negative? It says: " + "the room was small and the breakfast good. " * 4
    return {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 64}


def write_input(path: Path, count: int) -> None:
    with path.open("w") as file:
        for number in range(count):
            row = {"custom_id": f"request-{number}", "method": "POST", "url": "/v1/chat/completions"}
            file.write(json.dumps({**row, "body": body(number)}) + "\n")


def write_answers(path: Path, count: int) -> None:
    with path.open("wb") as file:
        for number in range(count):
            line = Line(number + 1, f"request-{number}", "/v1/chat/completions", {})
            file.write(answer_row(line, 200, "r", json.loads(ANSWER)))


def client_of(latency: float) -> OpenAI:
    """A client whose provider is a function."""
    httpx: Any = sys.modules[openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]]

    def answer(request: Any) -> Any:
        if latency:
            time.sleep(latency)
        return httpx.Response(200, content=ANSWER, headers=HEADERS)

    return OpenAI(
        api_key="sk-none", http_client=httpx.Client(transport=httpx.MockTransport(answer)), max_concurrency=64
    )


def timed(name: str, count: int, work: Callable[[], Any]) -> Any:
    """Run it, and print its speed and the course of the memory."""
    course: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            course.append(rss())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began, cpu = time.perf_counter(), time.process_time()
    try:
        result = work()
    finally:
        over.set()
        watcher.join()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    shown = [*course[:: max(1, len(course) // 12)], rss()]
    print(f"{name}: {count / seconds:,.0f} calls/s, {1000 * cpu / count:.2f} ms CPU a call, {seconds:,.1f} s; "
          f"MB: {' '.join(f'{value:.0f}' for value in shown)}, most {max([*course, rss()]):.0f}")  # fmt: skip
    return result


def rss() -> float:
    """Megabytes of memory that the process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
