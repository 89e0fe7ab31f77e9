"""The file of a journal: who may read it, what is refused, and what happens when the disk gives trouble."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from journalling import answer, do, finish, key, kill, python
from waiting import wait_until

from ratelimited_llm import RateLimitedLLMError
from ratelimited_llm.exceptions import JournalError
from ratelimited_llm.stores.journal import Claimed, Journal
from ratelimited_llm.stores.journal_file import JournalFile
from ratelimited_llm.stores.journal_rows import RecordWrite

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def folder(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}


# -- permissions and paths --------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
@pytest.mark.parametrize("touched", [False, True])
def test_every_file_is_for_its_owner_alone(path: Path, umask: int, touched: bool) -> None:
    """0600: the database, its log, its index and the locks, whatever the umask, and if an empty file was there."""
    if touched:
        path.touch(0o644)
    before = os.umask(umask)
    try:
        with Journal(path) as journal:
            do(journal, 1)
            modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["run.db", "run.db-wal", "run.db-shm", "run.db-lock"], 0o600)


def test_home_is_expanded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell would."""
    monkeypatch.setenv("HOME", str(path.parent))
    monkeypatch.setenv("USERPROFILE", str(path.parent))
    with Journal("~/run.db") as journal:
        assert journal.path == path.resolve()


