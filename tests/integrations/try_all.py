"""Other people's libraries on top of our client, each tried against the simulator. Run by hand; prints a table.

They are heavy, and pin each other, so they get an environment of their own (openai 2.x, since some ask for it):

    uv venv .integrations
    uv pip install -p .integrations/bin/python -e . "openai<3" instructor langchain-openai openai-agents dspy \\
        "llama-index-llms-openai>=0.8" "pydantic-ai-slim[openai]" langsmith litellm haystack-ai
    .integrations/bin/python tests/integrations/try_all.py [library ...]

Sixty calls of each library go out from twenty threads (or in one event loop) to a provider that allows twenty at once
and ten a second more. Each is tried in three ways, as far as there is a way:

    client   our OpenAI in blocking mode, or our AsyncOpenAI, where the library takes a client
    queued   queued() around the library's own object, whatever client that uses inside
    runner   `python -m ratelimited_llm`: the library makes the client, and nobody has edited anything

"plain" is the same without us. A cell says how many calls were answered, and how many requests the provider refused.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

CALLS, THREADS, SECONDS = 60, 20, 120
os.environ.update(
    OPENAI_AGENTS_DISABLE_TRACING="1",
    LANGSMITH_TRACING="false",
    DSPY_CACHEDIR=os.devnull,
    LITELLM_LOCAL_MODEL_COST_MAP="True",
    HAYSTACK_TELEMETRY_ENABLED="False",
)
Attempt = Callable[[int], Any]


class NoWay(Exception):
    """The library cannot be used this way; the message says why."""


def words(number: int) -> list[dict[str, str]]:
    """A prompt that differs from call to call, so that nobody's cache answers it."""
    return [{"role": "user", "content": f"Say something about the number {number}."}]


def client_for(way: str) -> Any:
    """The blocking client that a library is to be given: ours, or the SDK's own."""
    if way == "client":
        from ratelimited_llm import OpenAI

        return OpenAI(mode="blocking")
    from openai import OpenAI as Plain

    return Plain(max_retries=0) if way == "queued" else Plain()


def async_client_for(way: str) -> Any:
    """The same of clients that are awaited."""
    if way == "queued":
        raise NoWay("async")
    from ratelimited_llm import openai as door

    if way == "client":
        if door.AsyncOpenAI.__module__ != door.__name__:
            raise NoWay("needs our AsyncOpenAI")
        return door.AsyncOpenAI()
    from openai import AsyncOpenAI

    return AsyncOpenAI()


def around(way: str, client: Any, **options: Any) -> Any:
    """A library's object, with a queue around it where that is the way."""
    if way != "queued":
        return client
    from ratelimited_llm.wrapped import queued

    return queued(client, mode="blocking", **options)


# -- the libraries ----------------------------------------------------------------------------------------------------


def instructor(way: str) -> Attempt:
    """Structured output by way of a tool call, into a model of pydantic."""
    import instructor
    from pydantic import BaseModel

    class Fact(BaseModel):
        number: int
        text: str

    client = around(way, instructor.from_openai(client_for(way)))

    def attempt(number: int) -> Any:
        fact = client.chat.completions.create(model="m", response_model=Fact, messages=words(number))
        assert isinstance(fact, Fact)

    return attempt


def langchain_openai(way: str) -> Attempt:
    """A chat model's invoke(); it takes the resources of a client, and makes clients of its own otherwise."""
    from langchain_openai import ChatOpenAI

    given: dict[str, Any] = {"model": "m", "max_retries": 0 if way == "queued" else 2}
    if way == "client":
        client = client_for(way)
        given.update(client=client.chat.completions, root_client=client)
    model = around(way, ChatOpenAI(**given))

    def attempt(number: int) -> Any:
        assert model.invoke(f"Say something about {number}.").content

    return attempt


def llama_index(way: str) -> Attempt:
    """An LLM's complete(); it takes a client as openai_client=."""
    from llama_index.llms.openai import OpenAI

    given: dict[str, Any] = {"api_base": os.environ["OPENAI_BASE_URL"]}  # it does not read the variable itself
    if way in ("client", "queued"):
        given["openai_client"] = client_for(way)
    # It retries by itself, outside of any client: off where our queue is what is tried.
    model = around(way, OpenAI(model="gpt-4o-mini", max_retries=0 if way in ("client", "queued") else 3, **given))

    def attempt(number: int) -> Any:
        assert model.complete(f"Say something about {number}.").text

    return attempt


def pydantic_ai(way: str) -> Attempt:
    """An agent with a typed answer; it takes an AsyncOpenAI only."""
    from pydantic import BaseModel
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    class Fact(BaseModel):
        text: str

    agent = Agent(OpenAIChatModel("gpt-4o-mini", provider=OpenAIProvider(openai_client=async_client_for(way))))

    async def attempt(number: int) -> Any:
        assert (await agent.run(f"Say something about {number}.")).output

    return attempt


