"""Several processes on one journal: two at once, killed ones, and the two sides of a fork."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from forking import in_child
from journalling import Told, answer, do, finish, key, kill, python

from ratelimited_llm.stores import journal_opening
from ratelimited_llm.stores.journal import Claimed, Elsewhere, Journal

KILLS = 12
IN_FLIGHT = 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


SHARE_THE_WORK = """
numbers, sent = list(range(120)), []
random.Random(sys.argv[1]).shuffle(numbers)
def ask(number):
    place = (key(number), 0)
    while journal.find(*place) is None:
        assert journal.enlist(*place)
        found = journal.claim(*place, lambda: b"")
        if isinstance(found, Claimed):
            sent.append(number)
            time.sleep(0.001)
            journal.record(*place, answer(str(number)))
        elif not isinstance(found, Recorded):
            told = Told()
            journal.follow(*place, told)
            told.wait()
            journal.release(*place)
def work():
    while numbers:
        try:
            ask(numbers.pop())
        except IndexError:
            return
sys.stdin.readline()
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert all(journal.find(key(number), 0).body == str(number).encode() for number in range(120))
assert journal.trouble is None
print(*sent)
"""


def test_two_processes_never_send_the_same_call_and_both_have_all_answers(path: Path) -> None:
    """Both begin at once on a file that is not there yet, each with eight threads and in its own order."""
    both = [python(path, SHARE_THE_WORK, str(seed)) for seed in range(2)]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    sent = [output.split() for output in map(finish, both)]
    assert sorted(int(number) for part in sent for number in part) == list(range(120))
    with Journal(path) as journal:
        stats = journal.stats()
        assert (stats.answered, stats.unfinished, stats.failed) == (120, 0, 0)


def test_a_file_that_another_process_is_just_making_is_no_strangers(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one commits its tables between two looks of this one."""
    plain = journal_opening.open_for_reading
    made: list[Journal] = []

    def between(*args: Any) -> sqlite3.Connection:
        connection = plain(*args)

        def traced(statement: str) -> None:
            if "type = 'table'" in statement:
                connection.set_trace_callback(None)
                made.append(Journal(path))

        if not made:
            monkeypatch.setattr(journal_opening, "open_for_reading", plain)
            connection.set_trace_callback(traced)
        return connection

    monkeypatch.setattr(journal_opening, "open_for_reading", between)
    with closing(sqlite3.connect(path)) as other:  # whoever has begun is not still any more
        other.execute("PRAGMA journal_mode = WAL")
        other.executescript("CREATE TABLE brief (x); DROP TABLE brief")
        with Journal(path) as journal:
            do(journal, 1)
            assert journal.trouble is None
    made.pop().close()


WORK_UNTIL_KILLED = """
lock = threading.Lock()
def work(thread):
    number = 0
    while True:
        place = (key(f"{sys.argv[1]} {thread} {number}"), 0)
        journal.enlist(*place)
        journal.claim(*place, lambda: b"request")
        journal.record(*place, answer("x" * 3000))
        with lock:
            os.write(1, f"{sys.argv[1]} {thread} {number}\\n".encode())
        number += 1
for thread in range(8):
    threading.Thread(target=work, args=(thread,)).start()
"""


def test_kill_nine_loses_nothing_that_was_recorded(path: Path) -> None:
    """A dozen kills at random moments of eight writing threads: whole files, and at most eight perhaps paid each."""
    moments = random.Random(1)
    recorded: list[str] = []
    for number in range(KILLS):
        process = python(path, WORK_UNTIL_KILLED, str(number))
        assert process.stdout is not None
        first = process.stdout.readline()  # from here on they all write
        time.sleep(moments.random() * 0.06)
        recorded += [line for line in (first + kill(process)).split("\n")[:-1] if line]
        with Journal(path) as journal:
            assert all(journal.find(key(line), 0) for line in recorded)
            assert journal.stats().unfinished <= IN_FLIGHT * (number + 1)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        places = connection.execute("SELECT key FROM calls WHERE run IS NOT NULL").fetchall()
        per_run = connection.execute("SELECT count(*) FROM calls WHERE run IS NOT NULL GROUP BY run").fetchall()
    assert max(per_run, default=(0,))[0] <= IN_FLIGHT
    with Journal(path) as journal:
        for (place,) in places:
            assert journal.enlist(place, 0)
            assert journal.claim(place, 0, lambda: b"") == Claimed(perhaps_paid=True)
            journal.record(place, 0, answer())
        assert journal.stats().perhaps_paid == len(places)
        assert journal.stats().unfinished == 0


