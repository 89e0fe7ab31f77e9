"""The input of a batch, line by line: JSON lines of five shapes, and tables with a template for the prompt.

A line that cannot be sent is a `BadLine` and stops nothing. An input that cannot be read as it was asked for (no such
column, no text at all) is an `InputError`. Memory holds one line at a time, however long the input is.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import IO, Any, NoReturn

from ..core.checks import path_of, text
from .ids import IdSet
from .shapes import BadRow, Request, Shapes, shown
from .template import InputError, Template

__all__ = ["BadLine", "InputError", "Line", "check_source", "read_lines"]

# OpenAI's limit for a whole file is 200 MB; what is longer than a line of this is no line.
LONGEST_LINE = 256 * 2**20
JSON_NAMES = (".jsonl", ".ndjson", ".json")
TABLE_NAMES = (".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class Line:
    """One call that a batch makes.

    Attributes:
        number: of the line, from 1; in a table, of the record below the header.
        custom_id: its name in the output; "line-<number>" when the input gives none.
        url: OpenAI's path of the endpoint, such as "/v1/chat/completions", whatever prefix the input had.
        body: the request, as it is in the input.
        size: bytes of the line.
    """

    number: int
    custom_id: str
    url: str
    body: dict[str, Any]
    size: int = 0


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be sent, and why; `custom_id` is None when it has none that can be read."""

    number: int
    custom_id: str | None
    message: str


def read_lines(
    source: Any,
    *,
    prompt: str | None = None,
    model: str | None = None,
    endpoint: str | None = None,
    limit: int | None = None,
) -> Iterator[Line | BadLine]:
    """Read the calls of a batch lazily; blank lines are skipped, and a custom_id that was there before is a bad line.

    JSON lines may be OpenAI's Batch lines (`custom_id`, `method`, `url`, `body`), short ones (`custom_id`, `body`),
    Anthropic's (`custom_id`, `params`), bare bodies (`messages` or `input`; a `custom_id` in it is taken out), or
    `{"prompt": "..."}` rows: of these, `custom_id` or `id` names the call, `model` is its model, and other fields are
    ignored. A table needs `prompt`, or a column of that name; its columns `custom_id` or `id` name the calls.

    Args:
        source: a path (`.gz` is unpacked), "-" for stdin, or a file object, of text or bytes, which is not closed.
        prompt: a template, "Classify: {text}", whose {names} are columns; {{ and }} are braces. It makes every source
            a table, but for files named .jsonl, .ndjson or .json: there the names are fields of the rows.
        model: for rows that name none.
        endpoint: the path for rows that name none; None to tell by their fields.
        limit: lines to read at most, from the start; None for all.

    Raises:
        TypeError, ValueError: an argument makes no sense.
        OSError: it cannot be opened or read.
        InputError: it cannot be read so; a ValueError.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"limit must be a whole number of lines from 1 up, not {limit!r}; None means all")
    check_source(source)
    if model is not None and not text("model", model):
        raise ValueError("model must be the name of one, not ''; None means that every line names its own")
    template = None if prompt is None else Template(text("prompt", prompt))
    shapes = Shapes(model=model, endpoint=endpoint, template=template)
    return islice(_read(source, shapes, template), None if limit is None else min(limit, sys.maxsize))


def check_source(source: Any) -> None:
    """Refuse what is no input, before anything is opened.

    Raises:
        TypeError, ValueError: it is neither a path, "-" nor a file object.
    """
    if isinstance(source, (str, os.PathLike)):
        path_of("source", source)
    elif not hasattr(getattr(source, "buffer", source), "readline"):
        raise TypeError(f'source must be a path, "-" or a file object, not {source!r}')


def _read(source: Any, shapes: Shapes, template: Template | None) -> Iterator[Line | BadLine]:
    name = _name(source)
    with _opened(source, name) as file:
        plain = name.removesuffix(".gz")
        table = plain.endswith(TABLE_NAMES) or (template is not None and not plain.endswith(JSON_NAMES))
        if table:
            rows = _table_rows(file, shapes, template, "\t" if plain.endswith(".tsv") else None)
        else:
            rows = _json_rows(file, shapes)
        seen = IdSet()
        for number, size, row in rows:
            if isinstance(row, BadRow):
                yield BadLine(number, row.custom_id, str(row))
                continue
            custom_id = row.custom_id if row.custom_id is not None else f"line-{number}"
            if seen.add(custom_id):
                yield Line(number, custom_id, row.url, row.body, size)
            else:
                yield BadLine(number, custom_id, f"the custom_id {shown(custom_id)} was there before, or is taken")


# -- opening ----------------------------------------------------------------------------------------------------------


def _name(source: Any) -> str:
    name = source if isinstance(source, (str, os.PathLike)) else getattr(source, "name", "")
    return os.fspath(name).lower() if isinstance(name, (str, os.PathLike)) else ""


@contextmanager
def _opened(source: Any, name: str) -> Iterator[IO[Any]]:
    try:
        if isinstance(source, (str, os.PathLike)) and source != "-":
            packed = name.endswith(".gz")
            file: IO[Any] = gzip.open(source) if packed else open(source, "rb")  # type: ignore[assignment]  # noqa: SIM115
            with file:
                yield file
        elif source == "-" and (stdin := _stdin()) is not None:
            yield stdin
        else:
            given = sys.stdin if source == "-" else source
            yield getattr(given, "buffer", given)  # the bytes below a text file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{source} is damaged: {error}") from error


def _stdin() -> IO[bytes] | None:
    # Not sys.stdin itself: a thread that waits in it when the process ends has the interpreter abort.
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except (AttributeError, OSError, ValueError):  # a test's, a notebook's
        return None


# -- JSON lines -------------------------------------------------------------------------------------------------------


def _json_rows(file: IO[Any], shapes: Shapes) -> Iterator[tuple[int, int, Request | BadRow]]:
    for number, line in _raw_lines(file):
        if line is None:
            yield number, 0, BadRow(f"longer than {LONGEST_LINE:,} bytes")
        elif line.strip():
            yield number, len(line), _parse(line, shapes)


def _raw_lines(file: IO[Any]) -> Iterator[tuple[int, bytes | None]]:
    """Number and bytes of every line; None in place of one that is too long."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        whole = len(line) <= LONGEST_LINE
        while len(line) > LONGEST_LINE and line[-1:] not in (b"\n", "\n"):
            line = file.readline(LONGEST_LINE + 1)
        if isinstance(line, str):
            line = line.encode("utf-8", "surrogateescape")
        if number == 1:
            line = _without_mark(line)
        yield number, line if whole else None


