"""What the tests of the gateway have in common: a gateway that runs in a thread, and trouble on demand."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from email.message import Message
from typing import Any, NamedTuple

from waiting import wait_until

from ratelimited_llm.gateway.app import create_app
from ratelimited_llm.gateway.serving import GatewayServer, listen
from ratelimited_llm.simulator import Fault

MESSAGES = [{"role": "user", "content": "hello"}]
CHAT = {"model": "gpt-4.1-mini", "messages": MESSAGES}


def say(text: str, **more: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": text}], **more}


def fault_in_the_prompt(number: int, body: dict[str, Any]) -> Fault | None:
    """The trouble that a prompt asks for: "!stall", or '!{"kind": "status", "status": 418}'."""
    messages = body.get("messages")
    text = messages[-1]["content"] if messages else ""
    if not isinstance(text, str) or not text.startswith("!"):
        return None
    return Fault(**json.loads(text[1:])) if text[1] == "{" else Fault(text[1:])


class Running:
    """A gateway that runs in a thread, as `serve` runs it."""

    def __init__(self, drain: float = 2.0, **options: Any) -> None:
        self.app = create_app(**options)
        self.gateway = self.app.state.gateway
        self._socket = listen("127.0.0.1", 0)
        self.socket_port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.socket_port}"
        self.server = GatewayServer(self.app, self.gateway, drain)
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()

    def begin_to_end(self) -> None:
        """What the first signal does."""
        wait_until(lambda: self.server.started)
        self.gateway.draining = True
        self.server._loop.call_soon_threadsafe(self.server.begin_to_end)

    def stop(self) -> None:
        """End it, whatever is open."""
        if self._thread.is_alive():
            self.server._seconds = 0.0
            self.begin_to_end()
            self._thread.join(10.0)
        self._socket.close()
        assert not self._thread.is_alive()

    def ask(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Answered:
        """One HTTP request; a body that is no bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json", **named})
        request.method = method or ("GET" if data is None else "POST")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return Answered(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answered(error.code, error.headers, error.read())


class Answered(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def in_thread(call: Any) -> threading.Thread:
    """Run something beside; errors are nobody's."""

    def run() -> None:
        try:
            call()
        except Exception:
            return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread
