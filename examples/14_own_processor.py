"""My provider has no SDK door here: what do I write, and how does a coroutine use the queue?"""

import asyncio
import json
import os
import urllib.request
from typing import Any

from ratelimited_llm.manager import QueueManager
from ratelimited_llm.processors import Processor


class PlainHTTP(Processor):
    """A provider behind nothing but HTTP. Copy this: `process` alone is needed, the rest has defaults."""

    required_fields = ("model", "messages")  # a payload without them is refused when it is enqueued

    def __init__(self, base_url: str, api_key: str) -> None:
        self.base_url = base_url
        self.api_key = api_key

    def process(self, payload: Any, *, timeout: float | None = None, endpoint: str = "") -> Any:
        """One attempt: no retries, no waiting for limits. Runs on a thread; `async def` runs on an event loop."""
        request = urllib.request.Request(
            self.base_url + endpoint,
            json.dumps(payload).encode(),
            {"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return json.load(response)

    # The defaults of the others, in words:
    #   validate(payload)         by required_fields
    #   estimate_tokens(payload)  text bytes / 4 and max_tokens; then what the answers' usage teaches
    #   classify_error(error)     429 waits for the limit, 408, 409, 5xx and broken connections go again, the rest fails
    #   usage(result)             its "usage", as OpenAI and Anthropic write it


async def main() -> None:
    """A service's coroutine: enqueueing never waits, results are awaited, callbacks run on this loop."""
    done: asyncio.Queue[str] = asyncio.Queue()

    async def tell(response: dict[str, Any]) -> None:
        await done.put(response["choices"][0]["message"]["content"][:40])

    processor = PlainHTTP(os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1"), os.environ["OPENAI_API_KEY"])
    # share=0.4: this service may use 40 % of the account's limits, and keeps a tenth of that back.
    async with QueueManager(processor, rpm=500, tpm=200_000, share=0.4, safety_margin=0.1, timeout=60.0) as manager:
        for text in ("Name a river", "Name a lake"):
            payload = {"model": "gpt-4.1-mini", "max_tokens": 40, "messages": [{"role": "user", "content": text}]}
            request_id = await manager.enqueue_request("/chat/completions", payload, callback=tell, priority="normal")
        result = await manager.get_result_async(request_id)
        print(result["usage"]["total_tokens"], "tokens for the last one")
        for _ in range(2):
            print(await done.get(), "...")
        print(manager.get_queue_status()["rate_limits"]["all"]["rpm"]["limit"], "requests per minute are ours")


asyncio.run(main())
