"""Attempts that no timeout of an HTTP client ends: a resolver that hangs, an answer that trickles. Deadlines hold.

In real time, since threads are stuck for real; what hangs does so until the test lets it go.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
from types import SimpleNamespace

import pytest
from talking import ask
from waiting import wait_until

from ratelimited_llm import AsyncOpenAI, OpenAI, RequestExpired, requests
from ratelimited_llm.requests import hosts

HOST = "provider.invalid"
BODY = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture
def resolver(monkeypatch):
    """A name service that hangs for one host until `go` is set, and then finds it on loopback; `asked` counts."""
    found, state = socket.getaddrinfo, SimpleNamespace(go=threading.Event(), asked=0, over=False)

    def look_up(host, *args, **kwargs):
        if host in (HOST, HOST.encode()):
            state.asked += 1
            state.go.wait(60)
            if state.over:
                raise socket.gaierror(socket.EAI_NONAME, "not found")
            host = "127.0.0.1"
        return found(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield state
    state.over = True  # the provider stops, so nobody should call it now
    state.go.set()


def stuck(door, provider, cls=OpenAI, **options):
    """A client whose provider's name is not found."""
    return door(cls, base_url=f"http://{HOST}:{provider.port}/v1", **options)


def test_a_call_whose_name_is_not_found_ends_with_its_deadline_and_is_never_sent(simulator, door, resolver):
    """Its caller is told on time, other hosts go on, and when the name is found at last nothing is sent."""
    provider = simulator()
    client = stuck(door, provider, deadline=0.2, max_concurrency=1)
    first = ask(client)
    with pytest.raises(RequestExpired) as caught:
        first.result(timeout=30)
    assert not resolver.go.is_set()
    assert caught.value.allowed == pytest.approx(0.2)
    assert first.ratelimit.state == "failed"
    assert ask(door(OpenAI, provider, deadline=30)).choices
    with pytest.raises(RequestExpired):  # the place is taken until the resolver is back, and nobody waits for it long
        ask(client).result(timeout=30)
    assert resolver.asked == 1
    status = client.status()
    assert (status.failed, status.queued, status.in_flight, status.answered) == (2, 0, 0, 0)
    resolver.go.set()
    assert ask(client.with_options(deadline=30)).choices
    assert provider.counters.requests == 2


def test_close_and_wait_do_not_wait_for_a_stuck_thread(simulator, door, resolver):
    """Nobody waits for its call any more."""
    client = stuck(door, simulator(), deadline=0.1)
    future = ask(client)
    assert client.wait(timeout=30)
    assert isinstance(future.exception(), RequestExpired)
    client.close()
    assert client._runtime.worker.wait(30)
    assert not resolver.go.is_set()


def test_a_blocking_call_is_not_sent_after_its_deadline(simulator, door, resolver):
    """The caller's own thread is stuck, which nobody can help; what it would have sent then, it does not send."""
    provider = simulator()
    client = stuck(door, provider, deadline=0.1, mode="blocking")
    threading.Timer(0.4, resolver.go.set).start()
    with pytest.raises(RequestExpired):
        ask(client)
    assert provider.counters.requests == 0
    assert ask(client.with_options(deadline=30)).choices


def test_a_task_is_told_on_time(simulator, resolver):
    """The loop goes on; only asyncio's own thread for look-ups is stuck."""
    provider = simulator()

    async def main():
        async with AsyncOpenAI(api_key="sk-test", base_url=f"http://{HOST}:{provider.port}/v1", deadline=0.1) as client:
            with pytest.raises(RequestExpired):
                await ask(client)
        assert not resolver.go.is_set()
        resolver.go.set()  # asyncio.run() joins that thread

    asyncio.run(main())
    assert provider.counters.requests == 0


def test_a_raw_request_ends_with_its_deadline_too(simulator, resolver):
    """Through `requests` as through the SDKs."""
    provider = simulator()
    base_url = f"http://{HOST}:{provider.port}/v1"
    hosts.add_hosts({base_url: "openai"})
    try:
        with requests.Session(deadline=0.2) as session:
            response = session.post(f"{base_url}/chat/completions", json=BODY)
            with pytest.raises(RequestExpired):
                response.result(timeout=30)
            assert not resolver.go.is_set()
            resolver.go.set()
            wait_until(lambda: not session.status().in_flight)
    finally:
        hosts.forget_hosts()


def test_an_answer_that_trickles_does_not_outlast_the_deadline(door):
    """Each byte comes in time for the timeout of a read, and the whole never comes."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n")
                while not over.wait(0.05):
                    connection.sendall(b" ")

        thread = threading.Thread(target=serve)
        thread.start()
        client = door(OpenAI, base_url=f"http://127.0.0.1:{server.getsockname()[1]}/v1", deadline=0.3)
        try:
            with pytest.raises(RequestExpired):
                ask(client).result(timeout=30)
            assert not over.is_set()
        finally:
            over.set()
            thread.join()
        wait_until(lambda: not client._runtime.worker.engine.senders.threads or not client.status().in_flight)


def test_the_late_answer_of_a_journalled_call_harms_nobody(simulator, door, resolver, tmp_path):
    """Its caller has gone; the next one with the same question is answered, once."""
    provider = simulator()
    client = stuck(door, provider, deadline=0.2, journal=tmp_path / "run.db")
    with pytest.raises(RequestExpired):
        ask(client).result(timeout=30)
    resolver.go.set()
    assert ask(client.with_options(deadline=30)).choices
    assert provider.counters.requests == 1


def test_calls_with_long_deadlines_are_not_kept_for_them(simulator, door):
    """A call that has ended is forgotten long before its deadline."""
    client = door(OpenAI, simulator(), deadline=3_600)
    for _ in range(5):
        futures = [ask(client) for _ in range(60)]
        assert all(future.choices for future in futures)
    assert len(client._runtime.worker.engine._overdue) <= 64 + 2 * 60 + 1


def test_a_script_does_not_wait_for_a_stuck_resolver_at_its_end(warm_python):
    """It ends as its calls have, though the name service would take an hour."""
    code = f"""
import socket, time
real = socket.getaddrinfo
def look_up(host, *args, **kwargs):
    if host in ({HOST!r}, {HOST.encode()!r}):
        time.sleep(3600)
    return real(host, *args, **kwargs)
socket.getaddrinfo = look_up
from ratelimited_llm import OpenAI
client = OpenAI(api_key="sk-test", base_url="http://{HOST}/v1", deadline=0.5)
left = client.chat.completions.create(model="m", messages=[])
try:
    client.chat.completions.create(model="m", messages=[]).result()
except TimeoutError as error:
    print(type(error).__name__, flush=True)
"""
    done = subprocess.run([*warm_python, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["RequestExpired"]
    assert done.returncode == 0, done.stderr
