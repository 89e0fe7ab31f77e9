"""Where a call's time goes: bytecodes of the interpreter a call, by part, beside the plain SDK's.

    python tests/benchmarks/work.py

A count, and no time: it says the same on a busy machine as on one at rest. What C code does is not in it, nor what
waking a thread costs; `calls.py` measures those too.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

sys.path.insert(0, os.path.dirname(__file__))
from calls import one_by_one, simulator

CALLS = 100
PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "ratelimited_llm")


class Counting:
    """Counts the bytecodes of all threads that begin while it is in place, and of this one."""

    def __init__(self) -> None:
        self.counts: Counter[CodeType] = Counter()
        self.on = False

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self.step

    def step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if self.on and event == "opcode":
            self.counts[frame.f_code] += 1
        return self.step

    def of(self, job: Callable[[int], None]) -> Counter[str]:
        """Bytecodes a call, by part."""
        threading.settrace(self)
        sys.settrace(self)
        try:
            job(CALLS)  # threads that were there before are not counted; what is made once has been made
            self.counts.clear()
            self.on = True
            job(CALLS)
            time.sleep(0.05)  # what the threads still do after the last answer
        finally:
            self.on = False
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
        parts: Counter[str] = Counter()
        for code, count in self.counts.items():
            parts[part_of(code.co_filename)] += count
        return Counter({part: round(count / CALLS) for part, count in parts.items()})


def part_of(path: str) -> str:
    """The room of the package that a file is in; for all others, "the SDK and below"."""
    if not path.startswith(PACKAGE):
        return "the SDK and below"
    room, _, rest = os.path.relpath(path, PACKAGE).partition(os.sep)
    return room + "/" if rest else "doors and what they are made of"


def main() -> None:
    """Count, and print a table."""
    os.environ["NO_PROXY"] = "127.0.0.1"
    import openai

    import ratelimited_llm as ours
    from ratelimited_llm.core import header_sampler
    from ratelimited_llm.telemetry import listening

    # To count makes a call many times slower, so that what is done once in some milliseconds would be in each of them.
    header_sampler.FRESH = listening.LOOK_EVERY = 1e9
    process, url = simulator(0.0)
    try:
        plain = openai.OpenAI(base_url=url, api_key="sk-simulated")
        futures = ours.OpenAI(base_url=url, api_key="sk-simulated", progress=False)
        blocking = futures.with_options(mode="blocking")
        kinds = {"plain": plain, "blocking": blocking, "future": futures}
        found = {}
        for name, client in kinds.items():
            one_by_one(client, 300)
            time.sleep(2.5)  # idle threads have gone; those that come next are counted
            found[name] = Counting().of(lambda calls, client=client: one_by_one(client, calls))  # type: ignore[misc]
    finally:
        process.terminate()
        process.wait()
    print(f"{'bytecodes a call, one in flight':34}" + "".join(f"{name:>10}" for name in found))
    for part in sorted({part for counts in found.values() for part in counts}, key=lambda p: -found["future"][p]):
        print(f"{part:34}" + "".join(f"{counts[part]:10,}" for counts in found.values()))
    print(f"{'all':34}" + "".join(f"{sum(counts.values()):10,}" for counts in found.values()))


if __name__ == "__main__":
    main()