@pytest.mark.parametrize("name", ["a b?c#d%41.db", "日本.db", "-x.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    """What means something in a URI is only a character here."""
    with Journal(tmp_path / name) as journal:
        do(journal, 1)
    assert (tmp_path / name).stat().st_size > 0


@pytest.mark.parametrize(
    ("bad", "error"),
    [("", ValueError), ("  ", ValueError), (":memory:", ValueError), ("a\0b", ValueError),
     ("file:x?mode=ro", ValueError), (7, TypeError), (None, TypeError), (b"x", TypeError), (True, TypeError)],
)  # fmt: skip
def test_what_is_no_path_is_refused(bad: Any, error: type[Exception]) -> None:
    """At construction, naming what it got."""
    with pytest.raises(error, match=rf"the path of a file, .*{re.escape(repr(bad))}"):
        Journal(bad)


def test_a_missing_directory_is_not_made(tmp_path: Path) -> None:
    """It is most often a typo."""
    with pytest.raises(JournalError, match="no directory"):
        Journal(tmp_path / "missing" / "run.db")
    assert not (tmp_path / "missing").exists()


def test_a_directory_is_no_journal(tmp_path: Path) -> None:
    """And the error is an OSError and one of ours."""
    with pytest.raises(JournalError, match="is a directory") as caught:
        Journal(tmp_path)
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, RateLimitedLLMError)


@posix
def test_a_device_is_no_journal() -> None:
    """Nor is anything else that is no regular file."""
    with pytest.raises(JournalError, match="no regular file"):
        Journal("/dev/null")


# -- files that are no journals ---------------------------------------------------------------------------------------


def other_application(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (id)")


def newer_version(path: Path) -> None:
    Journal(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")


def no_database(path: Path) -> None:
    path.write_bytes(b"custom_id,prompt\n1,hello\n" * 1000)


def short_text(path: Path) -> None:
    path.write_bytes(b"x")


def torn_header(path: Path) -> None:
    Journal(path).close()
    path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])


def torn_page(path: Path) -> None:
    with Journal(path) as journal:
        for number in range(200):
            do(journal, number, "x" * 500)
    whole = bytearray(path.read_bytes())
    whole[8192:] = os.urandom(1) * (len(whole) - 8192)
    path.write_bytes(whole)


def truncated(path: Path) -> None:
    with Journal(path) as journal:
        for number in range(200):
            do(journal, number, "x" * 500)
    os.truncate(path, 12_000)


def missing_table(path: Path) -> None:
    Journal(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE calls")


@pytest.mark.parametrize(
    ("make", "words"),
    [(other_application, "another application.*another path"), (newer_version, "newer.*upgrade"),
     (no_database, "no SQLite database"), (short_text, "no SQLite database"), (torn_header, "no SQLite database"),
     (torn_page, "damaged.*move it away"), (truncated, "damaged"), (missing_table, "damaged")],
)  # fmt: skip
def test_a_file_that_is_no_good_journal_is_refused_and_left_alone(path: Path, make: Any, words: str) -> None:
    """The error says what it is and what to do; not a byte changes, and nothing new lies beside it."""
    make(path)
    before = folder(path)
    with pytest.raises(JournalError, match=words):
        Journal(path)
    assert folder(path) == before


def test_the_log_of_another_application_is_left_alone(path: Path) -> None:
    """A database whose owner was killed with transactions in its log: reading it must not fold them in."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE bookmarks (id)")
        copied = path.with_name("copy.db")
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", f"{copied}{end}")
    before = folder(copied)
    with pytest.raises(JournalError, match="another application"):
        Journal(copied)
    after = folder(copied)
    assert {name: after[name] for name in before} == before


def test_an_empty_file_is_a_new_journal(path: Path) -> None:
    """As `mktemp` makes it."""
    path.touch()
    with Journal(path) as journal:
        do(journal, 1)
        assert journal.stats().answered == 1


# -- trouble in the middle --------------------------------------------------------------------------------------------


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_full_disk_stops_no_answer_and_is_said_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be written waits in memory, is found there, and is written when there is room again."""
    with Journal(path) as journal:
        do(journal, "before")
        writer = journal._file._open_writer()
        [pages] = writer.execute("PRAGMA page_count").fetchone()
        writer.execute(f"PRAGMA max_page_count = {pages}")
        kept = [do(journal, number, "x" * 20_000) for number in range(5)]
        assert len(warnings_of(caplog)) == 1
        assert "full" in warnings_of(caplog)[0]
        assert journal.trouble is not None
        assert [journal.find(key(number), 0) for number in range(5)] == kept
        assert journal.find(key("before"), 0)
        assert journal.stats().unwritten == 5
        journal._file.trouble._next_try = 0.0  # the rest is over: the next try opens a new connection, which has room
        do(journal, "after")
        stats = journal.stats()
        assert (stats.answered, stats.unwritten, stats.trouble) == (7, 0, None)
    with Journal(path) as again:
        assert [again.find(key(number), 0) for number in range(5)] == kept
    assert len(warnings_of(caplog)) == 1


FILL_THE_DISK = """
import resource, logging
logging.basicConfig(stream=sys.stdout, format="said %(message)s")
do(journal, "before")
size = os.path.getsize(journal.path) + os.path.getsize(f"{journal.path}-wal")
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
for number in range(40):
    do(journal, number, "x" * 5000)
    assert journal.find(key(number), 0), number
assert journal.trouble and journal.stats().unwritten, journal.stats()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal._file.trouble._next_try = 0.0  # the rest is over
do(journal, "after")
assert not journal.trouble and journal.stats().answered == 42, journal.stats()
"""


@posix
def test_a_limit_of_the_operating_system_is_a_full_disk_too(path: Path) -> None:
    """A real EFBIG in a process of its own; in the end all are written."""
    said = finish(python(path, FILL_THE_DISK))
    assert said.count("said journal") == 1
    with Journal(path) as journal:
        assert journal.stats().answered == 42


def test_what_is_left_of_a_full_disk_is_written_when_the_journal_is_closed(path: Path) -> None:
    """Nothing else may come to write it."""
    with Journal(path) as journal:
        writer = journal._file._open_writer()
        [pages] = writer.execute("PRAGMA page_count").fetchone()
        writer.execute(f"PRAGMA max_page_count = {pages}")
        do(journal, 1, "x" * 20_000)
        assert journal.stats().unwritten == 1
    with Journal(path) as again:
        assert again.find(key(1), 0)


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory_and_file_still_answer(path: Path) -> None:
    """What is there is found; what comes is delivered."""
    with Journal(path) as journal:
        do(journal, 1)
    path.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        with Journal(path) as journal:
            assert journal.find(key(1), 0)
            do(journal, 2)
            assert journal.find(key(2), 0)
            assert journal.trouble is not None
    finally:
        path.parent.chmod(0o700)


READ_ONLY = """
done = do(journal, 1)
journal.close()
os.chmod(journal.path, 0o444)
os.remove(f"{journal.path}-lock")
os.chmod(journal.path.parent, 0o555)
os.setgid(65534); os.setuid(65534)
with Journal(journal.path) as journal:
    assert journal.find(key(1), 0) == done
    do(journal, 2)
    assert journal.find(key(2), 0)
    assert any(word in journal.trouble for word in ("readonly", "read-only", "unable")), journal.trouble
    print(journal.stats().answered)
try:
    Journal(journal.path.parent / "new.db")
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_nobody_still_reads_in_a_read_only_directory() -> None:
    """The same for root, in a process that becomes nobody."""
    place = Path(tempfile.mkdtemp())  # pytest's folders are closed to others
    try:
        place.chmod(0o755)
        lines = finish(python(place / "run.db", READ_ONLY)).split()
    finally:
        place.chmod(0o755)
        shutil.rmtree(place)
    assert lines == ["1", "JournalError"]


def test_a_file_that_is_deleted_in_the_middle_is_begun_anew(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, and what comes is in a new file."""
    with Journal(path) as journal:
        do(journal, 1)
        for file in path.parent.iterdir():
            file.unlink()
        do(journal, 2)
        do(journal, 3)
        assert journal.find(key(3), 0)
        assert len(warnings_of(caplog)) == 1
        assert "deleted" in warnings_of(caplog)[0]
    with Journal(path) as again:
        assert again.stats().answered == 2


def test_a_directory_that_vanishes_stops_no_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And when it is back, everything since is written."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with Journal(folder / "run.db") as journal:
        do(journal, 1)
        shutil.rmtree(folder)
        do(journal, 2)
        assert journal.find(key(2), 0)
        assert journal.trouble is not None
        folder.mkdir()
        journal._file.trouble._next_try = 0.0  # the rest is over
        do(journal, 3)
        assert journal.stats().answered == 2
    assert len(warnings_of(caplog)) <= 2


def test_a_file_that_is_overwritten_in_the_middle_stops_no_answer(path: Path) -> None:
    """Nothing is raised, whatever a reader or a writer meets."""
    with Journal(path) as journal:
        for number in range(100):
            do(journal, number, "x" * 3_000)
        for end in ("", "-wal"):
            with open(f"{path}{end}", "r+b") as file:
                file.write(os.urandom(file.seek(0, 2) and 40_000))
        for number in range(100, 110):
            do(journal, number, "x" * 3_000)
            journal.find(key(number - 100), 0)
        journal.release(key("nobody"), 0, "Error")
        assert journal.enlist(key("more"), 0)
        assert journal.claim(key("more"), 0, lambda: b"") == Claimed()
        journal.release(key("more"), 0, "Error")


def test_a_row_that_cannot_be_written_stops_no_other(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, and given up."""
    with Journal(path) as journal:
        impossible = answer(seconds="\ud800")
        assert journal.enlist(key(1), 0)
        journal.record(key(1), 0, impossible)
        do(journal, 2)
        assert journal.find(key(2), 0)
        assert journal.trouble is None
    assert len(warnings_of(caplog)) == 1


def test_another_program_that_holds_the_file_is_waited_for(path: Path) -> None:
    """A long transaction of somebody else delays a record, and readers go on."""
    with Journal(path) as journal:
        recorded = do(journal, 1)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            thread = threading.Thread(target=do, args=(journal, 2))
            thread.start()
            thread.join(0.2)
            assert thread.is_alive()
            assert journal.find(key(1), 0) == recorded
            other.execute("ROLLBACK")
            thread.join()
        wait_until(lambda: journal.find(key(2), 0) is not None)
        assert journal.trouble is None


@pytest.fixture
def on_simple_file_system(path: Path) -> Iterator[JournalFile]:
    file = JournalFile(str(path), time.time, vfs="unix-dotfile")  # no shared memory, as on a network file system
    yield file
    file.close()


@posix
def test_without_a_write_ahead_log_it_goes_on_with_the_classic_journal(on_simple_file_system: JournalFile) -> None:
    """Answers are kept and found."""
    file = on_simple_file_system
    for number in range(10):
        file.record(RecordWrite((key(number), 0), answer(str(number)), None))
    found = [file.find((key(number), 0)) for number in range(10)]
    assert [recorded.body for recorded in found if recorded] == [str(number).encode() for number in range(10)]
    assert file.trouble.text is None
    assert file._open_writer().execute("PRAGMA journal_mode").fetchone() == ("truncate",)


def test_lock_numbers_are_not_shared_with_the_dead_of_a_deleted_file(path: Path) -> None:
    """A new file counts its runs from 1 again, while a process that held the old one still lives."""
    other = python(path, "do(journal, 1); print('done', flush=True); sys.stdin.readline()")
    assert other.stdout is not None
    assert other.stdout.readline() == "done\n"
    for end in ("", "-wal", "-shm"):
        Path(f"{path}{end}").unlink()
    with Journal(path) as journal:
        do(journal, 2)
        assert journal._file._run == 2
    kill(other)
