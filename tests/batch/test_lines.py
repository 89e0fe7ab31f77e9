"""The input of a batch: every shape of a row, every kind of bad line, tables, and what is no input at all."""

from __future__ import annotations

import gzip
import io
import json

import pytest

from ratelimited_llm.batch import BadLine, InputError, Line, lines, read_lines

CHAT = "/v1/chat/completions"


def read(data, **options):
    """The lines of an input that is given as bytes, a text, or rows."""
    if isinstance(data, list):
        data = "\n".join(map(json.dumps, data))
    return list(read_lines(io.BytesIO(data.encode() if isinstance(data, str) else data), **options))


def one(data, **options):
    (line,) = read(data if isinstance(data, (str, bytes)) else [data], **options)
    return line


def chat(text):
    return [{"role": "user", "content": text}]


def test_a_batch_line_is_taken_as_it_is():
    """Name, path and body, unknown fields of the body included."""
    body = {"model": "m", "messages": chat("hi"), "some_new_field": [1]}
    line = one({"custom_id": "a", "method": "POST", "url": CHAT, "body": body})
    assert (line.number, line.custom_id, line.url, line.body) == (1, "a", CHAT, body)


@pytest.mark.parametrize(
    ("row", "url", "body"),
    [
        ({"body": {"model": "m", "messages": []}}, CHAT, {"model": "m", "messages": []}),
        ({"model": "m", "messages": []}, CHAT, {"model": "m", "messages": []}),
        ({"messages": []}, CHAT, {"model": "given", "messages": []}),
        ({"prompt": "hi"}, CHAT, {"model": "given", "messages": chat("hi")}),
        ({"prompt": "hi", "model": "own", "lang": "de"}, CHAT, {"model": "own", "messages": chat("hi")}),
        ({"model": "text-embedding-3-small", "input": "x"}, "/v1/embeddings", None),
        ({"model": "bge", "input": ["x", "y"]}, "/v1/embeddings", None),
        ({"model": "bge", "input": "x", "dimensions": 8}, "/v1/embeddings", None),
        ({"model": "gpt-5", "input": "x"}, "/v1/responses", None),
        ({"model": "gpt-5", "input": chat("x")}, "/v1/responses", None),
        ({"model": "omni-moderation-latest", "input": "x"}, "/v1/moderations", None),
        ({"custom_id": "a", "params": {"model": "m", "messages": []}}, "/v1/messages", {"model": "m", "messages": []}),
        ({"url": "/v1/completions", "body": {"model": "m", "prompt": "x"}}, "/v1/completions", None),
        ({"url": "chat/completions/", "body": {"model": "m", "messages": []}}, CHAT, None),
        ({"url": "/openai/v1/chat/completions", "body": {"model": "m", "messages": []}}, CHAT, None),
    ],
)
def test_each_shape_of_a_row_finds_its_endpoint(row, url, body):
    """Batch lines with and without url, bare bodies, prompts, and Anthropic's batch lines."""
    line = one(row, model="given")
    assert line.url == url
    assert body is None or line.body == body


def test_names_are_the_rows_own_or_the_number_of_the_line():
    """custom_id; of a prompt row also id; else the number of the line, blank ones counted."""
    data = b'{"prompt": "a", "id": 7}\n\n{"prompt": "b"}\n{"messages": [], "custom_id": "x", "id": "y"}'
    third = read(data, model="m")[2]
    assert [line.custom_id for line in read(data, model="m")] == ["7", "line-3", "x"]
    assert third.body == {"model": "m", "messages": [], "id": "y"}


def test_an_endpoint_that_is_given_is_for_rows_that_name_none():
    """A prompt becomes what that endpoint takes."""
    rows = [{"prompt": "x"}, {"input": "y"}, {"url": CHAT, "body": {"messages": []}}]
    found = read(rows, model="m", endpoint="/v1/embeddings")
    assert [line.url for line in found] == ["/v1/embeddings", "/v1/embeddings", CHAT]
    assert found[0].body == {"model": "m", "input": "x"}
    assert one({"prompt": "x"}, model="m", endpoint="messages").body["max_tokens"] > 0
    assert one({"prompt": "x"}, model="m", endpoint="completions").body == {"prompt": "x", "model": "m"}