def _without_mark(line: bytes) -> bytes:
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError("the input is UTF-16; save it as UTF-8 (in PowerShell: Set-Content -Encoding utf8)")
    return line.removeprefix(codecs.BOM_UTF8)


def _parse(line: bytes, shapes: Shapes) -> Request | BadRow:
    try:
        row = json.loads(line.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        return BadRow(f"not UTF-8: byte {error.start + 1} is 0x{line[error.start]:02x}")
    except RecursionError:
        return BadRow("nested too deeply")
    except ValueError as error:
        return BadRow(f"not JSON: {error}")
    try:
        return shapes.request(row)
    except BadRow as bad:
        return bad


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


# -- tables -----------------------------------------------------------------------------------------------------------


def _table_rows(
    file: IO[Any], shapes: Shapes, template: Template | None, delimiter: str | None
) -> Iterator[tuple[int, int, Request | BadRow]]:
    first = next((line for _, line in _raw_lines(file) if line is None or line.strip()), b"")
    head = (first or b"").decode("utf-8", "surrogateescape")
    # One field may be a whole document. The csv module's 128 KB are a setting of the process: only ever raised here.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))
    # A quoted name in the header may go on in the next line: the reader sees the header as part of the whole.
    reader = csv.reader(_chain(head, file), delimiter=delimiter or _delimiter(head))
    try:
        columns = next(reader, [])
    except csv.Error as error:
        raise InputError(f"the header of the table is not CSV: {error}") from None
    if template is None:
        if "prompt" not in columns:
            raise InputError(f'a table needs a template for the prompt: --prompt "... {{column}}"; {_has(columns)}')
        template = Template("{prompt}")
    template.check(columns, _has(columns))
    number = 0
    while True:
        try:
            record = next(reader, None)
        except csv.Error as error:
            number += 1
            yield number, 0, BadRow(f"not CSV: {error}")
            continue
        if record is None:
            return
        if record:
            number += 1
            yield number, sum(map(len, record)), _record(record, columns, shapes, template)


def _chain(head: str, file: IO[Any]) -> Iterator[str]:
    yield head
    for _, line in _raw_lines(file):
        # Too long for a line: what csv makes of it is an error of that record.
        yield "\0" if line is None else line.decode("utf-8", "surrogateescape")


def _record(record: list[str], columns: list[str], shapes: Shapes, template: Template) -> Request | BadRow:
    if len(record) != len(columns):
        return BadRow(f"{len(record)} fields under a header of {len(columns)}")
    row = dict(zip(columns, record, strict=True))
    if any("\0" in field for field in record):
        return BadRow("it contains a NUL character")
    try:
        "".join(record).encode()
    except UnicodeEncodeError:
        return BadRow("not UTF-8")
    try:
        return shapes.prompted(template.fill(row), row.get("custom_id") or row.get("id") or None)
    except BadRow as bad:
        return bad


def _delimiter(head: str) -> str:
    """What separates the columns: what the header has most of, a comma if in doubt."""
    return max(",;\t", key=partial(str.count, head))


def _has(columns: list[str]) -> str:
    return f"the columns are {', '.join(columns)}" if columns else "the table is empty"
