"""What the tests of the doors have in common: short ways to ask, and HTTP clients that answer as a test wants."""

from __future__ import annotations

import json
import sys
import threading

import openai


def ask(client, text="hello", **options):
    """One chat call; the simulator's answer="echo" answers with its text."""
    options.setdefault("model", "m")
    return client.chat.completions.create(messages=[{"role": "user", "content": text}], **options)


def text_of(answer):
    """What a chat call was answered with; waits."""
    return answer.choices[0].message.content


def httpx_of(sdk):
    """The httpx that an SDK uses: httpx, or httpx2 in newer ones."""
    return sys.modules[sdk.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]]


def chat_body(text="answer"):
    """A chat completion as OpenAI sends it."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }  # fmt: skip


class Stub:
    """An HTTP client of the user's own whose answers a function makes; it counts what is in flight.

    Args:
        answer: a function of (number of the request from 1, its JSON) that answers a status, a body, and headers.
        sdk: whose httpx it is of.
    """

    def __init__(self, answer=None, sdk=openai):
        self.httpx = httpx_of(sdk)
        self.requests = []
        self.in_flight = 0
        self.most = 0
        self._answer = answer or (lambda number, body: (200, chat_body(), {}))
        self._changed = threading.Condition()
        self.client = self.httpx.Client(transport=self.httpx.MockTransport(self._handle))

    def _handle(self, request):
        with self._changed:
            self.requests.append(request)
            number = len(self.requests)
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
            self._changed.notify_all()
        try:
            status, body, headers = self._answer(number, json.loads(request.content))
            if isinstance(body, bytes):
                return self.httpx.Response(status, content=body, headers=headers)
            return self.httpx.Response(status, json=body, headers=headers)
        finally:
            with self._changed:
                self.in_flight -= 1
                self._changed.notify_all()

    def wait_for(self, number, timeout=5.0):
        """Block until so many requests have arrived."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= number, timeout), f"{len(self.requests)} came"
