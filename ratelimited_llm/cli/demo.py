"""`ratelimited-llm demo`: one job run twice, as everybody writes it and with one import changed.

No key and no internet: it talks to the simulator of this package on loopback. Its limit is such that four fifths of the
job may go at once and the rest takes what a minute of sixty seconds refills, so the whole demo is over in half of one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .saying import USAGE, say

__all__ = ["add_parser", "run"]

MODEL = "gpt-4.1-mini"
MAX_TOKENS = 120
THREADS = 32  # what people put there
LATENCY = (0.2, 0.5)  # seconds of a call, from and to
AT_ONCE = 0.8  # of the job's calls that the limit of a minute lets go; the others take 60 * (1 / 0.8 - 1) = 15 s
ROOM = 1.5  # times the job's tokens: it is the requests that are limited here


@dataclass(frozen=True)
class Result:
    """What one way of doing the job took, and how its calls ended."""

    answered: int
    refused: int
    lost: int
    seconds: float
    share: float


def add_parser(subparsers: Any) -> None:
    """Add `demo` to the subparsers of a command line; parsed arguments carry `run`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "demo",
        help="one job run twice against a simulated provider: a thread pool, then one import changed",
        description="Run the same job twice against a simulated provider on this machine: with a thread pool, as "
        "everybody writes it, and with one import changed. Needs no key and no internet, and spends nothing.",
    )
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="JSON lines with a 'prompt' each")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 when every call of the second run was answered."""
    try:
        prompts = read_prompts(args.prompts or shipped_prompts())
    except (OSError, ValueError, KeyError, TypeError) as error:
        return say("demo", f"cannot read the prompts: {error}", USAGE)
    tokens = sum(len(prompt.encode()) for prompt in prompts) // 4
    rpm, tpm = _limits(prompts, tokens)
    print(f"{len(prompts)} prompts, about {tokens:,} tokens, to a simulated provider on this machine that allows")
    print(f"{rpm} requests and {tpm:,} tokens a minute. Twice, each time with the whole limit at hand:\n")
    print(f"{'':26}{'answered':>10}{'429s':>7}{'lost':>7}{'time':>10}{'limit used':>13}", flush=True)
    _show("thread pool, as is", len(prompts), _measured(_with_thread_pool, prompts, rpm, tpm))
    ours = _measured(_with_one_import_changed, prompts, rpm, tpm)
    _show("one import changed", len(prompts), ours)
    _next_step()
    return 0 if ours.answered == len(prompts) else 1


def _limits(prompts: list[str], tokens: int) -> tuple[int, int]:
    """Requests and tokens a minute that the job does not fit into at once, whatever its size."""
    reserved = ROOM * (tokens + MAX_TOKENS * len(prompts))
    return max(1, round(AT_ONCE * len(prompts))), math.ceil(reserved / 1000) * 1000


def _with_thread_pool(prompts: list[str], client_options: dict[str, Any]) -> list[bool]:
    from openai import APIError, OpenAI

    with OpenAI(**client_options) as client, ThreadPoolExecutor(THREADS) as pool:

        def ask(prompt: str) -> bool:
            try:
                answer = client.chat.completions.create(model=MODEL, messages=_messages(prompt), max_tokens=MAX_TOKENS)
            except APIError:
                return False
            return bool(answer.choices[0].message.content)

        return list(pool.map(ask, prompts))


def _with_one_import_changed(prompts: list[str], client_options: dict[str, Any]) -> list[bool]:
    from openai import APIError

    from ratelimited_llm import OpenAI

    with OpenAI(**client_options) as client:
        answers = [
            client.chat.completions.create(model=MODEL, messages=_messages(prompt), max_tokens=MAX_TOKENS)
            for prompt in prompts
        ]
        answered = []
        for answer in answers:
            try:
                answered.append(bool(answer.choices[0].message.content))
            except APIError:
                answered.append(False)
        return answered


def _messages(prompt: str) -> Any:
    return [{"role": "user", "content": prompt}]


def _measured(job: Callable[[list[str], dict[str, Any]], list[bool]], prompts: list[str], rpm: int, tpm: int) -> Result:
    """Run a job against a fresh provider, so that both find the same full limit."""
    from ..simulator import Simulator

    with Simulator("openai", rpm=rpm, tpm=tpm, latency=LATENCY, seed=1) as provider, _no_proxy():
        began = time.monotonic()
        answered = job(prompts, {"base_url": provider.base_url, "api_key": "sk-simulated"})
        seconds = time.monotonic() - began
        counted = provider.counters
        return Result(sum(answered), counted.refused, answered.count(False), seconds, provider.share_used())


@contextmanager
def _no_proxy() -> Iterator[None]:
    """Loopback needs no proxy, whatever the environment says; nothing but this demo talks meanwhile."""
    before = os.environ.get("NO_PROXY")
    os.environ["NO_PROXY"] = "127.0.0.1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["NO_PROXY"]
        else:
            os.environ["NO_PROXY"] = before


def _show(name: str, asked: int, result: Result) -> None:
    answered = f"{result.answered}/{asked}"
    share = f"{result.share:.1%}" if not result.lost else "-"  # of a job that lost calls it says nothing
    print(f"{name:26}{answered:>10}{result.refused:>7}{result.lost:>7}{result.seconds:>8.1f} s{share:>13}", flush=True)


def _next_step() -> None:
    print('\nNext: put "ratelimited_llm" in front of your import:   from ratelimited_llm import OpenAI')
    if os.environ.get("OPENAI_API_KEY"):
        print("OPENAI_API_KEY is set and was not used. The same on the real thing, for your money, when you want it:")
        print("    python examples/01_drop_in.py")
    print("Rehearse your own script without a key:                ratelimited-llm sim -- python your_script.py")


def shipped_prompts() -> Path:
    """The file of prompts that comes with the package, or stands in `examples/` of a checkout."""
    installed = Path(__file__).with_name("prompts.jsonl")
    return installed if installed.exists() else Path(__file__).parents[2] / "examples" / "prompts.jsonl"


def read_prompts(path: Path) -> list[str]:
    """Read the prompts of a file of JSON lines.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is no JSON object with a "prompt" that is text; names the line.
    """
    prompts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: no JSON: {error}") from None
        prompt = row.get("prompt") if isinstance(row, dict) else None
        if not isinstance(prompt, str):
            raise ValueError(f'{path}, line {number}: no object with a "prompt" that is text')
        prompts.append(prompt)
    if not prompts:
        raise ValueError(f"{path} has no prompts")
    return prompts
