"""The shared store in a file: the contract, and what happens when the file does not do its part."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from booking_cases import NOON, part
from shared_contract import Clock, SharedStoreContract, order

from ratelimited_llm.exceptions import SharedStoreLost
from ratelimited_llm.stores.sqlite_store import SqliteStore, default_path

BOOKING = (
    "import sys\nfrom ratelimited_llm.stores.sqlite_store import SqliteStore\n"
    "from ratelimited_llm.core.booking import Order, Part\nstore = SqliteStore(sys.argv[1])\nnumber = 0\n"
    "print('go', flush=True)\n"
    "while number < int(sys.argv[2]):\n    number += 1\n"
    "    store.book('pool', Order(sys.argv[3], number, (Part('rpm', 1.0, 60.0, 60.0, 1e6),)))\n"
)


@pytest.fixture
def path(tmp_path) -> Path:
    """Where the file will be."""
    return tmp_path / "state" / "budget.db"


@pytest.fixture
def open_store(path):
    """Stores in one file, all closed at the end."""
    made = []

    def make(**options):
        made.append(SqliteStore(path, **options))
        return made[-1]

    yield make
    for store in made:
        store.close()


class TestSqliteStore(SharedStoreContract):
    @pytest.fixture
    def open_store(self, open_store):
        return open_store


def booking(path: Path, orders: int, member: str) -> subprocess.Popen[bytes]:
    """A process that books, one after another."""
    return subprocess.Popen([sys.executable, "-c", BOOKING, str(path), str(orders), member], stdout=subprocess.PIPE)


def lost(call, *words: str) -> float:
    """Seconds until a call has raised SharedStoreLost, with these words."""
    began = time.monotonic()
    with pytest.raises(SharedStoreLost) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)
    return time.monotonic() - began


def test_the_file_is_nobody_elses(path: Path, open_store) -> None:
    """0600, in a folder of 0700, whatever the umask; and nothing is left beside it."""
    before = os.umask(0)
    try:
        store = open_store()
    finally:
        os.umask(before)
    store.book("pool", order(1))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o600}
    store.close()
    assert os.listdir(path.parent) == ["budget.db"]


def test_the_usual_file_is_in_the_users_folder(monkeypatch, tmp_path) -> None:
    """As the system says, unless the environment names another one."""
    for platform, expected in (
        ("linux", tmp_path / "xdg" / "ratelimited-llm"),
        ("darwin", tmp_path / "Library" / "Application Support" / "ratelimited-llm"),
        ("win32", tmp_path / "local" / "ratelimited-llm"),
    ):
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
        monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
        assert default_path() == expected / "budget.db"
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    assert default_path("learned") == tmp_path / ".local" / "state" / "ratelimited-llm" / "learned.db"
    monkeypatch.setenv("RATELIMITED_LLM_STATE", "~/mine")
    assert default_path() == tmp_path / "mine" / "budget.db"
    with closing(SqliteStore()) as store:
        assert store.book("pool", order(1)).booked
    assert (tmp_path / "mine" / "budget.db").exists()


def test_learned_limits_are_kept_for_thirty_days(open_store) -> None:
    """By pool; what is no limit is not kept."""
    clock = Clock()
    store = open_store(clock=clock)
    store.remember("a", {"rpm": 500.0, "tpm": 3e4, "rpd": float("nan"), "tpd": 0.0})
    store.remember("b", {"rpm": 60})
    clock.now += 29 * 86_400.0
    store.remember("a", {"rpm": 250.0})
    assert open_store(clock=clock).recall("a") == {"rpm": 250.0, "tpm": 3e4}
    clock.now += 2 * 86_400.0
    assert (store.recall("a"), store.recall("b"), store.recall("c")) == ({"rpm": 250.0}, {}, {})


def test_what_was_told_is_there_for_the_next_process(path: Path, open_store) -> None:
    """A level survives the end of a process."""
    with booking(path, 20, "x") as process:
        assert process.wait() == 0
    store = open_store()
    assert store.book("pool", order(1, part(capacity=1e6))).limits[0].level == pytest.approx(1e6 - 21.0, abs=5.0)


def test_killed_processes_lose_nothing_and_hold_nothing(path: Path, open_store) -> None:
    """kill -9 of two that book as fast as they can: the next booking goes at once, and the file is whole."""
    open_store()
    processes = [booking(path, 10**9, name) for name in "xy"]
    for process in processes:
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"go\n"
            process.send_signal(signal.SIGKILL)
    store = open_store()
    assert store.book("pool", order(1, part(capacity=1e6))).booked
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no SIGSTOP here")
def test_a_writer_that_hangs_holds_nobody_for_a_second(path: Path, open_store) -> None:
    """Another process in the middle of a transaction."""
    store = open_store()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for ask in (lambda: store.book("pool", order(1)), store.members, lambda: store.report("a", {})):
            assert lost(ask, str(path), "another process holds it") < 1.0
        other.execute("ROLLBACK")
    assert store.book("pool", order(1)).booked


@pytest.mark.parametrize("content", [b"hello", b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 4080])
def test_a_file_of_something_else_is_left_as_it_is(path: Path, content: bytes) -> None:
    """It is said, and nothing is changed or deleted."""
    path.parent.mkdir()
    path.write_bytes(content)
    lost(lambda: SqliteStore(path), str(path))
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("statement", "word"),
    [("PRAGMA user_version = 2", "newer"), ("PRAGMA application_id = 7", "another application's"),
     ("DROP TABLE pools", "tables are missing")],
)  # fmt: skip
def test_a_database_of_something_else_is_left_as_it_is(path: Path, statement: str, word: str) -> None:
    """A newer version's, another application's, or half of one."""
    SqliteStore(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)
    before = path.read_bytes()
    lost(lambda: SqliteStore(path), word)
    assert path.read_bytes() == before


def test_a_damaged_file_is_said_and_left_as_it_is(path: Path) -> None:
    """Pages that were written over, found when they are read."""
    with closing(SqliteStore(path)) as store:
        for number in range(50):
            store.book(f"pool {number}", order(1))
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xaa" * (len(whole) - 4096))
    damaged = path.read_bytes()

    def use() -> None:
        with closing(SqliteStore(path)) as store:
            store.book("pool 1", order(2))

    lost(use, "it is damaged", "move it away")
    assert path.read_bytes() == damaged


def test_a_file_that_is_deleted_or_replaced_is_made_anew(path: Path, open_store) -> None:
    """In the middle of a run; everybody goes on with what is there now."""
    store, other = open_store(), open_store()
    store.book("pool", order(1, part(amount=60.0)))
    shutil.rmtree(path.parent)
    assert store.book("pool", order(2, part(amount=60.0))).wait == 0.0
    assert other.book("pool", order(1, member="b")).wait > 0.0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_file_is_said(path: Path, open_store) -> None:
    """When it is opened."""
    SqliteStore(path).close()
    path.chmod(0o400)
    lost(open_store, str(path))


def test_a_folder_that_cannot_be_made_is_said(tmp_path) -> None:
    """A file is in its place, or a folder is in the place of the file."""
    (tmp_path / "file").write_text("x")
    lost(lambda: SqliteStore(tmp_path / "file" / "budget.db"), "budget.db")
    lost(lambda: SqliteStore(tmp_path / "file" / "more" / "budget.db"), "budget.db")
    lost(lambda: SqliteStore(tmp_path), "it is no file")


def test_a_full_disk_is_said_and_the_last_state_stays(open_store) -> None:
    """SQLite's own limit stands for the disk's."""
    store = open_store()
    store.book("pool", order(1, part(amount=60.0)))
    assert store._connection is not None
    [pages] = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    lost(lambda: [store.book(f"{number}" * 900, order(1)) for number in range(50)], "full")
    assert store.book("pool", order(2)).wait > 0.0


def test_a_poisoned_row_is_a_pool_that_begins_anew(path: Path, open_store) -> None:
    """Lines that are no JSON, and wishes that make no sense."""
    store = open_store(clock=lambda: NOON)
    store.book("pool", order(1, part(amount=60.0)))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO wishes VALUES ('limit rpm', 'nan'), ('news', '1e300'), ('paused', 'x')")
        connection.execute("UPDATE pools SET lines = '[[], 5]'")
    assert store.book("pool", order(2)).wait == 0.0
    assert store.control(cancel="x").news > 0
    for lines in ("", "{}", "[1]", "nonsense", '[{"rpm": 5}, {"a": null}]'):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE pools SET lines = ?", (lines,))
        assert store.book("pool", order(3)).booked
        assert store.pools()[0].name == "pool"
