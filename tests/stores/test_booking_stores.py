"""The table of cases again: in Lua on every server that is installed, and in SQLite."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
from booking_cases import CASES, NOON, Case, play
from booking_orders import moves, orders_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared_contract import Clock

from ratelimited_llm.core.booking_pool import book
from ratelimited_llm.stores.redis_store import RedisStore
from ratelimited_llm.stores.sqlite_store import SqliteStore


def play_on(case: Case, store, clock: Clock, spoil) -> None:
    """Go through a case on a store."""

    def book(now, order):
        clock.now = now
        return store.book("a pool: {of} mine/ü", order)

    play(case, book, spoil, store.control)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_table_holds_in_lua(case: Case, server) -> None:
    """On a real server."""
    clock = Clock()
    store = RedisStore(server.url, clock=clock)
    key = "{rll}:pool:a%20pool%3A%20%7Bof%7D%20mine%2F%C3%BC"
    try:
        play_on(case, store, clock, lambda line, text: server.say("HSET", key, line, text))
    finally:
        store.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_table_holds_in_sqlite(case: Case, tmp_path) -> None:
    """In a file."""
    clock = Clock()
    store = SqliteStore(tmp_path / "budget.db", clock=clock)

    def spoil(line, text):
        with closing(sqlite3.connect(store.path)) as connection, connection:
            [lines] = connection.execute("SELECT lines FROM pools").fetchone()
            state, orders = json.loads(lines)
            connection.execute("UPDATE pools SET lines = ?", (json.dumps([state | {line: text}, orders]),))

    try:
        play_on(case, store, clock, spoil)
    finally:
        store.close()


@given(st.lists(moves, max_size=40))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lua_answers_what_python_does(server, traffic) -> None:
    """Random traffic, answered by both."""
    server.say("FLUSHALL")
    clock = Clock()
    state, orders = {}, {}
    with closing(RedisStore(server.url, clock=clock)) as store:
        for at, order in orders_of(traffic):
            clock.now = NOON + at
            theirs, ours = store.book("pool", order), book(state, orders, order, clock.now)
            assert (theirs.booked, theirs.wait, theirs.members) == (ours.booked, approx(ours.wait), ours.members)
            assert [each.level for each in theirs.limits] == approx([each.level for each in ours.limits])


def approx(expected):
    """Equal but for rounding."""
    return pytest.approx(expected, rel=1e-9, abs=1e-6)
