"""A pytest plugin: a provider for an SDK's own tests, and a record of those that passed. No part of our own test run.

Most of an SDK's tests ask a mock of its API, whose specification is not in its sdist. This one answers each request
with the smallest body that the type of the answer allows. How to run it is told in `in_place_of_sdk`. Afterwards

    python tests/integrations/stand_in.py plain.json ours.json

counts, of the tests that go through `request()` and pass with the plain client, those that pass with ours.
"""

from __future__ import annotations

import collections.abc
import hashlib
import importlib
import json
import os
import sys
import threading
import types
from datetime import date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

WHICH, RESULTS = "x-stand-in", "STAND_IN_RESULTS"
DEEP = 12
DAY = "2026-11-29"
SIMPLE = {str: "string", int: 0, float: 0.0, bool: True, bytes: "", datetime: f"{DAY}T08:00:00Z", date: DAY}
JSON = "application/json"


# -- the smallest answer of a type ------------------------------------------------------------------------------------


def example(kind: Any, depth: int = 0) -> Any:
    """A JSON value that a type takes; unknown types are {}."""
    kind = getattr(kind, "__value__", kind)
    origin, args = get_origin(kind), get_args(kind)
    if kind in SIMPLE:
        return SIMPLE[kind]
    if origin is Annotated:
        return example(args[0], depth)
    if origin is Literal:
        return args[0]
    if origin in (Union, types.UnionType):
        return None if depth > DEEP and type(None) in args else example(args[0], depth)
    if origin in (list, collections.abc.Sequence, collections.abc.Iterable):
        return [] if depth > DEEP else [example(args[0], depth + 1)]
    if kind is type(None) or isinstance(kind, TypeVar):
        return None
    fields = getattr(kind, "model_fields", None) or {}
    return {
        field.alias or name: example(field.annotation, depth + 1)
        for name, field in fields.items()
        if field.is_required() or get_origin(field.annotation) is Literal
    }


def answer_of(cast_to: Any, stream: bool) -> tuple[str, bytes]:
    """The content type and the body of an answer."""
    name = getattr(get_origin(cast_to) or cast_to, "__name__", "")
    if stream:
        return "text/event-stream", b""
    if name in ("JSONLDecoder", "AsyncJSONLDecoder"):
        return "application/jsonl", json.dumps(example(get_args(cast_to)[0])).encode() + b"\n"
    if cast_to is str:
        return "text/plain", b"string"
    if "Binary" in name or cast_to is bytes:
        return "application/octet-stream", b"bytes"
    return JSON, json.dumps(example(cast_to)).encode()


# -- the provider -----------------------------------------------------------------------------------------------------


class Provider(BaseHTTPRequestHandler):
    """Answers with what the request was promised."""

    protocol_version = "HTTP/1.1"
    promised: dict[str, tuple[str, bytes]] = {}  # noqa: RUF012

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        kind, body = self.promised.get(self.headers.get(WHICH, ""), (JSON, b"{}"))
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def log_message(self, *args: Any) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    """Many tests leave a connection open."""

    daemon_threads = True
    request_queue_size = 128


# -- the plugin -------------------------------------------------------------------------------------------------------

_asked: set[str] = set()  # "sync", "async": what the test that runs now has gone through


def _watch(client: type, way: str, url: str) -> None:
    send = client.request  # type: ignore[attr-defined]

    def request(self: Any, cast_to: Any, options: Any, *, stream: bool = False, **rest: Any) -> Any:
        _asked.add(way)
        if str(self.base_url).startswith(url):
            promise = answer_of(cast_to, stream)
            # The same for the same answer, since some tests compare the headers of two requests.
            which = hashlib.sha256(repr(promise).encode()).hexdigest()
            Provider.promised[which] = promise
            headers = {**(options.headers or {}), WHICH: which}
            options = options.model_copy(update={"headers": headers})
        return send(self, cast_to, options, stream=stream, **rest)

    client.request = request  # type: ignore[attr-defined]


def _stand_in() -> None:
    server = Server(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = os.environ["TEST_API_BASE_URL"] = f"http://127.0.0.1:{server.server_port}"
    for sdk in os.environ["STAND_IN_FOR"].split():
        base = importlib.import_module(f"{sdk}._base_client")
        _watch(base.SyncAPIClient, "sync", url)
        _watch(base.AsyncAPIClient, "async", url)


if "STAND_IN_FOR" in os.environ:
    _stand_in()  # here, since a suite's conftest reads the variable when it is imported


def pytest_runtest_setup(item: Any) -> None:
    """A new test has asked nothing yet."""
    _asked.clear()


def pytest_runtest_teardown(item: Any) -> None:
    """What the test asked travels with its report."""
    item.user_properties.extend(("asked", way) for way in sorted(_asked))


class _Record:
    def __init__(self) -> None:
        self.tests: dict[str, Any] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        seen = self.tests.setdefault(report.nodeid, {"asked": [], "passed": True, "skipped": False})
        seen["passed"] &= not report.failed
        seen["skipped"] |= report.skipped
        seen["asked"] = sorted({value for name, value in report.user_properties if name == "asked"})

    def pytest_sessionfinish(self) -> None:
        Path(os.environ[RESULTS]).write_text(json.dumps(self.tests), encoding="utf-8")


def pytest_sessionstart(session: Any) -> None:
    """The process that hears of every test keeps the record."""
    if RESULTS in os.environ and not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(_Record())


def main(plain: str, ours: str) -> None:
    """Print the counts, and the tests that make the difference."""
    before, after = (json.loads(Path(name).read_text(encoding="utf-8")) for name in (plain, ours))
    for way in ("sync", "async"):
        asked = {name: seen for name, seen in before.items() if way in seen["asked"]}
        counted = [name for name, seen in asked.items() if seen["passed"] and not seen["skipped"]]
        failed = [name for name in counted if not after.get(name, {"passed": False})["passed"]]
        print("\n    ".join([f"{way}: {len(counted) - len(failed)} of {len(counted)}", *failed]))


if __name__ == "__main__":
    main(*sys.argv[1:])
