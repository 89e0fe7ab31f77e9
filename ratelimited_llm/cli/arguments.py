"""What is typed after an option, as a value; or a usage error (`argparse.ArgumentTypeError`) that says what to give."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import Any

from ..core.request import Priority
from ..options import parse_amount

__all__ = [
    "add_limit_options", "amount", "dollars", "duration", "integer", "limits_of", "number", "port", "priority",
    "seconds", "shown", "whole",
]  # fmt: skip

UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
LONGEST = 1e7  # seconds: four months
LIMITS = {
    "rpm": "requests per minute", "tpm": "tokens per minute", "rpd": "requests per day", "tpd": "tokens per day",
    "itpm": "input tokens per minute", "otpm": "output tokens per minute",
}  # fmt: skip


def add_limit_options(parser: argparse.ArgumentParser, otherwise: str, read: Callable[[str], object]) -> None:
    """Add `--rpm` and the options of all other limits; `otherwise` ends their help, `read` makes values of the text."""
    for name, words in LIMITS.items():
        parser.add_argument(f"--{name}", type=read, metavar="N", help=f"{words}; {otherwise}")


def limits_of(args: argparse.Namespace) -> dict[str, Any]:
    """The limits that were given, by their names."""
    return {name: value for name in LIMITS if (value := getattr(args, name)) is not None}


def shown(text: str) -> str:
    """A value as it is repeated to whoever gave it: on one line, no longer than that, and all of it can be printed."""
    line = " ".join(text.encode("utf-8", "backslashreplace").decode().split()) or repr(text)
    return line if len(line) <= 40 else line[:37] + "..."


def number(text: str, fits: Callable[[float], bool], otherwise: str) -> float:
    """A finite number that fits; `otherwise` is what the usage error says after the text."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and fits(value)):
        raise argparse.ArgumentTypeError(f"{shown(text)} {otherwise}")
    return value


def amount(text: str) -> float:
    """A limit as people write it, above 0: 500, 30_000, 10k, 1.5M."""
    try:
        value = parse_amount(text, "it")
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{shown(text)} is no limit: give a number above 0, such as 500, 30000 or 10k")
    return value


def whole(text: str) -> int:
    """A whole amount of at least 1: 500, 30_000, 10k."""
    value = amount(text)
    if value != int(value):
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a whole number")
    return int(value)


def seconds(least: float, most: float = LONGEST) -> Callable[[str], float]:
    """Read seconds from `least` to `most`, both included."""
    return lambda text: number(
        text, lambda value: least <= value <= most, f"is no time: give seconds from {least:g} to {most:g}"
    )


def duration(text: str) -> float:
    """Seconds of a time as people write it, from 0 up: 90, 90s, 15m, 2h, 1h30m, 30d, 2w."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)([smhdw])", text.lower() + ("s" if text[-1:].isdigit() else ""))
    written = "".join(count + unit for count, unit in parts)
    value = sum(float(count) * UNITS[unit] for count, unit in parts)
    if not parts or written.removesuffix("s") != text.lower().removesuffix("s") or value == math.inf:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no time: give seconds (90), or 90s, 15m, 2h, 1h30m, 30d")
    return value


def dollars(text: str) -> float:
    """US dollars above 0, with or without the sign."""
    return number(
        text.removeprefix("$"), lambda value: value > 0, "is no cost: give US dollars above 0, such as 5 or 0.50"
    )


def port(text: str) -> int:
    """A port of TCP; 0 for any free one."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"{shown(text)} is no port: give a number from 0 (any free one) to 65535")
    return int(text)


def priority(text: str) -> int:
    """A priority by its name, or as a number from 0 to 10."""
    try:
        return Priority.parse(int(text) if text.isascii() and text.isdigit() and len(text) < 5 else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)[-200:]) from None


def integer(text: str) -> int:
    """Any whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a whole number") from None
