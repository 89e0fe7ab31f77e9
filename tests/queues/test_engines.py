"""What every engine promises: see `ratelimited_llm.queues.engines`. A new one is finished when it passes."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager

import pytest
from servers import valkey_server
from working import Notes

from ratelimited_llm.exceptions import SharedStoreLost
from ratelimited_llm.queues import CLASSES, QueueAddress, Stop, class_of, engine_for

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")


@pytest.fixture(params=["dramatiq", "celery"])
def engine(request, server):
    """One engine of each kind on the same server."""
    pytest.importorskip(request.param)
    made = engine_for(QueueAddress.parse(f"{request.param}+{server.url}"))
    yield made
    made.close()


@contextmanager
def consuming(engine, handler, **options):
    """A worker of the engine in a thread, until the block ends."""
    stop = Stop(options.pop("drain", 2.0))
    given = {"concurrency": 4, "heartbeat": 2.0, "stop": stop, **options}
    thread = threading.Thread(target=engine.consume, args=(handler,), kwargs=given)
    thread.start()
    try:
        yield stop
    finally:
        stop.ask()
        thread.join(15)
        assert not thread.is_alive()


def test_jobs_arrive_as_they_were_submitted_the_highest_class_first_and_once(engine, server):
    """JSON in, the same JSON out; what was put back comes again, also later; what is done or refused does not."""
    submitted = [(rank, {"n": n, "text": "naïve ☃", "deep": [{"a": None}]}) for n in range(4) for rank in CLASSES]
    for rank, job in reversed(submitted):  # the low ones first
        engine.submit(job, rank)
    delays = {0: [0.3], 1: [0.0]}  # of the high ones

    def then(ticket):
        left = delays.get(ticket.job["n"], []) if ticket.rank == "high" else []
        if left:
            ticket.put_back(left.pop())
        elif ticket.job["n"] == 2:
            ticket.refuse()
        else:
            ticket.done()

    notes = Notes(then)
    with consuming(engine, notes, concurrency=1):
        notes.wait_for(len(submitted) + 2)
    assert sorted(map(repr, notes.jobs)) == sorted(
        map(repr, [*submitted, ("high", submitted[0][1]), ("high", submitted[3][1])])
    )
    firsts = [rank for rank, job in notes.jobs[:4]]
    assert firsts == ["high"] * 4
    late = Notes()
    with consuming(engine, late):
        time.sleep(0.3)
    assert late.jobs == []


def test_a_job_put_back_for_later_is_not_delivered_before(engine):
    """`submit(delay)`: not before its time, and then soon."""
    began = time.monotonic()
    engine.submit({"n": 1}, "normal", 0.5)
    came = []
    notes = Notes(lambda ticket: (came.append(time.monotonic() - began), ticket.done()))
    with consuming(engine, notes):
        notes.wait_for(1)
    assert came[0] >= 0.45


def test_a_stopped_worker_gives_back_what_it_has(engine):
    """What a worker still has when it stops is delivered to the next one."""
    engine.submit({"n": 1}, "high")
    open_ones = Notes(then=None)
    with consuming(engine, open_ones, drain=0.5):
        open_ones.wait_for(1)
    others = Notes()
    with consuming(engine, others):
        others.wait_for(1)
    assert others.jobs == [("high", {"n": 1})]


@pytest.mark.parametrize("kind", ["dramatiq", "celery"])
def test_a_server_that_is_not_there_or_hangs_is_an_error_within_a_second_or_so(kind):
    """SharedStoreLost, with no password in it, however the server is lost; and when it is back, so is the queue."""
    pytest.importorskip(kind)
    with valkey_server(password="hush-hush") as server:
        engine = engine_for(QueueAddress.parse(f"{kind}+{server.url}"))
        engine.submit({"n": 1}, "low")
        for lose, back in ((server.pause, server.resume), (server.stop, server.start)):
            lose()
            began = time.monotonic()
            with pytest.raises(SharedStoreLost) as caught:
                engine.submit({"n": 2}, "low")
            assert time.monotonic() - began < 2.0
            assert "hush" not in str(caught.value)
            back()
        engine.submit({"n": 3}, "low")
        engine.close()


@pytest.mark.parametrize("kind", ["dramatiq", "celery"])
def test_nothing_but_json_is_on_the_server(kind, server):
    """Whatever dramatiq or Celery are told elsewhere in the process: no pickle, no key of ours without our prefix."""
    pytest.importorskip(kind)
    import redis

    engine = engine_for(QueueAddress.parse(f"{kind}+{server.url}"))
    engine.submit({"n": 1}, "normal")
    engine.close()
    with redis.Redis.from_url(server.url) as client:
        keys = [key.decode() for key in client.keys("*")]
        assert all(key.startswith("rll:llm:") for key in keys), keys
        if kind == "dramatiq":
            (raw,) = client.hvals("rll:llm:dramatiq:normal.msgs")
        else:
            raw = client.lindex("rll:llm:celery:normal", 0)
    message = json.loads(raw)
    assert message.get("content-type", "application/json") == "application/json"


def test_classes_cover_all_priorities():
    """From critical to background, each priority has one of the three classes."""
    assert [class_of(priority) for priority in range(11)] == ["high"] * 3 + ["normal"] * 4 + ["low"] * 4


@pytest.mark.parametrize(
    "text",
    ["", "redis://h/0", "dramatiq://h", "dramatiq+http://h/0", "rabbit+redis://h", "dramatiq+redis://h:99999999/0",
     "dramatiq+redis://:secret@h/0?name=a/b", "dramatiq+redis://:secret@h/0?keep=none", "celery+redis://h/0?keep=0",
     "dramatiq+redis://"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_without_quoting_it(text):
    """ValueError at once, and no password in it."""
    with pytest.raises(ValueError, match="queue=") as caught:
        QueueAddress.parse(text)
    assert "secret" not in str(caught.value)


def test_an_address_never_shows_its_password():
    """Neither its repr nor what is shown of it."""
    address = QueueAddress.parse("dramatiq+valkeys://me:secret@h:1/2?name=night&keep=60&ssl_ca_certs=x")
    assert (address.shown, address.name, address.keep) == ("dramatiq+valkeys://h:1/2", "night", 60.0)
    assert address.server == "rediss://me:secret@h:1/2?ssl_ca_certs=x"
    assert "secret" not in repr(address)
    with pytest.raises(TypeError):
        QueueAddress.parse(3)
