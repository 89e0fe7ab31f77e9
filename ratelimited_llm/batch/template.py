"""A prompt with the names of columns in it: "Classify: {text}"."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from string import Formatter
from typing import Any

__all__ = ["InputError", "Template"]


class InputError(ValueError):
    """The input cannot be read the way it was asked for; says what to change."""


class Template:
    """Text with {names} of columns; {{ and }} are braces.

    Raises:
        InputError: a brace without its partner, or more than a name between two.
    """

    def __init__(self, text: str) -> None:
        self._parts: list[tuple[str, str | None]] = []
        try:
            for literal, name, spec, conversion in Formatter().parse(text):
                if name is not None and (not name or spec or conversion):
                    raise ValueError("between braces stands the name of a column, and nothing else")
                self._parts.append((literal, name))
        except ValueError as error:
            raise InputError(f"the prompt {text!r} is no template: {error}; write {{{{ and }}}} for braces") from None

    @property
    def names(self) -> list[str]:
        """The names of the columns that the template uses."""
        return [name for _, name in self._parts if name is not None]

    def check(self, columns: Collection[str], known: str) -> None:
        """See that all its names are columns.

        Args:
            columns: those there are.
            known: the same in words, for the error.

        Raises:
            InputError: one is not.
        """
        for name in self.names:
            if name not in columns:
                raise InputError(f"the prompt uses {{{name}}}, which is no column; {known}")

    def fill(self, row: Mapping[str, Any]) -> str:
        """The prompt of one row; what is no text is written as JSON.

        Raises:
            KeyError: a name is not in the row.
        """
        return "".join(
            literal if name is None else literal + (value if isinstance(value := row[name], str) else json.dumps(value))
            for literal, name in self._parts
        )
