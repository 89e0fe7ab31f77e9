"""The life of a call in a journal, within one process."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from journalling import Told, answer, do, key
from waiting import wait_until

from ratelimited_llm.stores.journal import Claimed, Elsewhere, Journal, Recorded, open_journal

DAY = 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal(path) as journal:
        yield journal


def test_an_answer_is_found_again_by_the_next_run(path: Path) -> None:
    """As it was, byte for byte, but for the headers that are not kept."""
    body = bytes(range(256)) * 400
    with Journal(path) as first:
        place = (key(1), 0)
        assert first.find(*place) is None
        assert first.enlist(*place)
        assert first.claim(*place, lambda: b"{}") == Claimed(perhaps_paid=False)
        first.record(*place, answer(at=12.5, body=body, headers=(("X-Request-Id", "é"), ("set-cookie", "secret"))))
    with Journal(path) as second:
        assert second.find(*place) == Recorded(200, (("X-Request-Id", "é"),), body, 0.5, 12.5)
        assert second.find(key(1), 1) is None
        assert second.stats().reused == 1
    assert b"secret" not in path.read_bytes()


def test_equal_calls_are_different_answers(journal: Journal) -> None:
    """Occurrence by occurrence."""
    for number in range(3):
        assert journal.number(key("same")) == number
        journal.record(key("same"), number, answer(str(number)))
    found = [journal.find(key("same"), number) for number in range(3)]
    assert [recorded.body for recorded in found if recorded] == [b"0", b"1", b"2"]


def test_a_stream_in_its_readers_hands_is_waited_for_by_nobody(journal: Journal) -> None:
    """Who follows is told to work for the answer itself, and who comes may enlist; the stream is recorded as ever."""
    place, told = (key(1), 0), Told()
    assert journal.enlist(*place)
    journal.claim(*place, lambda: b"{}")
    journal.follow(*place, told)
    stream = journal.hand_out(*place)
    assert told.answers == [None]
    assert journal.enlist(*place)
    assert journal.claim(*place, lambda: b"{}") == Claimed(perhaps_paid=False)
    journal.record(*place, answer("stream"), handed_out=stream)
    found = journal.find(*place)
    assert found is not None
    assert found.body == b"stream"
    assert not journal.enlist(*place)  # the other one still works


def test_a_stream_that_is_cut_leaves_its_claim_to_who_took_over(journal: Journal) -> None:
    """And to nobody when nobody did."""
    place = (key(1), 0)
    with Journal(journal.path) as other:
        for took_over in (False, True):
            assert journal.enlist(*place)
            journal.claim(*place, lambda: b"{}")
            stream = journal.hand_out(*place)
            if took_over:
                assert journal.enlist(*place)
                journal.claim(*place, lambda: b"{}")
            journal.release(*place, handed_out=stream)
            journal.claim(key(2), 0, lambda: b"{}")  # is committed after what was handed over
            if took_over:
                assert other.claim(*place, lambda: b"{}") == Elsewhere()
            else:
                assert other.claim(*place, lambda: b"{}") == Claimed(perhaps_paid=False)
                other.release(*place)
                other.claim(key(3), 0, lambda: b"{}")


def test_a_claim_finds_what_was_answered_meanwhile(journal: Journal) -> None:
    """By another object on the same file, and that ends the enlistment and tells who follows."""
    with Journal(journal.path) as other:
        place, told = (key(1), 0), Told()
        assert journal.enlist(*place)
        journal.follow(*place, told)
        recorded = do(other, 1)
        assert journal.claim(*place, lambda: b"") == recorded
        assert told.wait() == recorded
        assert place not in journal._working


def test_a_second_claim_of_the_same_call_costs_nothing(journal: Journal) -> None:
    """It is another attempt, and nothing is perhaps paid."""
    place = (key(1), 0)
    assert journal.enlist(*place)
    assert journal.claim(*place, lambda: b"") == Claimed(perhaps_paid=False)
    assert journal.claim(*place, lambda: b"") == Claimed(perhaps_paid=False)
    assert journal.stats().unfinished == 1


def test_one_call_works_and_the_others_follow(journal: Journal) -> None:
    """They are told from memory when it is recorded."""
    place, told = (key(1), 0), [Told(), Told()]
    assert [journal.enlist(*place) for _ in range(3)] == [True, False, False]
    assert place in journal._working
    for callback in told:
        journal.follow(*place, callback)
    journal.claim(*place, lambda: b"")
    journal.record(*place, answer())
    assert [callback.wait() for callback in told] == [journal.find(*place)] * 2
    assert place not in journal._working


def test_who_follows_a_call_that_fails_is_told_none_and_may_try(journal: Journal) -> None:
    """One of them enlists; the failure is counted until then."""
    place, told = (key(1), 0), Told()
    assert journal.enlist(*place)
    journal.claim(*place, lambda: b"")
    journal.follow(*place, told)
    journal.release(*place, "RateLimitError 429")
    assert told.wait() is None
    assert journal.stats().failed == 1
    assert journal.enlist(*place)
    assert journal.claim(*place, lambda: b"") == Claimed(perhaps_paid=False)
    assert (journal.stats().failed, journal.stats().unfinished) == (0, 1)
    journal.record(*place, answer())
    stats = journal.stats()
    assert (stats.answered, stats.failed, stats.unfinished) == (1, 0, 0)


def test_a_cancelled_call_leaves_nothing(journal: Journal) -> None:
    """Whether it was claimed or not; and releasing what nobody has is nothing."""
    for claims in (True, False):
        assert journal.enlist(key(1), 0)
        if claims:
            journal.claim(key(1), 0, lambda: b"")
        journal.release(key(1), 0)
        journal.release(key(1), 0)
    stats = journal.stats()
    assert (stats.answered, stats.failed, stats.unfinished) == (0, 0, 0)


def test_following_what_is_answered_or_nobodys_is_told_soon(journal: Journal) -> None:
    """Nobody waits for ever for an end that has been."""
    recorded, found, nothing = do(journal, 1), Told(), Told()
    journal.follow(key(1), 0, found)
    journal.follow(key(2), 0, nothing)
    assert found.wait() == recorded
    assert nothing.wait() is None


def test_no_follower_is_lost_between_check_and_end(journal: Journal) -> None:
    """Followers join while calls end, over and over: each is told once."""
    told: list[Told] = []

    def follow(number: int) -> None:
        for _ in range(5):
            callback = Told()
            told.append(callback)
            journal.follow(key(number), 0, callback)

    for number in range(60):
        assert journal.enlist(key(number), 0)
        thread = threading.Thread(target=follow, args=(number,))
        thread.start()
        journal.release(key(number), 0, None)
        thread.join()
    assert [callback.wait() for callback in told] == [None] * len(told)


def test_a_callback_that_raises_harms_nobody(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next is told."""
    place, told = (key(1), 0), Told()

    def broken(_: Recorded | None) -> None:
        raise RuntimeError("not mine")

    assert journal.enlist(*place)
    journal.follow(*place, broken)
    journal.follow(*place, told)
    journal.record(*place, answer())
    assert told.wait() is not None
    assert "not mine" in caplog.text


