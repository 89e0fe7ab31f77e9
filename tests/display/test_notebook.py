"""Live displays in a real kernel: what it sends to the front end is collected and looked at. One kernel serves all."""

from __future__ import annotations

import os
import time

import pytest

from ratelimited_llm.books.status import Status
from ratelimited_llm.display import notebook
from ratelimited_llm.display.line import line
from ratelimited_llm.display.ticker import SAVED, Ticker
from ratelimited_llm.future import ResponseFuture
from ratelimited_llm.simulator import Simulator

client_of = pytest.importorskip("jupyter_client")
pytest.importorskip("ipykernel")

pytestmark = [
    pytest.mark.timeout(60),
    # Of the kernel's own packages, on some versions of Python.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning:zmq"),
]

PRELUDE = """
import gc, sys, threading, time
from concurrent.futures import Future
from dataclasses import replace
from openai.types.chat import ChatCompletion
from ratelimited_llm.display import displays, notebook, waiting
from ratelimited_llm.future import ResponseFuture
from ratelimited_llm.books.status import Ratelimit, Status

displays.ticker.interval = 0.05  # of a third of a second: the tests wait less

def threads():
    return [thread.name for thread in threading.enumerate()].count("ratelimited-llm-display")

def until(true):
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end, true
        time.sleep(0.01)

def settle():
    until(lambda: threads() == 0)

def boxes_open():
    return sum(isinstance(one, notebook._Box) for one in displays.opened)

class Run:
    def __init__(self, total, done=0):
        self.total, self.done, self.asked = total, done, 0
    def status(self):
        self.asked += 1
        left = self.total - self.done
        return Status(time.time(), 98.0, self.total, self.total, self.done, 0, 0, 0, left, 0, 0, 0, 0, 0, 0, None, None,
                      1.0 * left, None, None)

class Owner:
    waits = asked = 0
    def waiting(self, future): Owner.waits += 1
    def cancelled(self, future): pass
    def describe(self, future): return "queued 7/13"
    def ratelimit(self, future):
        Owner.asked += 1
        return Ratelimit("queued", 1.0, place=7, of=13, eta=7.0)

def pending():
    return ResponseFuture.of(ChatCompletion)(None, Owner(), None)
"""


