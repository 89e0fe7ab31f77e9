"""`ratelimited-llm batch` as a process of its own: exit codes, pipes, kill -9, Ctrl-C, two at once."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import threading

import pytest
from calling import call, ended

from ratelimited_llm.cli import batch, clients
from ratelimited_llm.simulator import Fault

PIPE = subprocess.PIPE


def parse(*words):
    """The command line's arguments; of a file that is not there, when none is named."""
    parser = argparse.ArgumentParser()
    batch.add_parser(parser.add_subparsers())
    files = () if "-o" in words else ("in", "-o", "out")
    return parser.parse_args(["batch", *files, *map(str, words)])


def wait_for(provider, requests):
    """Until so many calls have arrived."""
    while provider.counters.requests < requests:
        threading.Event().wait(0.005)


@pytest.fixture
def here(monkeypatch, capfd):
    """Run the command in this process: `here(provider, ...)` answers exit code, stdout and stderr."""

    def run(provider, *words):
        for name, value in (provider.env() if provider is not None else {}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.argv", ["ratelimited-llm", "batch", *map(str, words)])
        args = parse(*words)
        return (args.run(args), *capfd.readouterr())

    return run


def test_all_done_is_0_and_one_line_says_so(simulator, here, files):
    """On stderr; stdout stays empty."""
    files.calls(3)
    code, out, err = here(simulator(), files.input, "-o", files.output)
    assert (code, out) == (0, "")
    assert "3 answered, in " in err
    assert len(err.splitlines()) == 1


def test_failures_are_1_and_are_told(simulator, here, files):
    """Also when they are of an earlier run."""
    files.write(call(1), b"nope")
    provider = simulator(faults=[Fault(status=400)])
    code, _, err = here(provider, files.input, "-o", files.output)
    assert code == 1
    assert f"0 answered, 1 failed, 1 bad line (see {files.errors}), in " in err
    code, _, err = here(provider, files.input, "-o", files.output)
    assert code == 1
    assert "1 failed in earlier runs; try them again with --retry-failed" in err


def test_a_wrong_key_is_1_with_the_providers_words_and_the_way_to_go_on(simulator, here, files):
    """What failed by then is tried again, too."""
    files.calls(60)
    provider = simulator(faults=[Fault(status=401, message="Incorrect API key")])
    code, _, err = here(provider, files.input, "-o", files.output, "-j", "2")
    assert code == 1
    assert "Incorrect API key" in err
    assert f"Resume: ratelimited-llm batch {files.input} -o {files.output} -j 2 --retry-failed" in err


def test_a_report_is_written(simulator, here, files):
    """Where it is asked for; where it cannot be, that is said."""
    files.calls(2)
    page = files.folder / "run.html"
    assert here(simulator(), files.input, "-o", files.output, "--report", page)[0] == 0
    assert "<html" in page.read_text(encoding="utf-8").lower()
    code, _, err = here(simulator(), files.input, "-o", files.output, "--report", files.folder / "no" / "x")
    assert code == 0
    assert "the report cannot be written" in err


def test_kill_9_in_the_middle_loses_no_line_and_doubles_none(simulator, command, files):
    """And the same command does the rest; tried with many kills by hand."""
    files.calls(80)
    provider = simulator(latency=0.02)
    child = command(provider, files.input, "-o", files.output, "-j", "4", cold=True)
    wait_for(provider, 30)
    child.kill()
    child.wait()
    assert len(files.rows()) >= 30 - 4 - 4
    with files.output.open("ab") as file:
        file.write(b'{"id": "batch_req_0123", "custom_id": "c11')
    code, _, err = ended(command(provider, files.input, "-o", files.output))
    assert code == 0, err
    names = [row["custom_id"] for row in files.rows()]
    assert len(names) == len(set(names)) == 80
    assert provider.counters.requests <= 80 + 4 + 4  # in flight, or answered and not yet written


def test_the_first_ctrl_c_keeps_what_is_in_flight_and_tells_how_to_go_on(simulator, command, files):
    """Exit code 130 within 5 s, and the command to type."""
    files.calls(50)
    provider = simulator(latency=0.3)
    child = command(provider, files.input, "-o", files.output, "-j", "2")
    wait_for(provider, 2)
    child.send_signal(signal.SIGINT)
    code, out, err = ended(child)
    assert (code, out) == (130, "")
    assert "interrupted: " in err
    assert f"Resume: ratelimited-llm batch {files.input} -o {files.output} -j 2" in err
    assert "Traceback" not in err
    assert len(files.rows()) == provider.counters.requests


def test_the_second_ctrl_c_ends_it_at_once(simulator, command, files):
    """What hangs is not waited for."""
    files.calls(5)
    provider = simulator(faults=[Fault("stall", seconds=30)])
    child = command(provider, files.input, "-o", files.output)
    wait_for(provider, 1)
    child.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.3)
    child.send_signal(signal.SIGINT)
    code, _, err = ended(child)
    assert code == 130
    assert "Traceback" not in err