BAD = [
    (b"{", "not JSON"),
    (b"[1]", "not a JSON object but a list"),
    (b"17", "not a JSON object but a number"),
    (b'{"prompt": NaN}', "NaN is no JSON number"),
    (b'{"prompt": "a\x00b"}', "not JSON"),
    (b'{"prompt": "\xff"}', "not UTF-8: byte 13 is 0xff"),
    (b"[" * 200_000, "nested too deeply"),
    (b'{"prompt": ' + b"9" * 5000 + b"}", "not JSON|not text"),
    (b'{"prompt": 3}', '"prompt" is a number, not text'),
    (b'{"text": "x"}', "neither a batch line nor a body"),
    (b'{"custom_id": [1], "body": {}}', "the custom_id is a list"),
    (b'{"body": [1]}', "the body is a list, not a JSON object"),
    (b'{"body": {"messages": [], "stream": true}}', "a batch cannot stream"),
    (b'{"body": {"messages": []}, "method": "GET"}', "the method is 'GET'"),
    (b'{"body": {"messages": []}, "url": "/v1/files"}', "unknown url '/v1/files'"),
    (b'{"body": {"messages": []}, "url": 4}', "unknown url 4"),
    (b'{"body": {"messages": [], "model": 4}}', "the model is a number"),
]


@pytest.mark.parametrize(("data", "message"), BAD, ids=[message[:20] for _, message in BAD])
def test_a_bad_line_is_told_and_stops_nothing(data, message):
    """It keeps its number; the lines around it are read."""
    before, bad, after = read(b'{"prompt": "a"}\n' + data + b'\n{"prompt": "b"}', model="m")
    assert isinstance(bad, BadLine)
    assert bad.number == 2
    assert any(part in bad.message for part in message.split("|")), bad.message
    assert (before.number, after.number) == (1, 3)


def test_a_bad_line_keeps_the_name_that_it_has():
    """So that its error can be found again."""
    assert one({"custom_id": "a", "body": 3}) == BadLine(1, "a", "the body is a number, not a JSON object")


def test_without_a_model_a_row_is_bad_but_for_moderations():
    """The provider has a default only there."""
    assert "no model: give one with --model" in one({"messages": []}).message
    assert "no model" in one({"prompt": "x"}).message
    assert one({"url": "/v1/moderations", "body": {"input": "x"}}).body == {"input": "x"}


def test_a_name_that_was_there_before_is_a_bad_line():
    """The output could not tell the two apart."""
    first, second = read([{"custom_id": "a", "messages": []}] * 2, model="m")
    assert isinstance(first, Line)
    assert "'a' was there before" in second.message


def test_marks_line_ends_and_a_missing_last_line_end_change_nothing():
    """UTF-8 with a byte order mark, CRLF, blank lines."""
    data = b'\xef\xbb\xbf{"prompt": "a"}\r\n  \r\n{"prompt": "b"}'
    assert [line.number for line in read(data, model="m")] == [1, 3]


def test_utf_16_is_refused_with_the_way_out():
    """PowerShell writes it."""
    with pytest.raises(InputError, match="UTF-16; save it as UTF-8"):
        read('{"prompt": "a"}'.encode("utf-16"), model="m")


def test_a_line_of_50_mb_is_read():
    """A prompt may be a book; and its size is known."""
    line = one(b'{"prompt": "' + b"x" * 50_000_000 + b'"}', model="m")
    assert line.size > 50_000_000


def test_a_line_that_is_too_long_is_passed_over_in_pieces(monkeypatch):
    """What follows it is read."""
    monkeypatch.setattr(lines, "LONGEST_LINE", 100)
    _, bad, after = read(b'{"prompt": "a"}\n' + b"x" * 950 + b'\n{"prompt": "b"}', model="m")
    assert "longer than 100 bytes" in bad.message
    assert after.number == 3


