"""`ratelimited-llm journal`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pytest
from journalling import do, key

from ratelimited_llm.cli import journal as command
from ratelimited_llm.cli.arguments import duration
from ratelimited_llm.stores.journal import Journal


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["journal", *arguments])
    return int(args.run(args))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run.db"
    with Journal(path) as journal:
        do(journal, 1, at=time.time() - 100_000)
        do(journal, 2)
        for number, error in ((3, "BadRequestError 400"), (4, None)):
            assert journal.enlist(key(number), 0)
            journal.claim(key(number), 0, lambda: b"")
            if error:
                journal.release(key(number), 0, error)
    return path


def test_it_prints_what_is_there(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In aligned lines."""
    assert run(str(path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [["answered", "2"], ["failed", "1"], ["unfinished", "1"]]
    assert {line[11] for line in lines} == {" "}
    assert all(line[12] != " " for line in lines)


def test_it_prunes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By age; the rest stays."""
    assert run(str(path), "--prune", "1d") == 0
    assert "1 rows deleted" in capsys.readouterr().out
    assert run(str(path), "--prune", "0") == 0
    assert "answered    0" in capsys.readouterr().out


def test_a_missing_file_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and it says so."""
    assert run(str(tmp_path / "no.db")) == 2
    assert "no file" in capsys.readouterr().err
    assert not (tmp_path / "no.db").exists()


def test_what_is_no_journal_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2."""
    (tmp_path / "text.db").write_text("hello" * 1000)
    assert run(str(tmp_path / "text.db")) == 2
    assert "no journal" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("12h", 43200), ("30d", 2592000), ("2w", 1209600), ("45", 45), ("1.5s", 1.5)]
)
def test_ages_are_read(text: str, seconds: float) -> None:
    """With a unit or in seconds."""
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "-1d", "nan", "inf", "1y", "1 day"])
def test_ages_that_make_no_sense_are_usage_errors(text: str) -> None:
    """Exit code 2, from argparse."""
    with pytest.raises(SystemExit) as caught:
        run("x.db", f"--prune={text}")
    assert caught.value.code == 2