def test_pipes_on_both_sides(simulator, command, files):
    """Rows come while the input is still open, and stdout has nothing else."""
    child = command(simulator(), "-", "-o", "-", "--model", "m", stdin=PIPE)
    child.stdin.write(b'{"prompt": "a"}\n')
    child.stdin.flush()
    first = json.loads(child.stdout.readline())
    code, out, err = ended(child, b'nope\n{"prompt": "b"}')
    assert (first["custom_id"], code) == ("line-1", 1)
    assert sorted(str(json.loads(line)["custom_id"]) for line in out.splitlines()) == ["None", "line-3"]
    assert "2 answered, 1 bad line, in" in err


def test_ctrl_c_is_heard_while_the_input_is_silent(simulator, command, files):
    """The wait for a pipe is no reason to be deaf; and the interpreter ends in peace."""
    child = command(simulator(), "-", "-o", "-", "--model", "m", stdin=PIPE)
    child.stdin.write(b'{"prompt": "a"}\n')
    child.stdin.flush()
    child.stdout.readline()
    child.send_signal(signal.SIGINT)
    assert child.wait(10) == 130
    err = child.stderr.read().decode()
    assert "interrupted: 1 answered" in err
    assert "Fatal" not in err


def test_a_reader_that_leaves_is_no_traceback(simulator, command, files):
    """As `| head -1` does."""
    files.calls(300)
    child = command(simulator(latency=0.02), files.input, "-o", "-", "-j", "2")
    child.stdout.readline()
    child.stdout.close()
    assert child.wait(10) == 1
    assert child.stderr.read() == b""
    child.stdout = None


def test_max_time_is_3(simulator, here, files):
    """And says how to go on."""
    files.calls(50)
    code, _, err = here(simulator(), files.input, "-o", files.output, "--rpm", "60", "--max-time", "0.3s", "-j", "1")
    assert code == 3
    assert "still to do, in " in err
    assert "stopped by --max-time. Resume: ratelimited-llm batch " in err


def test_max_cost_is_3_and_says_what_one_call_could_cost(simulator, here, files):
    """By the real prices: nothing is sent that could pass the cap."""
    files.calls(5, model="gpt-4o-mini", max_tokens=1000)
    provider = simulator()
    code, _, err = here(provider, files.input, "-o", files.output, "--max-cost", "0.0001")
    assert code == 3
    assert "stopped by --max-cost: max_cost is $0.0001, $0 are spent, and this call could cost up to $0.0006" in err
    assert (provider.counters.requests, files.rows(), files.rows(files.errors)) == (0, [], [])


def test_a_cap_on_a_cost_that_nobody_knows_stops_the_batch_instead_of_failing_every_line(simulator, here, files):
    """Nothing is sent, a handful of lines is noted as failed, and it says what to install."""
    files.calls(500, model="made-up-9000")
    provider = simulator()
    code, _, err = here(provider, files.input, "-o", files.output, "--max-cost", "1")
    assert code == 1
    assert "stopped: max_cost is set, but nobody knows what 'made-up-9000' costs" in err
    assert "--retry-failed" in err
    assert provider.counters.requests == 0
    assert len(files.rows(files.errors)) <= 25


