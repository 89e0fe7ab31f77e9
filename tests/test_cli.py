"""The command line: what it prints, what it answers, what it does with bad input."""

import subprocess
import sys
from pathlib import Path

import pytest

from ratelimited_llm.cli import demo, main


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "ratelimited_llm", *arguments], capture_output=True, text=True, timeout=110
    )


def test_no_command_is_a_usage_error_that_names_the_commands() -> None:
    """Typing just the name tells what there is to type."""
    done = run()
    assert done.returncode == 2
    assert "one job run twice" in done.stderr
    assert "demo" in run("--help").stdout
    assert "sim" in run("--help").stdout


def test_version_is_the_packages_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints it."""
    from ratelimited_llm import __version__

    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "has no prompts"), ("{not json}\n", "line 1"), ('{"prompt": 3}\n', "line 1"), ("[]\n", "line 1")],
)
def test_demo_with_unusable_prompts_says_which_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken file of prompts is a usage error with the line's number, before anything is started."""
    file = tmp_path / "prompts.jsonl"
    file.write_text(text, encoding="utf-8")
    assert main(["demo", "--prompts", str(file)]) == 2
    assert message in capsys.readouterr().err


def test_demo_with_a_missing_file_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there is named."""
    assert main(["demo", "--prompts", str(tmp_path / "nowhere.jsonl")]) == 2
    assert "nowhere.jsonl" in capsys.readouterr().err


@pytest.mark.timeout(60)
def test_demo_in_real_time_loses_nothing_is_refused_nothing_and_uses_the_limit(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The README's first command: the second row answers all, with no 429 and nothing lost, at the whole limit."""
    monkeypatch.setattr(demo, "AT_ONCE", 0.95)  # and the rest in 3 s instead of 15, which are for people who watch it
    monkeypatch.setattr(demo, "LATENCY", (0.02, 0.08))
    assert main(["demo"]) == 0
    out, err = capfd.readouterr()
    rows = {line[:26].strip(): line[26:].split() for line in out.splitlines()}
    prompts = len(demo.read_prompts(demo.shipped_prompts()))
    answered, refused, lost, *_, share = rows["one import changed"]
    assert (answered, refused, lost) == (f"{prompts}/{prompts}", "0", "0")
    assert float(share.rstrip("%")) > 95.0
    assert int(rows["thread pool, as is"][1]) > 0
    assert "ratelimited-llm sim -- python your_script.py" in out
    assert err == ""
