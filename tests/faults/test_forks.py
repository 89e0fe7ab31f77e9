"""A fork with calls in flight in every way there is; the child ends as a script does, or at once. In real time.

The parent's calls are the parent's: it gets every answer, once. The child's copies of them end with an error that says
so, its own calls are served over connections of its own, and it neither hangs at its end nor says anything to the
parent's provider.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter

import pydantic.main
import pytest
from forking import in_child

from ratelimited_llm.calls import model_builds
from ratelimited_llm.simulator import Simulator

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

SCRIPT = """
import asyncio, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of every fork of a process with threads
from ratelimited_llm import AsyncOpenAI, OpenAI, RateLimitedExecutor, WorkerStopped

url, journal, ends = sys.argv[1:]
OURS = {"base_url": url, "api_key": "sk-test", "progress": False, "max_concurrency": 12}
client = OpenAI(**OURS, journal=journal)
blocking = client.with_options(mode="blocking")
executor = RateLimitedExecutor(max_concurrency=2)

def question(text):
    return {"model": "m", "messages": [{"role": "user", "content": text}]}

def said(answer):
    return answer.choices[0].message.content

def streamed(stream):
    return "".join(each.choices[0].delta.content or "" for each in stream if each.choices)

def child_asks(pending):
    for future in pending:
        error = future.exception(timeout=10)
        # One that was already over when the process forked is over in the child, too.
        assert error is None or isinstance(error, WorkerStopped), error
    for number in range(4):
        assert said(client.chat.completions.create(**question(f"child future {number}"))) == f"child future {number}"
    assert said(blocking.chat.completions.create(**question("child blocking"))) == "child blocking"
    assert streamed(client.chat.completions.create(**question("child stream"), stream=True)) == "child stream"
    assert executor.submit(str, "child").result(10) == "child"

def child_ends():
    if ends == "_exit":
        os._exit(0)
    if ends == "sys.exit":
        sys.exit(0)

children = []
def fork(pending):
    pid = os.fork()
    if pid:
        children.append(pid)
        return False
    signal.alarm(40)
    try:
        child_asks(pending)
    except BaseException as error:
        os.write(2, f"in the child: {error!r}\\n".encode())
        os._exit(1)
    return True

answers = {}
def ask_blocking(number):
    answers[f"blocking {number}"] = said(blocking.chat.completions.create(**question(f"blocking {number}")))

async def ask_in_tasks():
    async with AsyncOpenAI(**OURS) as tasks:
        async def one(number):
            answers[f"task {number}"] = said(await tasks.chat.completions.create(**question(f"task {number}")))
        asked = [asyncio.ensure_future(one(number)) for number in range(12)]
        await asyncio.sleep(0.03)
        if fork(futures):
            os._exit(0)  # an event loop cannot go on in a child, with or without us: asyncio's own end of it hangs
        await asyncio.gather(*asked)

futures = [client.chat.completions.create(**question(f"future {number}")) for number in range(30)]
threads = [threading.Thread(target=ask_blocking, args=(number,)) for number in range(10)]
for thread in threads:
    thread.start()
opened = client.chat.completions.create(**question("stream"), stream=True)
first = next(iter(opened))
asyncio.run(ask_in_tasks())
if fork(futures):
    child_ends()  # or else by the end of the script
else:
    for thread in threads:
        thread.join()
    answers |= {f"future {number}": said(future) for number, future in enumerate(futures)}
    answers["stream"] = (first.choices[0].delta.content or "") + streamed(opened)
    assert all(asked == answer for asked, answer in answers.items()), answers
    assert len(answers) == 53, sorted(answers)
    for pid in children:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status == 0, status
    print("good")
"""


def test_a_child_finds_the_lock_of_the_models_free_that_a_thread_of_its_parent_held(monkeypatch):
    """The models of answers are built under pydantic's one lock for all, by whichever thread needs one first."""
    lock = getattr(pydantic.main, "_rebuild_lock", None)
    if lock is None:
        pytest.skip("this pydantic has no such lock")
    held, asked = threading.Event(), threading.Event()

    class Watched:
        release = lock.release

        def acquire(self, **how):
            asked.set()
            return lock.acquire(**how)

    def build():
        with lock:
            held.set()
            asked.wait(10)  # the fork waits for the lock, or else finds it taken

    builder = threading.Thread(target=build)
    builder.start()
    assert held.wait(10)
    monkeypatch.setattr(pydantic.main, "_rebuild_lock", Watched())
    in_child(lambda: lock.acquire(timeout=model_builds.PATIENCE) or os._exit(2))
    builder.join()
    assert lock.acquire(timeout=model_builds.PATIENCE)
    lock.release()


# What httpx does when a stream is closed, here of a generator that the interpreter itself closes at its very end.
CLOSED_LAST = """
import datetime, gc
def stream(told):
    try:
        yield
    finally:
        told(seconds=1.5)
opened = [stream(datetime.timedelta)]
next(opened[0])
opened.append(opened)
gc.disable()
del opened
"""


@pytest.fixture
def end_of_interpreter(ends):
    """Python 3.13.0 has taken its datetime down by then, and crashes: no child that holds a stream ends well there."""
    if ends != "_exit" and subprocess.run([sys.executable, "-c", CLOSED_LAST], check=False).returncode < 0:
        pytest.skip("this Python crashes at its end when a generator is left that needs datetime to be closed")


@pytest.mark.usefixtures("end_of_interpreter")
@pytest.mark.parametrize("ends", ["_exit", "sys.exit", "as a script does"])
def test_the_parent_gets_every_answer_once_and_the_child_its_own(tmp_path, warm_python, ends):
    """One fork is in the middle of an event loop, one is not; futures, blocking calls, a stream and tasks are on."""
    with Simulator("openai", answer="echo", latency=(0.05, 0.3)) as provider:
        ended = subprocess.run(
            [*warm_python, "-c", SCRIPT, provider.base_url, str(tmp_path / "run.db"), ends],
            capture_output=True, text=True, timeout=90, env={**os.environ, "NO_PROXY": "127.0.0.1"}, check=False,
        )  # fmt: skip
        sent = Counter(each.tag for each in provider.log)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "good\n", "")
    assert {tag for tag, times in sent.items() if times > 1 and not tag.startswith("child")} == set()