def agents(way: str) -> Attempt:
    """An agent's run; it takes an AsyncOpenAI only."""
    import agents

    model = agents.OpenAIChatCompletionsModel(model="m", openai_client=async_client_for(way))
    agent = agents.Agent(name="a", instructions="Answer.", model=model)

    async def attempt(number: int) -> Any:
        assert (await agents.Runner.run(agent, f"Say something about {number}.")).final_output

    return attempt


def dspy(way: str) -> Attempt:
    """A language model's call, which goes through litellm; that makes its own clients of openai."""
    import dspy

    if way == "client":
        raise NoWay("takes no client")
    retries = 0 if way == "queued" else 3
    model = dspy.LM("openai/m", api_base=os.environ["OPENAI_BASE_URL"], api_key="k", cache=False, num_retries=retries)
    called = around(way, model, calls="__call__")

    def attempt(number: int) -> Any:
        assert called(f"Say something about {number}.")

    return attempt


def langsmith(way: str) -> Attempt:
    """A traced client; the tracer reads each answer inside of the call."""
    from langsmith.wrappers import wrap_openai

    client = around(way, wrap_openai(client_for(way)))

    def attempt(number: int) -> Any:
        assert client.chat.completions.create(model="m", messages=words(number)).choices

    return attempt


def litellm(way: str) -> Attempt:
    """A completion(), which is a function of a module; it takes a client as client=, and makes its own otherwise."""
    import litellm

    given: dict[str, Any] = {"api_base": os.environ["OPENAI_BASE_URL"], "api_key": "k"}
    if way == "client":
        given["client"] = client_for(way)
    if way == "queued":
        given["max_retries"] = 0
    module = around(way, litellm, calls="completion")

    def attempt(number: int) -> Any:
        assert module.completion(model="openai/m", messages=words(number), **given).choices

    return attempt


def haystack(way: str) -> Attempt:
    """A chat generator's run(); it makes its client, and has it as an attribute."""
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.dataclasses import ChatMessage

    made = OpenAIChatGenerator(model="m", max_retries=0 if way == "queued" else 2)
    if way == "client":
        made.client = client_for(way)
    generator = around(way, made, calls="run")

    def attempt(number: int) -> Any:
        assert generator.run([ChatMessage.from_user(f"Say something about {number}.")])["replies"][0].text

    return attempt


LIBRARIES = {
    "instructor": instructor, "langchain-openai": langchain_openai, "llama-index-llms-openai": llama_index,
    "pydantic-ai-slim": pydantic_ai, "openai-agents": agents, "dspy": dspy, "langsmith": langsmith,
    "litellm": litellm, "haystack-ai": haystack,
}  # fmt: skip


# -- trying them ------------------------------------------------------------------------------------------------------


def run(name: str, way: str) -> str:
    """Try one library in one way, in this process; answers what became of the calls."""
    attempt = LIBRARIES[name](way)
    ended: Counter[str] = Counter()

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(attempt(number) for number in range(CALLS)), return_exceptions=True)

    if asyncio.iscoroutinefunction(attempt):
        ended.update(_word(each) for each in asyncio.run(all_of_them()))
    else:
        with ThreadPoolExecutor(THREADS) as pool:
            futures = [pool.submit(attempt, number) for number in range(CALLS)]
            ended.update(_word(future.exception()) for future in futures)
    answered = ended.pop("", 0)
    failed = f" ({', '.join(ended)})" if ended else ""
    return f"{answered}/{CALLS}{failed}"


def _word(error: Any) -> str:
    if error is None:
        return ""
    if os.environ.get("TRY_ALL_VERBOSE"):
        print(repr(error), file=sys.stderr)
    return type(error).__name__


def in_child(name: str, way: str) -> str:
    """The same in a child against a provider of its own, with the provider's count of refusals."""
    from ratelimited_llm.simulator import Simulator

    ours = ["-m", "ratelimited_llm"] if way == "runner" else []
    with Simulator("openai", rpm=20, period=2.0, latency=0.05) as provider:
        try:
            done = subprocess.run(
                [sys.executable, *ours, __file__, "--one", name, way],
                env={**os.environ, **provider.env()}, capture_output=True, text=True, timeout=SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"not done in {SECONDS} s"
        if os.environ.get("TRY_ALL_VERBOSE"):
            print(name, way, done.stderr[-3000:], file=sys.stderr)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["?"])[-1][:60]
        said = done.stdout.strip().splitlines()[-1]
        return said if "/" not in said else f"{said}, {provider.counters.refused} refused"


def main(names: list[str]) -> None:
    """Print the table."""
    ways = ("plain", "client", "queued", "runner")
    print("| library | version | " + " | ".join(ways) + " |")
    print("|---" * (len(ways) + 2) + "|")
    for name in names or LIBRARIES:
        cells = [in_child(name, way) for way in ways]
        print(f"| {name} | {importlib.metadata.version(name)} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        try:
            print(run(sys.argv[2], sys.argv[3]))
        except NoWay as why:
            print(why)
    else:
        main(sys.argv[1:])
