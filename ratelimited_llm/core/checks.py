"""Checks of what people give: what makes no sense is refused with its name, whoever was given it.

And what the text of a switch in the environment means, which is read alike everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = ["amount", "number", "path_of", "says_no", "says_yes", "seconds", "text", "weights_of", "whole"]

_NO = frozenset({"0", "false", "no", "off"})


def number(name: str, value: object, what: str = "a number") -> float:
    """The value as a float, which may be infinite.

    Raises:
        TypeError: it is no number.
        ValueError: it is NaN, or an integer that is larger than any float.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be {what} or None, not {value!r}")
    try:
        found = float(value)
    except OverflowError:
        raise ValueError(f"{name} must be {what} below 1e308, not a larger one") from None
    if math.isnan(found):
        raise ValueError(f"{name} must be {what} above 0, not {value!r}")
    return found


def amount(name: str, value: object, what: str = "a number") -> float:
    """The same for what has to be above 0 and finite."""
    found = number(name, value, what)
    if not 0.0 < found < math.inf:
        raise ValueError(f"{name} must be {what} above 0, not {value!r}")
    return found


def seconds(name: str, value: object) -> float:
    """The same for a bound in seconds: above 0, and endless ones are allowed."""
    found = number(name, value, "a number of seconds")
    if found <= 0.0:
        raise ValueError(f"{name} must be above 0 seconds, not {value!r}; None means no bound")
    return found


def whole(name: str, value: object, least: int, or_none: str = "") -> int:
    """The value, when it is a whole number from `least` up.

    Raises:
        TypeError: it is no int.
        ValueError: it is a smaller one.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value >= least:
            return value
        kind: type[Exception] = ValueError
    else:
        kind = TypeError
    raise kind(f"{name} must be a whole number from {least} up{or_none}, not {value!r}")


def text(name: str, value: object) -> str:
    """The value, when it is text that can be written down: half a surrogate pair cannot.

    Raises:
        TypeError: it is no string.
        ValueError: it is no text.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {value!r}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name} must be text, and half a surrogate pair is none: {value!r}") from None
    return value


def path_of(name: str, value: object) -> str:
    """The path of a file as text: a string or a path object, not empty, with nothing in it that no file can be called.

    Raises:
        TypeError: it is no path.
        ValueError: no file can have it.
    """
    fspath = getattr(type(value), "__fspath__", None)
    found = value if fspath is None else fspath(value)
    if not isinstance(found, str):
        raise TypeError(f"{name} must be the path of a file, not {value!r}")
    try:
        found.encode("utf-8", "surrogateescape")  # as the names of files are read that are no UTF-8
    except UnicodeEncodeError:
        raise ValueError(f"{name} must be the path of a file, and half a surrogate pair is none: {found!r}") from None
    if not found or "\0" in found:
        raise ValueError(f"{name} must be the path of a file, not {found!r}")
    return found


def weights_of(value: object) -> dict[str, float]:
    """The shares of tenants, as a copy; None for none.

    Raises:
        TypeError: it is no mapping from names to numbers.
        ValueError: a share is not above 0.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"weights must be a mapping from tenants to numbers above 0, not {value!r}")
    return {
        text("the tenant in weights", who): amount(f"the weight of {who!r} in weights", w) for who, w in value.items()
    }


def says_no(text: str) -> bool:
    """Whether the text of a switch in the environment turns it off; an empty text says nothing."""
    return text.strip().lower() in _NO


def says_yes(text: str) -> bool:
    """Whether it turns it on: whatever it says, but for an empty text and the words for no."""
    return bool(text.strip()) and not says_no(text)
