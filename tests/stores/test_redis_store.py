"""The shared store on real servers: the contract, and what happens when a server does not do its part."""

from __future__ import annotations

import subprocess
import sys
import time
import traceback
from contextlib import closing

import pytest
from booking_cases import part
from servers import KeyServer, valkey_server
from shared_contract import SharedStoreContract, order

from ratelimited_llm.exceptions import SharedStoreLost
from ratelimited_llm.stores.redis_link import Address
from ratelimited_llm.stores.redis_store import RedisStore

SECRET = "hunter2"


@pytest.fixture
def open_store(server):
    """Stores on the running server, all closed at the end."""
    made = []

    def make(url=server.url, **options):
        made.append(RedisStore(url, **options))
        return made[-1]

    yield make
    for store in made:
        store.close()


class TestRedisStore(SharedStoreContract):
    @pytest.fixture
    def open_store(self, open_store):
        return open_store


@pytest.fixture
def own_server():
    """A server with a password that a test may do anything to."""
    with valkey_server(password=SECRET) as server:
        yield server


@pytest.fixture
def own(own_server):
    """A store on it."""
    with closing(RedisStore(own_server.url)) as store:
        yield store


def lost(call, *words: str) -> float:
    """Seconds until a call has raised SharedStoreLost, with these words and no secret."""
    began = time.monotonic()
    with pytest.raises(SharedStoreLost) as caught:
        call()
    took = time.monotonic() - began
    error = caught.value
    whole = "".join(traceback.format_exception(error)) + repr(error) + repr(error.__context__)
    assert SECRET not in whole
    assert all(word in str(error) for word in words), str(error)
    return took


def every_question(store: RedisStore):
    """All that can be asked."""
    return [
        lambda: store.book("pool", order(99)), lambda: store.report("a", {}), lambda: store.leave("a"), store.members,
        store.pools, store.control, lambda: store.control(paused=True),
    ]  # fmt: skip


def test_all_keys_of_a_prefix_are_on_one_node_and_go_away(server: KeyServer, open_store) -> None:
    """One hash tag, and a time to live on everything."""
    store = open_store(f"{server.url}?prefix=mine")
    store.book("pool", order(1))
    store.report("a", {})
    store.control(paused=False, cancel="tag", limits={"rpm": 5})
    keys = server.say("KEYS", "*").decode().split("\r\n")[2::2]
    assert len(keys) == 8
    assert all(key.startswith("{mine}:") for key in keys)
    assert all(int(server.say("TTL", key)[1:]) > 0 for key in keys)


def test_prefixes_are_apart(server: KeyServer, open_store) -> None:
    """Two budgets on one server."""
    open_store().book("pool", order(1, part(amount=60.0)))
    assert open_store(f"{server.url}?prefix=other").book("pool", order(1)).wait == 0.0


def test_a_booking_is_one_round_trip(server: KeyServer, open_store) -> None:
    """The server counts what it is asked."""
    store = open_store()
    store.book("pool", order(1))
    server.say("CONFIG", "RESETSTAT")
    for number in range(2, 12):
        store.book("pool", order(number))
    statistics = server.say("INFO", "commandstats").decode()
    assert "cmdstat_evalsha:calls=10," in statistics
    assert "cmdstat_eval:" not in statistics


def test_a_unix_socket_is_a_way_too(server: KeyServer, open_store) -> None:
    """unix:///path"""
    store = open_store(f"unix://{server.socket_path}?db=0")
    assert store.book("pool", order(1)).booked
    assert repr(store) == f"<RedisStore {server.socket_path}>"


def test_valkey_is_a_scheme(server: KeyServer, open_store) -> None:
    """valkey://"""
    assert open_store(server.url.replace("redis:", "valkey:")).book("pool", order(1)).booked


def test_a_server_that_is_gone_is_said_at_once_and_found_again(own_server: KeyServer, own: RedisStore) -> None:
    """Stopped, and started with nothing in it: the script is sent again, and who knows better is believed."""
    own.book("pool", order(1, part(amount=60.0)))
    own_server.stop()
    for ask in every_question(own):
        assert lost(ask, f"127.0.0.1:{own_server.port}", "no connection") < 1.0
    own_server.start()
    assert own.book("pool", order(2, part(last_level=-3.0))).wait == pytest.approx(4.0, abs=1e-4)


def test_a_restart_between_two_orders_is_not_noticed(own_server: KeyServer, own: RedisStore) -> None:
    """Connections that the server has closed are not used."""
    own.book("pool", order(1))
    own_server.restart()
    assert own.book("pool", order(2)).booked
    own_server.restart()
    assert own.members() == []


def test_a_server_that_hangs_holds_nobody_for_a_second(own_server: KeyServer, own: RedisStore) -> None:
    """With an open connection, and with none; what was sent twice is charged once."""
    own.book("pool", order(1, part(amount=50.0)))
    own_server.pause()
    assert lost(lambda: own.book("pool", order(2)), "no answer within 0.25 s") < 1.0
    assert lost(lambda: own.book("pool", order(2)), "no answer") < 1.0
    assert lost(own.members, "no answer") < 1.0
    own_server.resume()
    assert own.book("pool", order(2)).limits[0].level == pytest.approx(9.0, abs=4.0)
    assert own.book("pool", order(3)).limits[0].level == pytest.approx(8.0, abs=4.0)


