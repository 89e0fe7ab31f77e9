"""python -m ratelimited_llm script.py: the SDKs that a script imports are paced, and answer as plain ones do."""

from __future__ import annotations

import sys

import pytest

from ratelimited_llm.simulator import Simulator

POOL = """
import sys
assert not {"openai", "groq", "anthropic", "requests"} & set(sys.modules)  # nothing is there before it is asked for
from concurrent.futures import ThreadPoolExecutor
import openai
from openai import AsyncOpenAI, OpenAI

assert "openai.resources.beta" not in sys.modules  # the SDK loads its parts when they are used, and so it stays
SDKs = sys.modules["openai._client"].OpenAI
assert openai.OpenAI is openai.Client is OpenAI and issubclass(OpenAI, SDKs) and OpenAI is not SDKs
assert "groq" not in sys.modules and "anthropic" not in sys.modules

hidden = SDKs()  # a way past us
for _ in range(2):
    hidden.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])


class Mine(OpenAI):
    def ask(self, text):
        return self.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])


mine, plain = Mine(), OpenAI()
assert isinstance(mine, openai.OpenAI) and isinstance(plain, SDKs)


def ask(number):
    message = [{"role": "user", "content": f"n{number}"}]
    client = (mine, plain, openai)[number % 3]
    answer = client.chat.completions.create(model="m", messages=message)
    assert type(answer).__module__ == "openai.types.chat.chat_completion", type(answer)
    return answer.choices[0].message.content


with ThreadPoolExecutor(20) as pool:
    assert list(pool.map(ask, range(60))) == [f"n{number}" for number in range(60)]

import os
import requests

url, headers = os.environ["OPENAI_BASE_URL"] + "/chat/completions", {"Authorization": "Bearer " + plain.api_key}


def post(number):
    message = {"role": "user", "content": "echo"}
    return requests.post(url, headers=headers, json={"model": "m", "messages": [message]}, timeout=9).status_code


with ThreadPoolExecutor(20) as pool:
    assert set(pool.map(post, range(20))) == {200}

import asyncio


async def ask_async():
    async with AsyncOpenAI() as client:
        for _ in range(2):
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])


asyncio.run(ask_async())  # paced too

import groq
from anthropic import Anthropic
words = [{"role": "user", "content": "echo"}]
assert groq.Groq().chat.completions.create(model="m", messages=words).choices[0].message.content == "echo"
assert Anthropic().messages.create(model="m", messages=words, max_tokens=9).content[0].text == "echo"
assert {type(each).__module__.partition(".")[0] for each in (plain, groq.Groq(), Anthropic())} == {"ratelimited_llm"}
print(plain._runtime.limits.tpm, plain._runtime.journal.path.name)
"""

ERRORS = """
import traceback
import openai

client = openai.OpenAI(max_retries=0)
try:
    client.chat.completions.create(model="m", messages=[])
except openai.BadRequestError as error:
    print(type(error).__module__, error.status_code, error)


def wrong():
    return client.chat.completions.create(model="m", messages=[])


wrong()
"""


@pytest.mark.timeout(60)  # a minute of 2 s is not what the limiter expects: on a busy machine it waits for its own
def test_a_thread_pool_of_plain_clients_is_never_refused(run, tmp_path):
    """Plain clients, a subclass, the module client and raw requests, from 20 threads; the other SDKs; options."""
    (tmp_path / "pool.py").write_text(POOL)
    with Simulator("openai", rpm=60, period=2.0, latency=0.02, answer="echo") as provider:
        done = run("--tpm=3M", "--journal", "run.db", "pool.py", **provider.env())
        counted = provider.counters
    assert (done.returncode, done.stdout) == (0, "3000000.0 run.db\n"), done.stderr
    assert counted.refused == 0
    assert counted.answered == 86
    assert done.stderr.count("is not paced") == 1, done.stderr
    assert "openai.OpenAI is not paced" in done.stderr


def test_errors_of_an_sdk_are_caught_and_shown_as_without_us(same, tmp_path):
    """The same class, the same text, and a traceback with the SDK's frames and none of ours."""
    (tmp_path / "errors.py").write_text(ERRORS)
    with Simulator("openai", latency=0.0) as provider:
        ended = same("errors.py", **provider.env())
    assert ended.returncode == 1
    assert "openai 400" in ended.stdout
    assert "ratelimited_llm" not in ended.stderr


def test_a_script_named_like_an_sdk_is_only_that(run, tmp_path):
    """openai.py beside the script is the script's own module: said, and left as it is."""
    (tmp_path / "openai.py").write_text("OpenAI = 3\n")
    (tmp_path / "script.py").write_text(
        "import openai\nprint(openai.OpenAI, openai.__loader__ is openai.__spec__.loader)"
    )
    done = run("script.py")
    assert (done.returncode, done.stdout) == (0, "3 True\n")
    assert "not paced" in done.stderr


def test_this_process_is_untouched():
    """Importing the runner changes no import; only running a script does."""
    import ratelimited_llm.runner
    import ratelimited_llm.takeover

    assert not [finder for finder in sys.meta_path if type(finder).__module__ == ratelimited_llm.takeover.__name__]
    assert ratelimited_llm.runner.__name__ in sys.modules