def test_a_file_that_is_not_there_is_named_without_a_number_of_an_error(simulator, here, files, tmp_path):
    """Whichever of the two it is."""
    files.calls(1)
    nowhere = tmp_path / "nowhere" / "x.jsonl"
    for names in ((nowhere, "-o", files.output), (files.input, "-o", nowhere)):
        code, _, err = here(simulator(), *names)
        assert code == 2
        assert f"ratelimited-llm batch: cannot open {nowhere}: No such file or directory" in err


def test_a_second_process_on_one_output_is_refused(simulator, command, here, files):
    """With exit code 2, while the first goes on."""
    files.calls(2)
    provider = simulator(faults=[Fault("stall", seconds=0.5)])
    first = command(provider, files.input, "-o", files.output)
    wait_for(provider, 1)
    code, _, err = here(provider, files.input, "-o", files.output)
    assert code == 2
    assert "is being written by another batch" in err
    assert ended(first)[0] == 0


def test_without_a_key_the_error_names_the_way_without_one(here, files):
    """The SDK's own words, and one line; a dry run needs none."""
    files.calls(2)
    code, _, err = here(None, files.input, "-o", files.output)
    assert code == 2
    assert "OPENAI_API_KEY" in err
    assert "ratelimited-llm sim -- " in err
    code, _, err = here(None, files.input, "-o", files.output, "--dry-run")
    assert (code, err) == (0, "ratelimited-llm batch: dry run: 2 lines, 2 would be sent; nothing was sent\n")
    assert not files.output.exists()


# -- the command line itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--rpm", "0"], "0 is no limit"),
        (["--tpm", "many"], "many is no limit"),
        (["-j", "1.5"], "1.5 is not a whole number"),
        (["--limit", "0"], "0 is no limit"),
        (["--limit", "2.5"], "2.5 is not a whole number"),
        (["--priority", "soon"], "unknown priority 'soon'"),
        (["--max-cost", "free"], "free is no cost"),
        (["--max-cost", "-1"], "expected one argument|-1 is no cost"),
        (["--max-time", "soon"], "soon is no time"),
        (["--max-time", "0"], "0 is no time"),
        (["--max-time", "5y"], "5y is no time"),
    ],
)
def test_bad_values_are_usage_errors(words, sentence, capsys):
    """Exit code 2, and a sentence that says what to give instead."""
    with pytest.raises(SystemExit) as stopped:
        parse(*words)
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert any(part in err for part in sentence.split("|"))


@pytest.mark.parametrize(
    ("text", "value"),
    [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1h30m", 5400), ("0.5s", 0.5), ("1d", 86400)],
)
def test_times_are_read_as_people_write_them(text, value):
    """Seconds when no unit is given."""
    assert parse("--max-time", text).max_time == value


def test_options_describe_the_client(monkeypatch):
    """Limits, caps and priority reach it; a copy keeps them."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-secret")
    args = parse("--rpm", "10k", "--tpm", "2M", "-j", "9", "--priority", "low", "--base-url", "http://127.0.0.1:1/v1")
    with clients.client_for(args) as client:
        limits = client._runtime.limits
        assert (limits.rpm, limits.tpm, limits.max_concurrency) == (10_000, 2_000_000, 9)
        assert client._runtime.options.rank == 8
        assert str(client.base_url) == "http://127.0.0.1:1/v1/"


@pytest.mark.parametrize(
    ("name", "content", "words", "message"),
    [
        ("in.csv", "a,b\n1,2\n", ["--prompt", "{c}"], "uses {c}, which is no column; the columns are a, b"),
        ("in.csv", "a,b\n1,2\n", [], "--prompt"),
        ("in.jsonl", "{}", ["--endpoint", "/v1/files"], "unknown endpoint '/v1/files'"),
    ],
)
def test_inputs_that_cannot_be_read_so_are_usage_errors(tmp_path, capsys, monkeypatch, name, content, words, message):
    """Exit code 2, no traceback, and no output file."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-secret")
    (tmp_path / name).write_text(content)
    args = parse(*words)
    args.input, args.output = str(tmp_path / name), str(tmp_path / "out.jsonl")
    assert args.run(args) == 2
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == [name]