CLAIM_AND_WAIT = """
journal.enlist(key(1), 0)
journal.claim(key(1), 0, lambda: b"")
print("claimed", flush=True)
sys.stdin.readline()
journal.release(key(1), 0, "InternalServerError 500")
journal.close()
"""


@contextmanager
def claimed_elsewhere(path: Path) -> Iterator[tuple[subprocess.Popen[str], Journal, Told]]:
    """A process that has claimed a call and waits for a line, and our journal, which follows it."""
    other = python(path, CLAIM_AND_WAIT)
    assert other.stdout is not None
    assert other.stdout.readline() == "claimed\n"
    with Journal(path) as journal:
        told = Told()
        assert journal.enlist(key(1), 0)
        assert journal.claim(key(1), 0, lambda: b"") == Elsewhere()
        journal.follow(key(1), 0, told)
        yield other, journal, told


def test_the_claim_of_a_killed_process_is_known_as_dead_at_once(path: Path) -> None:
    """While it lives the call is elsewhere; when it is killed, who follows is told, and it is perhaps paid."""
    with claimed_elsewhere(path) as (other, journal, told):
        kill(other)
        assert told.wait() is None
        assert journal.claim(key(1), 0, lambda: b"") == Claimed(perhaps_paid=True)


def test_the_failure_of_a_call_elsewhere_is_told(path: Path) -> None:
    """And then it is free, and not perhaps paid."""
    with claimed_elsewhere(path) as (other, journal, told):
        assert other.stdin is not None
        other.stdin.write("\n")
        other.stdin.flush()
        assert told.wait() is None
        assert journal.claim(key(1), 0, lambda: b"") == Claimed(perhaps_paid=False)
        finish(other)


def test_a_claim_outlives_other_openings_and_closings_in_its_process(path: Path) -> None:
    """Closing any descriptor of a file drops its POSIX locks; a second journal of the process must not do that."""
    other = python(path, CLAIM_AND_WAIT.replace("sys.stdin", "Journal(journal.path).close(); sys.stdin"))
    assert other.stdout is not None
    assert other.stdout.readline() == "claimed\n"
    with Journal(path) as journal:
        time.sleep(0.1)  # until it has opened and closed; earlier, the test proves less, and does not fail
        assert journal.enlist(key(1), 0)
        assert journal.claim(key(1), 0, lambda: b"") == Elsewhere()
    kill(other)


# -- forks ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.usefixtures("forks_are_meant")
def test_both_sides_of_a_fork_go_on(path: Path) -> None:
    """The child finds answers, sees the parent's claim as another process's, and records in a run of its own."""
    with Journal(path) as journal:
        recorded = do(journal, 1)
        assert journal.enlist(key(2), 0)
        journal.claim(key(2), 0, lambda: b"")

        def check() -> None:
            assert journal.find(key(1), 0) == recorded
            assert (key(2), 0) not in journal._working
            assert journal.enlist(key(2), 0)
            assert journal.claim(key(2), 0, lambda: b"") == Elsewhere()
            do(journal, 3)
            in_child(lambda: do(journal, 4))
            journal.close()

        in_child(check)
        journal.record(key(2), 0, answer())
        assert journal.find(key(3), 0)
        assert journal.find(key(4), 0)
        assert (journal.stats().answered, journal.stats().unfinished) == (4, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.usefixtures("forks_are_meant")
def test_forks_while_threads_write_harm_neither_side(path: Path) -> None:
    """Ten forks in the middle of commits: each child records, the parent's threads go on, the file is whole."""
    stop = threading.Event()
    with Journal(path) as journal:

        def write_on() -> None:
            number = 0
            while not stop.is_set():
                do(journal, f"{threading.get_ident()} {number}")
                number += 1

        threads = [threading.Thread(target=write_on) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for number in range(10):
                in_child(lambda number=number: do(journal, f"child {number}"))  # type: ignore[misc]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert all(journal.find(key(f"child {number}"), 0) for number in range(10))
        assert journal.trouble is None
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