def test_many_threads_record_together_and_nothing_is_lost(journal: Journal) -> None:
    """Each row is in the file when `record` returns: a second connection sees it at once."""
    with Journal(journal.path) as other:
        missing: list[int] = []

        def work(thread: int) -> None:
            for number in range(thread * 100, thread * 100 + 25):
                do(journal, number, str(number))
                found = other.find(key(number), 0)
                if found is None or found.body != str(number).encode():
                    missing.append(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert missing == []
        assert journal.stats().answered == 16 * 25


def test_a_finalizer_may_release_in_the_middle_of_a_commit(journal: Journal) -> None:
    """Objects that release when they are collected, in threads that write: nothing hangs, nothing is left in flight."""

    class Call:
        def __init__(self, number: int) -> None:
            self.number, self.me = number, self  # only the collector finds it
            assert journal.enlist(key(number), 0)
            journal.claim(key(number), 0, lambda: b"")

        def __del__(self) -> None:
            journal.release(key(self.number), 0, "Forgotten")

    def work(thread: int) -> None:
        for number in range(30):
            Call(thread * 1_000 + number)
            do(journal, f"{thread} {number}")

    before = gc.get_threshold()
    gc.set_threshold(20, 2, 2)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*before)
        gc.collect()
    wait_until(lambda: journal.stats().unfinished == 0)
    assert (journal.stats().answered, journal.stats().failed) == (120, 120)


