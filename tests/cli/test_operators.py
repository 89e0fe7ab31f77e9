"""`top`, `pause`, `resume`, `limit`, `cancel` and `limits`, over a real file and a real server."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from ratelimited_llm.cli import main
from ratelimited_llm.core.booking import Order, Part
from ratelimited_llm.stores.opening import open_store

pytest.importorskip("redis")
sys.path.insert(0, os.path.dirname(os.path.dirname(__file__)))  # for servers.py: pytest imports files without it
from servers import server_binaries, valkey_server

POOL = "https://api.openai.com/v1|9df37f5e7cbc3c39|gpt-4.1-mini"
FACTS = {"role": "worker", "queued": 40, "in_flight": 6, "rpm": 480, "refused": 2, "spent": 1.25}


def use(store):
    """What a process that shares a budget does now and then."""
    store.book(POOL, Order("batch-1", 1, (Part("rpm", 1.0, 60.0, limit=500.0), Part("tpm", 90.0, 60.0, limit=9_000.0))))
    return store.report("batch-1", FACTS)


@pytest.fixture
def budget(tmp_path):
    return f"sqlite:///{tmp_path / 'budget.db'}"


@pytest.fixture
def store(budget):
    opened = open_store(budget)
    use(opened)
    yield opened
    opened.close()


@pytest.fixture
def order(budget, capsys):
    """Run a command over the budget; answers (exit code, what it printed, what it complained)."""

    def run(*words):
        code = main([*words, "--budget", budget])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@contextmanager
def looks(*words, **options):
    """A process that runs the command line; gone at the end, whatever happens."""
    with subprocess.Popen([sys.executable, "-m", "ratelimited_llm", *words], **options) as process:
        try:
            yield process
        finally:
            process.kill()


# -- orders -----------------------------------------------------------------------------------------------------------


def test_a_pause_reaches_everybody_and_resume_ends_it(order, store) -> None:
    """What a process is told at its next report; the words say how many it is for."""
    assert order("pause") == (0, "paused for 1 process, until: ratelimited-llm resume\n", "")
    assert use(store).paused
    assert order("resume") == (0, "resumed for 1 process\n", "")
    assert not use(store).paused


def test_limits_are_lowered_and_lifted_one_by_one_or_all(order, store) -> None:
    """Numbers as people write them; what is not named stays."""
    assert order("limit", "--rpm", "8k", "--tpm", "1.5M")[1] == "at most 8,000 rpm, 1,500,000 tpm, for 1 process\n"
    assert dict(use(store).limits) == {"rpm": 8_000.0, "tpm": 1_500_000.0}
    order("limit", "--rpm", "none")
    assert dict(use(store).limits) == {"tpm": 1_500_000.0}
    assert order("limit", "--none")[1] == "nothing is lowered any more, for 1 process\n"
    assert not use(store).limits


def test_a_tag_is_cancelled(order, store) -> None:
    """Every process that is told may have such calls."""
    code, out, _ = order("cancel", "--tag", "nightly")
    assert (code, out) == (0, "cancelled what waits with the tag 'nightly', for 1 process\n")
    assert [tag for tag, _, _ in use(store).cancelled] == ["nightly"]


def test_orders_to_nobody_hold_for_whoever_comes(order) -> None:
    """A budget that nobody shares yet can be paused."""
    assert "whoever comes" in order("pause")[1]


@pytest.mark.parametrize(
    "words",
    [
        ["limit"], ["limit", "--none", "--rpm", "5"], ["limit", "--rpm", "0"], ["limit", "--rpm", "-3"],
        ["limit", "--rpm", "nan"], ["limit", "--rpm", "inf"], ["limit", "--rpm", "lots"], ["cancel"],
        ["cancel", "--tag", ""], ["cancel", "--tag", "x" * 300], ["top", "--every", "0"], ["top", "--every", "nan"],
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_a_usage_error_and_changes_nothing(words, order, store, capsys) -> None:
    """Exit code 2 and a line that says why."""
    before = store.control().news
    with pytest.raises(SystemExit) as stopped:
        order(*words)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err
    assert store.control().news == before


def test_limits_shows_what_is_known(order, store) -> None:
    """As a table, and as JSON."""
    out = order("limits")[1]
    assert "gpt-4.1-mini @ api.openai.com" in out
    assert [line.split()[:2] for line in out.splitlines()[2:4]] == [["rpm", "500"], ["tpm", "9,000"]]
    told = json.loads(order("limits", "--json")[1])
    assert [limit["dimension"] for limit in told["pools"][0]["limits"]] == ["rpm", "tpm"]


def test_the_environment_names_the_budget(budget, store, monkeypatch, capsys) -> None:
    """The same variable that the clients read."""
    monkeypatch.setenv("RATELIMITED_LLM_BUDGET", budget)
    assert main(["top", "--once"]) == 0
    assert "batch-1" in capsys.readouterr().out


def test_without_any_word_it_is_the_budget_of_this_machine(tmp_path, monkeypatch, capsys) -> None:
    """The file in the user's state directory, which is made when it is not there; nobody else can read it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["limits"]) == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)


# -- top --------------------------------------------------------------------------------------------------------------