def test_a_read_only_replica_is_said(own_server: KeyServer, own: RedisStore) -> None:
    """It could answer, but not count."""
    own.book("pool", order(1))
    own_server.say("REPLICAOF", "127.0.0.1", "1")
    lost(lambda: own.book("pool", order(2)), "read-only")
    lost(lambda: own.report("a", {}), "read-only")


def test_a_full_server_is_said_and_has_changed_nothing(own_server: KeyServer, own: RedisStore) -> None:
    """Out of memory."""
    own.book("pool", order(1))
    own_server.say("CONFIG", "SET", "maxmemory-policy", "noeviction")
    own_server.say("CONFIG", "SET", "maxmemory", "1")
    lost(lambda: own.book("pool", order(2)), "out of memory")
    lost(lambda: own.control(paused=True), "out of memory")
    own_server.say("CONFIG", "SET", "maxmemory", "0")
    answer = own.book("pool", order(3))
    assert answer.limits[0].level == pytest.approx(58.0, abs=1.9)


@pytest.mark.parametrize("key", ["pool:pool", "pool:pool:orders", "pool:pool:busy", "pools", "wishes"])
def test_keys_of_another_application_are_said(own_server: KeyServer, own: RedisStore, key: str) -> None:
    """Wrong types."""
    own_server.say("RPUSH", "{rll}:" + key, "theirs")
    lost(lambda: own.book("pool", order(1)), "another application's keys", "?prefix=")
    assert own_server.say("LRANGE", "{rll}:" + key, "0", "-1") == b"*1\r\n$6\r\ntheirs\r\n"


def test_a_wrong_password_is_said_and_not_shown(own_server: KeyServer) -> None:
    """Wrong, missing, and with a user that there is not."""
    for url in (
        own_server.url.replace(SECRET, SECRET + "-wrong"),
        own_server.url.replace(f":{SECRET}@", ""),
        own_server.url.replace(f":{SECRET}", f"somebody:{SECRET}"),
    ):
        with closing(RedisStore(url)) as store:
            lost(lambda store=store: store.book("pool", order(1)), "refuses the user or the password")
            assert SECRET not in repr(store) + str(vars(store))


def test_a_user_without_the_right_is_said(own_server: KeyServer) -> None:
    """Access lists."""
    own_server.say("ACL", "SETUSER", "weak", "on", f">{SECRET}", "~*", "+@all", "-evalsha")
    with closing(RedisStore(own_server.url.replace(f":{SECRET}", f"weak:{SECRET}"))) as store:
        lost(lambda: store.book("pool", order(1)), "may not do this")


def test_an_hour_more_or_less_on_the_servers_clock_blocks_nobody(server: KeyServer, open_store) -> None:
    """Failing over to a server with another clock."""
    for step in (3600.0, -3600.0, -7200.0, 7200.0):
        server.say("FLUSHALL")
        now = time.time()
        store = open_store(clock=lambda now=now: now)
        store.book("pool", order(1, part(amount=60.0)))
        assert store.book("pool", order(2)).wait == pytest.approx(1.0, abs=1e-5)
        stepped = open_store(clock=lambda now=now, step=step: now + step)
        waits = [stepped.book("pool", order(number)).wait for number in range(3, 70)]
        assert waits.count(0.0) == (60 if step > 0.0 else 0)
        assert max(waits) <= 70.0


def test_a_kill_of_the_process_in_the_middle_leaves_the_pool_whole(server: KeyServer, open_store) -> None:
    """kill -9 between any two bytes."""
    program = (
        "import sys\nfrom ratelimited_llm.stores.redis_store import RedisStore\n"
        "from ratelimited_llm.core.booking import Order, Part\nstore = RedisStore(sys.argv[1])\n"
        "number = 0\nprint('go', flush=True)\n"
        "while True:\n    number += 1\n    store.book('pool', Order('x', number, (Part('rpm', 1.0, 60.0, 1e9),)))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, server.url], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        process.kill()
    answer = open_store().book("pool", order(1, part(limit=None)))
    assert (answer.booked, answer.wait) == (True, 0.0)


WITH = f"redis://:{SECRET}@host"
BAD_URLS = [
    f"http://:{SECRET}@host", f"{WITH}:port/0", f"{WITH}:99999", f"redis://:{SECRET}@[::1", f"{WITH}/zero",
    f"{WITH}/0?timeout=9", f"{WITH}/0?prefix=a{{b", f"{WITH}/0?{SECRET}", f"{WITH}/0#{SECRET}",
    f"redis://:{SECRET}#1@host/0", SECRET, "",
]  # fmt: skip


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_url_that_cannot_be_understood_is_refused_without_repeating_it(url: str) -> None:
    """At once, with the form that is taken."""
    with pytest.raises(ValueError, match=r"budget=|prefix=") as caught:
        RedisStore(url)
    whole = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__)
    assert SECRET not in whole.replace(repr(url), "")


def test_a_url_is_taken_apart() -> None:
    """User, password, port, database and prefix."""
    address = Address.read("rediss://me:p%40ss@example.com:7000/3?prefix=a.b&ssl_cert_reqs=none")
    assert (address.shown, address.prefix, address.tls) == ("example.com:7000", "a.b", True)
    assert address.options == {
        "db": 3, "username": "me", "password": "p@ss", "ssl_cert_reqs": "none", "host": "example.com", "port": 7000,
    }  # fmt: skip
    assert "p@ss" not in repr(address)
    assert Address.read("redis://").shown == "localhost:6379"