class Kernel:
    """A kernel, and the displays that it has sent."""

    def __init__(self, environment):
        self.manager = client_of.KernelManager(kernel_name="python3")
        self.manager.start_kernel(env={**os.environ, **environment}, extra_arguments=["--HistoryManager.enabled=False"])
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=30)

    def stop(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()

    def send(self, code, cell=None):
        """Begin to run a cell; answers its id."""
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        message = self.client.session.msg("execute_request", {**content, "stop_on_error": False})
        message["metadata"] = {"cellId": cell} if cell else {}
        self.client.shell_channel.send(message)
        return message["header"]["msg_id"]

    def finish(self, sent):
        """Wait for the end of a cell; answers what it showed, as messages, and how it ended."""
        shown = []
        while True:
            message = self.client.get_iopub_msg(timeout=20)
            if message["msg_type"] in ("display_data", "update_display_data", "execute_result", "stream"):
                shown.append(message)
            mine = message["parent_header"].get("msg_id") == sent
            if mine and message["content"].get("execution_state") == "idle":
                break
        while True:
            reply = self.client.get_shell_msg(timeout=20)
            if reply["parent_header"].get("msg_id") == sent:
                return shown, reply["content"]

    def run(self, code, cell=None):
        """Run a cell to its end, which is to be a good one; answers what it showed."""
        shown, reply = self.finish(self.send(code, cell))
        assert reply["status"] == "ok", reply["ename"] + ": " + reply["evalue"]
        return shown

    def value(self, expression):
        """What an expression is in the kernel, as text."""
        return "".join(
            m["content"]["text"] for m in self.run(f"print({expression}, end='')") if m["msg_type"] == "stream"
        )


@pytest.fixture(scope="module")
def kernel():
    with Simulator("openai", rpm=6_000, tpm=2_000_000, latency=0.3, answer="echo") as provider:
        one = Kernel(provider.env())
        try:
            one.run(PRELUDE)
            yield one
        finally:
            one.stop()


def test_outside_of_a_kernel_text_is_printed_once(capsys):
    """A terminal gets the line, or the future's repr; no thread is started."""
    status = Status(0.0, 1.0, 4, 4, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, None, None, 2.0, None, None)
    notebook.show_client("OpenAI", lambda: status)
    assert capsys.readouterr().out == line(status) + "\n"
    future = ResponseFuture.of(dict)(None, None, None)
    notebook.show_future(future)
    assert capsys.readouterr().out == "<ResponseFuture queued>\n"
    assert notebook.ticker.live == 0


def test_a_display_whose_front_end_is_gone_is_given_up():
    """What fails is not looked at again, and the others are; the thread ends."""

    class Lost:
        looks = 0

        def look(self):
            self.looks += 1
            raise OSError("closed")

    class Short(Lost):
        def look(self):
            self.looks += 1
            return self.looks < 3

    ticker = Ticker(interval=0.001)
    lost, short = Lost(), Short()
    ticker.add(lost)
    ticker.add(short)
    thread = ticker._thread
    thread.join(5)
    assert not thread.is_alive()
    assert (lost.looks, short.looks, ticker.live) == (1, 3, 0)


def test_the_ticker_takes_a_small_share_of_a_cpu():
    """What a round costs beyond the saved half second is paid by the pause behind it, a hundred times as long."""
    ticker = Ticker()
    assert ticker._pause(0.003) == ticker.interval
    assert ticker._pause(SAVED + 0.1) == pytest.approx(100 * (0.003 + 0.1), rel=0.01)


def test_words_of_a_wait_that_was_interrupted():
    """How many are left, and what to do."""
    assert notebook.interrupted(1_190) == (
        "stopped waiting; 1,190 requests still queued. client.cancel() drops them, client.wait() waits again."
    )
    assert notebook.interrupted(1).startswith("stopped waiting; 1 request is still queued.")
    assert "no request" in notebook.interrupted(0)


def displays(messages):
    """(made, changed) displays among the messages, each as (its id, html, text)."""
    seen = [
        (m["msg_type"], (m["content"].get("transient", {}).get("display_id"), m["content"]["data"].get("text/html", ""),
                         m["content"]["data"]["text/plain"]))
        for m in messages
        if m["msg_type"] in ("display_data", "update_display_data")
    ]  # fmt: skip
    return [s for kind, s in seen if kind == "display_data"], [s for kind, s in seen if kind == "update_display_data"]


def test_a_panel_is_one_display_that_is_updated_and_ends_with_its_last_state(kernel):
    """One display id; updates while calls are open; the last says when it ended; then nothing is computed any more."""
    made, changed = displays(kernel.run("run = Run(4)\nnotebook.show_client('OpenAI', run.status)"))
    assert len(made) == 1
    assert changed == []
    assert "client.cancel()" in made[0][1]
    made_later, changed = displays(kernel.run("run.done = 2; time.sleep(0.15); run.done = 4; settle()"))
    assert made_later == []
    assert {one[0] for one in changed} == {made[0][0]}
    assert "2 of 4" in changed[0][1]
    assert "finished at" in changed[-1][1]
    assert "finished at" in changed[-1][2]
    messages = kernel.run(
        "until(lambda: threads() == 0); asked = run.asked; time.sleep(0.15); print(run.asked - asked)"
    )
    assert displays(messages) == ([], [])
    assert messages[-1]["content"]["text"] == "0\n"


def test_a_panel_that_rests_goes_on_with_later_calls_until_its_client_is_collected(kernel):
    """`wake` has the finished panel looked at again; a collected client is not kept by it."""
    made, _ = displays(kernel.run("run = Run(2, 2)\nnotebook.show_client('OpenAI', run.status)"))
    _, changed = displays(kernel.run("run.total = 5; notebook.wake(); time.sleep(0.15)"))
    assert changed[-1][0] == made[0][0]
    assert "2 of 5" in changed[-1][1]
    _, changed = displays(kernel.run("del run; gc.collect(); settle()"))
    assert "the client is gone" in changed[-1][1]
    assert kernel.value("len(displays.opened)") == "0"


def test_an_unchanged_panel_sends_nothing(kernel):
    """A display is updated when it shows something else, and at most three times a second."""
    kernel.run("displays.ticker.interval = 1 / 3; run = Run(9)\nnotebook.show_client('OpenAI', run.status)")
    assert displays(kernel.run("time.sleep(0.5)")) == ([], [])
    _, changed = displays(kernel.run("for run.done in range(9):\n    time.sleep(0.1)"))
    assert 1 <= len(changed) <= 4
    kernel.run("run.done = 9; displays.ticker.interval = 0.05; settle()")


def test_a_cell_that_is_run_again_gives_up_its_earlier_display(kernel):
    """Only the display that can still be seen is updated; two displays of one execution both are."""
    kernel.run("first = Run(3); second = Run(3)\nnotebook.show_client('a', first.status)", cell="one")
    code = "notebook.show_client('b', second.status); notebook.show_client('c', second.status)"
    made, _ = displays(kernel.run(code, cell="one"))
    _, changed = displays(kernel.run("first.done = second.done = 1; time.sleep(0.15)", cell="two"))
    assert {one[0] for one in changed} == {one[0] for one in made}
    kernel.run("second.done = 3; settle()")


def test_a_pending_future_becomes_its_answer_in_place(kernel):
    """A real call, shown while it is open; the text of its answer takes the place of the box, as text and not HTML."""
    code = (
        "from ratelimited_llm import OpenAI\nclient = OpenAI()\n"
        "asked = [{'role': 'user', 'content': 'a <b>bold</b> one'}]\n"
        "answer = client.chat.completions.create(model='m', messages=asked)"
        "\nnotebook.show_future(answer)"
    )
    made, changed = displays(kernel.run(code))
    assert len(made) == 1
    _, later = displays(kernel.run("settle()"))
    last = [*changed, *later][-1]
    assert last[0] == made[0][0]
    assert "a <b>bold</b> one" in last[2]
    assert "a &lt;b&gt;bold&lt;/b&gt; one" in last[1]
    made, changed = displays(kernel.run("notebook.show_future(answer); client.close()"))
    assert "ChatCompletion(" in made[0][2]
    assert changed == []


def test_boxes_say_the_place_the_failure_and_the_cancellation(kernel):
    """A queued one says its place; a failed one its exception's class and message; a cancelled one that."""
    made, _ = displays(kernel.run("boxes = [pending() for _ in range(2)]\nfor b in boxes: notebook.show_future(b)"))
    assert [one[2] for one in made] == ["queued 7 of 13 · ~7 s"] * 2
    code = "boxes[0].set_exception(ValueError('<no>')); boxes[1].cancel(); settle()"
    _, changed = displays(kernel.run(code))
    assert [one[2] for one in changed] == ["ValueError: <no>", "cancelled"]
    assert "ValueError: &lt;no&gt;" in changed[0][1]


def test_many_displays_share_one_thread_that_ends_with_the_last(kernel):
    """Three hundred pending boxes have one ticker; when all are done there is none."""
    kernel.run("boxes = [pending() for _ in range(300)]\nfor b in boxes: notebook.show_future(b)")
    assert kernel.value("(displays.ticker.live in (299, 300), threads())") == "(True, 1)"
    kernel.run("for b in boxes: b.set_result(None)\nuntil(lambda: threads() == 0)")
    assert kernel.value("boxes_open()") == "0"


def test_ten_thousand_pending_futures_are_displayed_without_waiting(kernel):
    """A list, a DataFrame and a Series of them: no wait is begun, and nothing live is made."""
    pytest.importorskip("pandas")
    kernel.run("import pandas as pd\nmany = [pending() for _ in range(10_000)]\nframe = pd.DataFrame({'answer': many})")
    for shown in ("many", "frame", "frame.answer"):
        messages = kernel.run(shown)
        text = messages[-1]["content"]["data"]["text/plain"]
        assert "<ResponseFuture queued 7/13>" in text
    assert kernel.value("(Owner.waits, boxes_open(), displays.ticker.live)") == "(0, 0, 0)"
    kernel.run("del many, frame; Out.clear(); _ = __ = ___ = None")


def test_a_cell_that_waits_shows_one_panel_and_an_interrupt_ends_the_wait(kernel):
    """Nothing for a short wait; one display for a long one; after an interrupt it says that the calls go on."""
    kernel.run("waiting.PATIENCE = 0.3; run = Run(5); progress = waiting.NotebookProgress(run.status)")
    assert displays(kernel.run("with progress: time.sleep(0.05)")) == ([], [])
    code = """
with progress: time.sleep(0.5)
with progress:
    run.done = 1
    time.sleep(0.5)
with progress:
    print("waiting", flush=True)
    threading.Event().wait(30)
"""
    sent = kernel.send(code)
    shown = []
    while not any(m["msg_type"] == "stream" for m in shown):
        shown.append(kernel.client.get_iopub_msg(timeout=20))
    began = time.monotonic()
    kernel.manager.interrupt_kernel()
    rest, reply = kernel.finish(sent)
    assert time.monotonic() - began < 10  # and not thirty
    assert reply["ename"] == "KeyboardInterrupt"
    made, changed = displays([*shown, *rest])
    assert len(made) == 1
    assert {one[0] for one in changed} == {made[0][0]}
    assert "stopped waiting" in changed[-1][1]
    kernel.run("until(lambda: threads() == 0)")
