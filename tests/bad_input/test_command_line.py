"""Every option of every command with values that make no sense: exit code 2, one line that says so, no traceback.

The options come from the parser itself: a new one is tried from its first day, and what its reader accepts is said in
NUMBERS, or, when it takes any text, in TEXTS.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from ratelimited_llm.cli import _parser, main

HALF = "\udc80"  # half a surrogate pair, as the byte of an argument that is no UTF-8
DIMENSIONS = ("rpm", "tpm", "rpd", "tpd", "itpm", "otpm")
NONSENSE = ["nan", "inf", "-inf", "-1", "0", "-0.5", "1.5", "", " ", "\n", "x", HALF, "²", "9" * 5000, "1e999", "0x1",
            "None", "true", "5y", "1,-5", "5-1"]  # fmt: skip
# Which of them a reader of numbers takes, by the name of the option.
NUMBERS = {
    **dict.fromkeys(["--rpm", "--tpm", "--rpd", "--tpd", "--itpm", "--otpm", "--period", "--smooth"], "1.5"),
    **dict.fromkeys(["--max-cost", "--heartbeat", "--every", "--max-time"], "1.5"), "--latency": "0 1.5",
    **dict.fromkeys(["--prune", "--drain"], "0 1.5"), "--seed": "-1 0",
    **dict.fromkeys(["--port", "--output-tokens", "--priority", "--errors"], "0"),
    **dict.fromkeys([f"limit --{each}" for each in DIMENSIONS], "1.5 None"),
    "estimate --latency": "1.5", "estimate --output-tokens": "", "worker --drain": "1.5",
    "cancel --tag": " ".join(text for text in NONSENSE if text.strip() and len(text) < 99 and text != HALF),
}  # fmt: skip
NEEDED = {
    "batch": ["in.jsonl", "-o", "out.jsonl"], "estimate": ["in.jsonl"], "journal": ["run.db"],
    "cancel": ["--tag", "t"], "worker": ["--queue", "dramatiq+redis://127.0.0.1:9/0"], "serve": ["--port", "0"],
    "top": ["--once"], "limit": ["--rpm", "5"],
}  # fmt: skip
STRANGE = ("", HALF, "\ud800", "a\0b", "{", "x" * 5000, "http://[", "no/such/thing")
NO_FILE, NO_TEXT = ("", "\ud800", "a\0b"), (HALF, "\ud800")
# Options that take any text, and which of STRANGE are refused at once; others are the provider's or the system's
# affair.
TEXTS = {
    **dict.fromkeys(["--output", "--journal", "--report"], NO_FILE), "--prompt": (*NO_TEXT, "{"),
    **dict.fromkeys(["--queue", "--host", "--prompts", "--endpoint", "--on-budget-lost"], STRANGE),
    "--budget": STRANGE[1:],
    **dict.fromkeys(["--tag", "--token", "--base-url"], NO_TEXT), "--model": ("", *NO_TEXT),
    **dict.fromkeys([f"--{name}-base-url" for name in ("openai", "groq", "anthropic", "azure")], NO_TEXT),
}  # fmt: skip


PARSER = _parser()
COMMANDS = next(each for each in PARSER._actions if isinstance(each, argparse._SubParsersAction)).choices


def options(of_text):
    """(command, option) of all options with a value, those of any text or those with a reader of their own."""
    return [
        (command, action.option_strings[-1])
        for command, parser in COMMANDS.items()
        for action in parser._actions
        if action.option_strings and action.nargs != 0
        if of_text is (action.type in (None, Path) and action.choices is None)
    ]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with an input that has nothing to be sent, a key, and no server that is really run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setattr("ratelimited_llm.gateway.serving.GatewayServer.run", lambda server, sockets: None)
    (tmp_path / "in.jsonl").write_text("{}\n")


@pytest.mark.parametrize(("command", "option"), options(of_text=False), ids=lambda value: value)
def test_a_value_that_makes_no_sense_is_a_usage_error_of_one_line(command, option, capsys):
    """It names the option, and repeats no more of the value than fits."""
    good = NUMBERS.get(f"{command} {option}", NUMBERS.get(option, "")).split()
    wrong = {}
    for text in NONSENSE:
        try:
            PARSER.parse_args([command, *NEEDED.get(command, []), f"{option}={text}"])
        except SystemExit as end:
            last = capsys.readouterr().err.splitlines()[-1]
            if end.code != 2 or option not in last or (text in good) or (len(last) > 300 and "choice" not in last):
                wrong[text[:9]] = last[-200:]
        else:
            if text not in good:
                wrong[text[:9]] = "accepted"
    assert wrong == {}


@pytest.mark.parametrize(("command", "option"), options(of_text=True), ids=lambda value: value)
def test_a_strange_text_is_answered_in_a_line(command, option, capsys):
    """What cannot be is refused with 2, and whatever else happens, it is no traceback."""
    wrong = {}
    for text in STRANGE:
        if (command, option) == ("worker", "--budget") and text not in TEXTS[option]:
            continue  # it would look for its queue
        code = main([command, *NEEDED.get(command, []), f"{option}={text}"])
        said = capsys.readouterr().err.splitlines()
        refused = text in TEXTS[option] and not (command == "estimate" and option in ("--tag", "--budget"))
        if code not in (0, 1, 2) or (refused and (code != 2 or len(said) != 1)):
            wrong[text[:9]] = (code, said)
    assert wrong == {}


WORDS = [
    ["journal", "\ud800"], ["journal", ""], ["estimate", "a\0b"], ["demo", "x"], ["no"], [], ["batch", "", "-o", "x"],
    ["batch", "in.jsonl", "-o", "in.jsonl"],
]  # fmt: skip


@pytest.mark.parametrize("words", WORDS, ids=repr)
def test_what_stands_without_an_option_is_checked_as_well(words, capsys):
    """Files that cannot be, commands that are none."""
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert "Traceback" not in capsys.readouterr().err
