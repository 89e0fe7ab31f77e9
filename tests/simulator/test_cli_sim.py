"""`ratelimited-llm sim`: usage errors, and the rehearsal of a script."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from ratelimited_llm.cli import sim

CALL = """
import json, os, sys, urllib.error, urllib.request
body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
for _ in range(3):
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body)
    try:
        with urllib.request.urlopen(request) as answer:
            print(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            print(error.code)
print(sys.argv[1:], flush=True)
sys.exit(7)
"""


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ratelimited-llm")
    sim.add_parser(parser.add_subparsers())
    return parser.parse_args(["sim", *words])


def test_a_rehearsal_passes_output_and_exit_code_through(capfd):
    """The child finds the simulator, keeps its own arguments, and a report follows on stderr."""
    args = parse("--rpm", "2", "--period", "3600", "--latency", "0", "--", sys.executable, "-c", CALL, "--x", "--", "y")
    assert args.run(args) == 7
    out, err = capfd.readouterr()
    assert out.splitlines() == ["200", "200", "429", "['--x', '--', 'y']"]
    assert "3 requests, 2 answered, 1 refused (429), 0 failed" in err
    assert "tokens: 2 in," in err
    assert "100% of the limit used" in err


def test_a_child_ended_by_a_signal_gives_its_number():
    """128 plus the signal, as a shell answers."""
    args = parse("--", sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    assert args.run(args) == 137


def test_ctrl_c_reaches_the_child_and_the_report_is_still_written(capfd):
    """A SIGINT to the command alone is passed on, and the command waits for the child's own end."""
    script = """
import os, signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(9))
os.kill(os.getppid(), signal.SIGINT)
time.sleep(15)
"""
    args = parse("--", sys.executable, "-c", script)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sim, "_in_foreground", lambda: False)
        assert args.run(args) == 9
    assert "simulated openai: 0 requests" in capfd.readouterr().err


def test_python_is_ours_where_there_is_no_other(capfd, monkeypatch, tmp_path):
    """With an environment that is not activated, on a system that has no `python`."""
    ours = Path(sys.executable).parent
    if not (ours / "python").exists():
        pytest.skip("the Python of this run has no such name")
    monkeypatch.setenv("PATH", str(tmp_path))
    args = parse("--", "python", "-c", "import sys; print(sys.executable)")
    assert args.run(args) == 0
    assert Path(capfd.readouterr().out.strip()).parent == ours


def test_a_missing_command_is_told(capsys):
    """Exit code 127 and the name."""
    args = parse("--", "no-such-command-anywhere")
    assert args.run(args) == 127
    assert "cannot run 'no-such-command-anywhere'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--rpm", "0"], "0 is no limit: give a number above 0"),
        (["--rpm=-4"], "-4 is no limit"),
        (["--tpm", "nan"], "nan is no limit"),
        (["--tpd", "inf"], "inf is no limit"),
        (["--concurrency", "1.5"], "1.5 is not a whole number"),
        (["--latency", "2-1"], "2-1 is no latency"),
        (["--latency", "x"], "x is no latency"),
        (["--output-tokens", "9-3"], "9-3 is no size"),
        (["--errors", "2"], "2 is no share"),
        (["--port", "99999"], "99999 is no port"),
        (["--provider", "opnai"], "invalid choice"),
    ],
)
def test_bad_numbers_are_usage_errors(words, sentence, capsys):
    """Exit code 2, and a sentence that says what to give instead."""
    with pytest.raises(SystemExit) as caught:
        parse(*words)
    assert caught.value.code == 2
    assert sentence in capsys.readouterr().err


def test_options_reach_the_simulator():
    """Limits, latency and silence are those of the command line."""
    args = parse(
        "--provider", "groq", "--rpm", "30", "--tpm", "6000", "--latency", "0.1-2", "--output-tokens", "5",
        "--no-headers", "--errors", "0.1",
    )  # fmt: skip
    assert args.latency == (0.1, 2.0)
    assert repr(sim._simulator(args)).startswith("<Simulator groq rpm=30 tpm=6000 stopped")


def test_a_taken_port_is_told(capsys):
    """Exit code 1 and what to change, not a traceback."""
    with sim._simulator(parse("--port", "0")) as taken:
        args = parse("--port", str(taken.port))
        assert args.run(args) == 1
    assert "try another --port" in capsys.readouterr().err