def test_top_once_shows_pools_sums_and_workers(order, store) -> None:
    """Plain text, without a control character."""
    code, out, err = order("top", "--once")
    assert (code, err) == (0, "")
    assert "480/500 rpm" in out
    assert "1 worker   6 open   40 queued   480 rpm   2x429   $1.25" in out
    assert "\x1b" not in out
    assert "\r" not in out


def test_top_as_json_is_one_object_a_line(order, store) -> None:
    """For pipes: numbers unrounded, names as they are."""
    told = json.loads(order("top", "--json", "--once")[1])
    assert told["pools"][0]["name"] == POOL
    assert told["workers"][0]["queued"] == 40
    assert told["totals"]["spent"] == 1.25


def test_top_into_a_pipe_ends_quietly_with_its_reader(budget, store) -> None:
    """`top --json | head -1` is no error."""
    with looks("top", "--json", "--every", "0.1", "--budget", budget, stdout=-1, stderr=-1) as process:
        json.loads(process.stdout.readline())
        process.stdout.close()
        assert process.wait(10) == 0
        assert process.stderr.read() == b""


def test_top_ends_quietly_with_ctrl_c(budget, store) -> None:
    """It is the ordinary way to end it: exit code 0, and no traceback."""
    with looks("top", "--every", "0.1", "--budget", budget, stdout=-1, stderr=-1) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (0, b"")


def test_top_on_a_terminal_draws_in_place(budget, store) -> None:
    """The second look goes up as many lines as the first has drawn; the last stays when it ends."""
    ours, its = pty.openpty()
    try:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "90", "LINES": "24"}
        with looks("top", "--every", "0.1", "--budget", budget, stdout=its, stderr=-1, env=environment) as process:
            drawn = b""
            end = time.monotonic() + 10
            while drawn.count(b"\x1b[J") < 3 and time.monotonic() < end:
                if select.select([ours], [], [], 0.5)[0]:
                    drawn += os.read(ours, 65_536)
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
            assert process.stderr.read() == b""
    finally:
        os.close(ours)
        os.close(its)
    frames = drawn.split(b"\x1b[J")
    lines = frames[1].count(b"\n")
    assert lines >= 5
    assert frames[1].endswith(b"\x1b[%dA\r" % lines)
    assert b"batch-1" in frames[2]


# -- stores that are not there ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["top", "--once"], ["pause"], ["limits"], ["cancel", "--tag", "a"]])
def test_a_server_that_is_not_there_is_one_line_without_the_password(command, capsys) -> None:
    """Exit code 1, the host and the port, nothing else."""
    assert main([*command, "--budget", "redis://user:sekret@127.0.0.1:1/0"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "127.0.0.1:1" in said.err
    assert "sekret" not in said.err


@pytest.mark.parametrize("budget", ["redis://:sekret@", "nonsense://:sekret@host", "memory", "redis://h:sekret"])
def test_a_budget_that_makes_no_sense_is_a_usage_error_without_the_password(budget, capsys) -> None:
    """Exit code 2."""
    assert main(["top", "--once", "--budget", budget]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    if budget != "redis://h:sekret":  # where it stands in place of the port, nobody can know it for a password
        assert "sekret" not in said.err


def test_a_file_that_is_no_budget_is_not_touched(tmp_path, capsys) -> None:
    """Somebody's notes stay what they are."""
    file = tmp_path / "notes.txt"
    file.write_text("mine\n" * 100)
    assert main(["pause", "--budget", f"sqlite:///{file}"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert file.read_text() == "mine\n" * 100


@pytest.mark.skipif(not server_binaries(), reason="no Valkey or Redis server is installed")
def test_over_a_server_orders_arrive_and_its_loss_is_borne(capsys) -> None:
    """The same commands; `top` goes on when the server is away, and says so."""
    with valkey_server(password="sekret") as server:
        store = open_store(server.url)
        use(store)
        assert main(["limit", "--rpm", "90", "--budget", server.url]) == 0
        assert dict(use(store).limits) == {"rpm": 90.0}
        assert main(["top", "--once", "--budget", server.url]) == 0
        assert "at most 90 rpm by an operator" in capsys.readouterr().out
        store.close()
        with looks("top", "--json", "--every", "0.1", "--budget", server.url, stdout=-1, stderr=-1) as process:
            assert "workers" in json.loads(process.stdout.readline())
            server.stop()
            for line in process.stdout:
                if "lost" in json.loads(line):
                    break
            assert b"sekret" not in line
            server.start()
            for line in process.stdout:
                if "workers" in json.loads(line):
                    break
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=10)[1] == b""
            assert process.returncode == 0


@pytest.mark.skipif(not server_binaries(), reason="no Valkey or Redis server is installed")
def test_a_server_that_hangs_is_given_up_within_two_seconds(capsys) -> None:
    """Stopped in the middle: no hang, one line."""
    with valkey_server() as server:
        server.pause()
        began = time.monotonic()
        assert main(["pause", "--budget", server.url]) == 1
        assert time.monotonic() - began < 2.0
        server.resume()
        assert capsys.readouterr().err.count("\n") == 1