def test_a_keyboard_interrupt_anywhere_leaves_locks_free_and_the_file_sane(journal: Journal) -> None:
    """Ctrl-C strikes the main thread at random moments of claims and records while others write."""
    import _thread

    stop, armed, rolls = threading.Event(), threading.Event(), random.Random(3)

    def write_on() -> None:
        number = 0
        while not stop.is_set():
            do(journal, f"{threading.get_ident()} {number}")
            number += 1

    def strike() -> None:
        # Once each time that it is armed: a second blow would meet the first one's `except`, and end all of pytest.
        while not stop.is_set():
            if armed.wait(0.01):
                armed.clear()
                time.sleep(rolls.random() * 0.01)
                _thread.interrupt_main()

    threads = [threading.Thread(target=target) for target in (write_on, write_on, strike)]
    recorded, number = set(), 0
    for thread in threads:
        thread.start()
    end = time.monotonic() + 0.8
    while not stop.is_set():
        try:
            armed.set()
            while time.monotonic() < end:
                number += 1
                journal.enlist(key(number), 0)
                journal.claim(key(number), 0, lambda: b"")
                journal.record(key(number), 0, answer(str(number)))
                recorded.add(number)
            stop.set()
            threads[-1].join()
            time.sleep(0.05)  # for the last blow
        except KeyboardInterrupt:
            continue
    for thread in threads:
        thread.join()
    assert recorded
    assert all(journal.find(key(number), 0) for number in recorded)
    do(journal, "afterwards")
    assert journal.trouble is None


def test_answers_that_are_too_old_do_not_count(path: Path) -> None:
    """Neither when they are looked for nor when they are claimed; a fresh one takes their place."""
    with Journal(path, wall_clock=lambda: 10 * DAY) as first:
        do(first, 1, "old", at=10 * DAY)
    with Journal(path, max_age=DAY, wall_clock=lambda: 10.5 * DAY) as fresh:
        assert fresh.find(key(1), 0)
    with Journal(path, max_age=DAY, wall_clock=lambda: 12 * DAY) as later:
        assert later.find(key(1), 0) is None
        do(later, 1, "new", at=12 * DAY)
        found = later.find(key(1), 0)
        assert found is not None
        assert found.body == b"new"
        assert later.stats().answered == 1


def test_an_old_answer_stays_when_its_refresh_fails(path: Path) -> None:
    """It was paid for, and a run that asks for no age takes it."""
    with Journal(path, max_age=1.0, wall_clock=lambda: 100.0) as journal:
        do(journal, 1, "old", at=50.0)
        assert journal.enlist(key(1), 0)
        assert journal.claim(key(1), 0, lambda: b"") == Claimed(perhaps_paid=False)
        journal.release(key(1), 0, "APITimeoutError")
    with Journal(path) as other:
        assert other.find(key(1), 0) is not None
        assert other.stats().failed == 0


def test_pruning_deletes_what_is_old_and_gives_the_space_back(path: Path) -> None:
    """Answers and failures by age; what is fresh stays and is found."""
    now = 100 * DAY
    with Journal(path, wall_clock=lambda: now) as journal:
        for number in range(50):
            do(journal, number, "x" * 50_000, at=DAY * (1 if number < 40 else 99))
        assert journal.enlist(key("failed"), 0)
        journal.claim(key("failed"), 0, lambda: b"")
        journal.release(key("failed"), 0, "BadRequestError 400")
        before = journal.stats()
        assert journal.prune(30 * DAY) == 40
        after = journal.stats()
        assert (before.answered, after.answered, after.failed) == (50, 10, 1)
        assert after.bytes < before.bytes / 2
        assert after.oldest == 99 * DAY
        assert journal.find(key(45), 0)
        assert journal.find(key(5), 0) is None
        assert journal.prune() == 1  # without an age: only what failed
        assert journal.prune(failed=False) == 0
        assert journal.prune(0.5 * DAY, failed=False) == 10


def test_max_age_is_what_pruning_uses_when_it_is_told_none(path: Path) -> None:
    """One option for both."""
    with Journal(path, max_age=DAY, wall_clock=lambda: 10 * DAY) as journal:
        do(journal, 1, at=5 * DAY)
        do(journal, 2, at=9.5 * DAY)
        assert journal.prune() == 1
        assert journal.stats().answered == 1


@pytest.mark.parametrize(("store", "kept"), [("all", b'{"sent": 1}'), ("responses", None)])
def test_requests_are_kept_if_wanted(path: Path, store: str, kept: bytes | None) -> None:
    """Once for equal requests."""
    with Journal(path, store=store) as journal:
        for occurrence in range(2):
            assert journal.enlist(key(1), occurrence)
            journal.claim(key(1), occurrence, lambda: b'{"sent": 1}')
            journal.record(key(1), occurrence, answer())
        requests = journal._file.read(lambda reader: reader.execute("SELECT request FROM answers").fetchall())
        assert requests == [(kept,), (None,)]