def test_text_files_and_packed_files_are_read(tmp_path):
    """What open() gives, and .gz; a damaged one says so."""
    assert next(read_lines(io.StringIO('{"prompt": "ä"}'), model="m")).body["messages"] == chat("ä")
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"prompt": "a"}\n' * 3))
    assert len(list(read_lines(path, model="m"))) == 3
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="is damaged"):
        list(read_lines(path, model="m"))


def test_limit_counts_lines_from_the_start():
    """Bad ones too; and nonsense is refused at once."""
    assert len(read(b'{"prompt": "a"}\n{\n{"prompt": "b"}', model="m", limit=2)) == 2
    with pytest.raises(ValueError, match="limit must be a whole number of lines"):
        read_lines("x", limit=0)


@pytest.mark.parametrize("source", [None, 3, b"x"])
def test_what_is_no_input_is_refused(source):
    """A path, "-" or a file object."""
    with pytest.raises(TypeError, match="source must be a path"):
        list(read_lines(source))


# -- tables -----------------------------------------------------------------------------------------------------------


def table(data, prompt="{text}!", **options):
    return read(data, prompt=prompt, **{"model": "m", **options})


def test_a_table_fills_the_template_with_its_columns():
    """Quotes, line ends inside, and braces that are meant; records are counted, not lines."""
    found = table('id,text\n7,"a\nb, ""c"""\n\n8,d\n', prompt='{{"{text}"}} {id}')
    assert [line.body["messages"] for line in found] == [chat('{"a\nb, "c""} 7'), chat('{"d"} 8')]
    assert [(line.number, line.custom_id) for line in found] == [(1, "7"), (2, "8")]


@pytest.mark.parametrize("data", ["a;text\n1;x,y\n", "a\ttext\n1\tx,y\n", '"a","text"\n1,"x,y"\n', 'a,text\r\n1,"x,y"'])
def test_the_delimiter_is_the_headers(data):
    """Comma, semicolon, tab."""
    (line,) = table(data)
    assert line.body["messages"] == chat("x,y!")


def test_a_table_is_told_by_its_name(tmp_path):
    """Without a template a column named prompt will do; else one is asked for, with the columns that there are."""
    path = tmp_path / "in.CSV"
    path.write_text("prompt,b\nhi,2\n")
    assert next(read_lines(path, model="m")).body["messages"] == chat("hi")
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r'--prompt "... \{column\}"; the columns are a, b'):
        list(read_lines(path, model="m"))
    path.write_text("")
    with pytest.raises(InputError, match="the table is empty"):
        list(read_lines(path, model="m"))


def test_a_template_fills_fields_of_json_rows_too(tmp_path):
    """When the name says that they are JSON; what is no text is written as JSON."""
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": "x", "text": "hi", "n": [1]}\n{"text": "no n"}\n')
    good, bad = read_lines(path, model="m", prompt="{text} {n}")
    assert (good.custom_id, good.body["messages"]) == ("x", chat("hi [1]"))
    assert "no field 'n'" in bad.message


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("{nope}", r"uses \{nope\}, which is no column; the columns are id, text"),
        ("{text", "is no template"),
        ("text}", "is no template"),
        ("{}", "the name of a column, and nothing else"),
        ("{text!r}", "the name of a column, and nothing else"),
        ("{text:>9}", "the name of a column, and nothing else"),
    ],
)
def test_a_template_that_fits_no_column_is_refused(prompt, message):
    """With the columns that there are."""
    with pytest.raises(InputError, match=message):
        table("id,text\n1,x\n", prompt=prompt)


@pytest.mark.parametrize(
    ("record", "message"),
    [(b"1", "1 fields under a header of 2"), (b"1,2,3", "3 fields"), (b"1,\xff", "not UTF-8"), (b"1,a\x00b", "NUL")],
)
def test_a_bad_record_is_told_and_stops_nothing(record, message):
    """As a bad line of JSON is."""
    bad, good = table(b"id,text\n" + record + b"\n2,x\n")
    assert message in bad.message
    assert (bad.number, good.number) == (1, 2)
