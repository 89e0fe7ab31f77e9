"""My FastAPI service calls models, and so do its neighbours in other languages: how do all of them share one queue?"""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import openai
import uvicorn
from fastapi import FastAPI

from ratelimited_llm import AsyncOpenAI
from ratelimited_llm.gateway import create_app

LIMITS = {"rpm": 3_000, "tpm": 1_000_000}  # of the key that the environment has

gateway = create_app(**LIMITS)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncOpenAI(**LIMITS, priority="high") as app.state.llm:  # the same key and limits: the same budget
        yield
    await gateway.state.gateway.aclose()


service = FastAPI(lifespan=lifespan)
service.mount("/llm", gateway)  # base URL for everybody else: http://this-host:8000/llm/v1


@service.get("/title")
async def title(text: str) -> dict[str, str | None]:
    """A call of the service's own: people wait for it, so it goes before what comes in at /llm."""
    prompt = f"A title of five words for: {text}"
    answer = await service.state.llm.chat.completions.create(
        model="gpt-4.1-mini", max_tokens=20, messages=[{"role": "user", "content": prompt}]
    )
    return {"title": answer.choices[0].message.content}


# Run it with `uvicorn 18_fastapi_service:service`. Here it runs in a thread, and is asked over HTTP.
server = uvicorn.Server(uvicorn.Config(service, port=0, log_level="warning"))
thread = threading.Thread(target=server.run)
thread.start()
while not server.started:
    thread.join(0.01)
url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

print(httpx.get(f"{url}/title", params={"text": "a cat that codes"}, trust_env=False).json())

with openai.OpenAI(base_url=f"{url}/llm/v1") as neighbour:  # the plain SDK; it could as well be JavaScript
    stream = neighbour.chat.completions.create(
        model="gpt-4.1-mini",
        stream=True,
        max_tokens=20,
        messages=[{"role": "user", "content": "Say hello to the service next door."}],
        extra_headers={"x-ratelimited-priority": "low", "x-ratelimited-client": "neighbour"},
    )
    print("".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices))

status = httpx.get(f"{url}/llm/v1/queue/stats", trust_env=False).json()
print("answered through the gateway:", status["totals"]["answered"], "health:", status["health"]["score"])

server.should_exit = True
thread.join()