def test_two_objects_on_one_file_do_not_send_the_same_call(path: Path) -> None:
    """The second is told where it is, and then its answer; or that it is free."""
    with Journal(path) as first, Journal(path) as second:
        for number, ends in ((1, True), (2, False)):
            place, told, mine = (key(number), 0), Told(), Told()
            assert first.enlist(*place)
            assert second.enlist(*place)
            assert first.claim(*place, lambda: b"") == Claimed(perhaps_paid=False)
            assert second.claim(*place, lambda: b"") == Elsewhere()
            second.follow(*place, mine)
            assert not second.enlist(*place)
            second.follow(*place, told)
            if ends:
                first.record(*place, answer())
                assert mine.wait() == told.wait() == first.find(*place)
                assert place not in second._working
            else:
                first.release(*place, "InternalServerError 500")
                assert mine.wait() is None
                assert second.claim(*place, lambda: b"") == Claimed(perhaps_paid=False)
        wait_until(lambda: second._watch._thread is None)


def test_one_object_per_file_in_a_process(path: Path, tmp_path: Path) -> None:
    """However the path is spelt; with other options it is refused, and forgotten ones are made anew."""
    one = open_journal(path, max_age=5)
    (tmp_path / "link.db").symlink_to(path)
    assert open_journal(str(tmp_path / "link.db")) is one
    assert open_journal(one, max_age=5) is one
    with pytest.raises(ValueError, match=r"open with max_age=5"):
        open_journal(path, max_age=6)
    with pytest.raises(ValueError, match="open with store='all'"):
        open_journal(path, store="responses")
    one.close()
    with open_journal(path, store="responses") as another:
        assert another is not one
    del one, another
    gc.collect()


def test_a_forgotten_journal_closes_its_file(path: Path) -> None:
    """No connection, and no lock, outlives the last reference."""
    journal = Journal(path)
    do(journal, 1)
    file = journal._file
    del journal
    gc.collect()
    assert file.closed


def test_a_closed_journal_answers_nothing_and_stops_nobody(path: Path) -> None:
    """Calls that are still under way end as without one; closing twice is closing once."""
    journal = Journal(path)
    do(journal, 1)
    assert journal.enlist(key(2), 0)
    journal.claim(key(2), 0, lambda: b"")
    journal.close()
    journal.close()
    journal.record(key(2), 0, answer())
    journal.release(key(3), 0, "Error")
    told = Told()
    journal.follow(key(4), 0, told)
    assert told.wait() is None
    assert "closed" in repr(journal)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"max_age": 0}, ValueError), ({"max_age": -1}, ValueError), ({"max_age": float("nan")}, ValueError),
     ({"max_age": "1d"}, TypeError), ({"max_age": True}, TypeError), ({"store": "some"}, ValueError)],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(path: Path, arguments: dict[str, Any], error: type[Exception]) -> None:
    """At construction, and no file is made."""
    with pytest.raises(error, match=next(iter(arguments))):
        Journal(path, **arguments)
    assert not path.exists()


def test_its_repr_shows_no_answer(journal: Journal) -> None:
    """Only the path and numbers."""
    do(journal, 1, "private")
    assert "1 recorded" in repr(journal)
    assert "private" not in repr(journal)


def test_closing_ends_the_waits_of_threads_that_record(path: Path) -> None:
    """Nobody hangs, and what was recorded before is there."""
    journal, stop = Journal(path), threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            do(journal, f"{threading.get_ident()} {number}")
            number += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    do(journal, "first")
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    journal.close()
    stop.set()
    for thread in threads:
        thread.join()
    with Journal(path) as again:
        assert again.find(key("first"), 0)
        assert again.stats().unfinished <= 4


def test_an_answer_is_kept_without_a_request_that_cannot_be_given(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    """It was paid for."""
    place, told = (key(1), 0), Told()

    def broken() -> bytes:
        raise RuntimeError("no body")

    assert journal.enlist(*place)
    journal.claim(*place, broken)
    journal.follow(*place, told)
    journal.record(*place, answer())
    assert told.wait() == journal.find(*place)
    assert "no body" in caplog.text
