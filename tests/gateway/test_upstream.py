"""What reaches the provider, byte for byte, and whose key it carries."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest
from serving_gateways import CHAT, Running, say

from ratelimited_llm.gateway.answers import _Events

CHAT_PATH = "/v1/chat/completions"


class Echo(BaseHTTPRequestHandler):
    """A provider that answers with what it was sent."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        told = {"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}, "body": body.hex()}
        answer = gzip.compress(json.dumps({"choices": [], "seen": told, "usage": None}).encode())
        self.send_response(200)
        headers = {"content-type": "application/json", "content-encoding": "gzip", "set-cookie": "a=b"}
        for name, value in {**headers, "x-custom": "kept", "content-length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_DELETE = do_POST

    def log_message(self, *args):
        """Nothing."""


@pytest.fixture(scope="module")
def echo():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    urls = {"openai": url + "/v1", "groq": url, "anthropic": url}
    running = Running(base_urls=urls, api_keys=dict.fromkeys(urls, "sk-of-the-gateway"))
    yield running
    running.stop()
    server.shutdown()
    thread.join()
    server.server_close()


def seen(answered):
    assert answered.status == 200, answered.body
    return answered.json["seen"]


def test_the_gateways_key_goes_upstream_and_the_clients_never_does(echo):
    secret = {"authorization": "Bearer sk-of-the-client", "cookie": "sk-of-the-client", "api-key": "sk-of-the-client",
              "x-ratelimited-token": "sk-of-the-client", "openai-organization": "org-of-the-client"}  # fmt: skip
    for path in (CHAT_PATH, "/openai/v1/chat/completions", "/v1/messages", "/v1/files", "/openai/v1/models"):
        told = seen(echo.ask(path, CHAT, **secret))
        assert "of-the-client" not in json.dumps(told)
        assert "sk-of-the-gateway" in json.dumps(told["headers"])


def test_paths_queries_and_the_clients_other_headers_arrive(echo):
    told = seen(echo.ask("/v1/messages?beta=true", CHAT, **{"anthropic-beta": "x-1", "traceparent": "00-1"}))
    assert told["path"] == "/v1/messages?beta=true"
    assert (told["headers"]["anthropic-beta"], told["headers"]["traceparent"]) == ("x-1", "00-1")
    assert seen(echo.ask("/v1/files/a%20b", method="DELETE"))["path"] == "/v1/files/a%20b"
    assert not [name for name in told["headers"] if name.startswith("x-ratelimited")]


def test_bodies_arrive_as_they_were_sent(echo):
    body = say("naïve 🙂", temperature=0.1, seed=2**60, logit_bias={"50256": -100}, unknown_to_every_sdk=[None, True])
    assert json.loads(bytes.fromhex(seen(echo.ask(CHAT_PATH, body))["body"])) == body
    raw = bytes(range(256)) * 50
    told = seen(echo.ask("/v1/files", raw, **{"content-type": "application/x-anything"}))
    assert (told["body"], told["headers"]["content-type"]) == (raw.hex(), "application/x-anything")


def test_uploads_are_queued_with_their_bytes_untouched(echo):
    before = echo.gateway.counts["requests"]
    with openai.OpenAI(base_url=echo.url + "/v1", api_key="any", max_retries=0) as client:
        client.audio.transcriptions.with_raw_response.create(model="whisper-1", file=("a.wav", b"\x00\xff" * 9))
    form = b'--b\r\ncontent-disposition: form-data; name="file"\r\n\r\n\x00\xff\r\n--b--\r\n'
    told = seen(echo.ask("/v1/audio/transcriptions", form, **{"content-type": "multipart/form-data; boundary=b"}))
    assert (told["body"], told["headers"]["content-type"]) == (form.hex(), "multipart/form-data; boundary=b")
    assert echo.gateway.counts["requests"] - before == 2


def test_answers_come_decoded_and_without_what_is_the_providers_own(echo):
    answered = echo.ask(CHAT_PATH, CHAT, **{"accept-encoding": "gzip"})
    assert answered.headers["x-custom"] == "kept"
    assert answered.headers["content-encoding"] is answered.headers["set-cookie"] is None
    assert answered.json["choices"] == []


def test_a_method_that_no_provider_has_is_a_405(echo):
    for method in ("OPTIONS", "TRACE"):
        assert echo.ask("/v1/models", method=method).status == 405


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_usage_is_found_however_a_stream_is_cut(size):
    text = b'data: {"a": "usage"}\r\n\r\ndata: {"usage": {"total_tokens": 3}}\n\n: "usage"\ndata: [DONE]\n\n'
    events = _Events()
    found = [event for n in range(0, len(text), size) for event in events.of(text[n : n + size])]
    assert {"usage": {"total_tokens": 3}} in found


def test_an_event_without_end_is_not_kept(monkeypatch):
    monkeypatch.setattr("ratelimited_llm.gateway.answers.LONGEST_EVENT", 100)
    events = _Events()
    for _ in range(50):
        events.of(b"x" * 99)
    assert len(events._rest) <= 200
