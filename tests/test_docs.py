"""README, guide and the other pages tell the truth as far as a machine can see: links, code, commands and options."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from pathlib import Path

import pytest

from ratelimited_llm.cli import _parser
from ratelimited_llm.runner import COMMANDS
from ratelimited_llm.runtime import OWN_NAMES

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "examples").rglob("*.md")),
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
COMMAND = re.compile(r"(?<![\w\[/.-])ratelimited-llm ((?:[^\n`|#;&\\]|\\\n)+)")


def blocks(page: Path, *languages: str) -> list[str]:
    return [code for language, code in BLOCK.findall(page.read_text(encoding="utf-8")) if language in languages]


def options_of(parser: argparse.ArgumentParser, command: str) -> set[str]:
    choices = next(action.choices for action in parser._actions if action.dest == "command_name")
    assert choices is not None
    return {option for action in choices[command]._actions for option in action.option_strings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_on_a_page_is_python(page: Path) -> None:
    for code in blocks(page, "python"):
        compile(code, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_its_options_exist(page: Path) -> None:
    parser = _parser()
    for told in COMMAND.findall(page.read_text(encoding="utf-8")):
        words = shlex.split(told.replace("\\\n", " ").replace("'", "").replace('"', ""))
        if not words or words[0] not in COMMANDS:
            continue
        ours = words[: words.index("--")] if "--" in words else words
        known = options_of(parser, words[0])
        assert {word for word in ours if re.fullmatch(r"--?[a-z][a-z-]*", word)} <= known, told


def test_the_guide_names_every_option_of_a_client() -> None:
    """And none that there is not: the tables of the page about OpenAI are for all doors."""
    page = (ROOT / "examples" / "guide" / "openai.md").read_text(encoding="utf-8")
    cells = [row.split("|")[1] for row in page.splitlines() if row.startswith("| `")]
    named = {
        word.partition("=")[0] for cell in cells for code in re.findall(r"`([^`]+)`", cell) for word in code.split()
    }
    long_names = {name for name in OWN_NAMES if name.startswith("max_") and name.endswith(("_minute", "_day"))}
    assert OWN_NAMES - long_names - named == set()
    assert named - OWN_NAMES - {"timeout", "max_retries"} == set()
