"""What a journal keeps, and how it knows a call again."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimited_llm.stores.journal import call_key
from ratelimited_llm.stores.journal_keys import Occurrences
from ratelimited_llm.stores.journal_values import harmless

TEXT = st.text(st.characters())  # lone surrogates included
BODIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def turned(value: Any) -> Any:
    """The same JSON with the keys of every object in the opposite order."""
    if isinstance(value, dict):
        return {name: turned(item) for name, item in reversed(value.items())}
    return [turned(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=50)
@given(BODIES)
def test_any_json_has_a_key_and_the_order_of_names_does_not_matter(body: Any) -> None:
    """32 bytes, whatever is in it."""
    found = call_key("openai", "/x", body)
    assert len(found) == 32
    assert call_key("openai", "/x", turned(body)) == found


@settings(max_examples=50)
@given(BODIES, BODIES)
def test_different_requests_have_different_keys(first: Any, second: Any) -> None:
    """Two bodies have one key exactly if they are one JSON text; true and 1 are two."""
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (call_key("p", "/x", first) == call_key("p", "/x", second)) is same


def test_provider_and_path_are_part_of_the_key() -> None:
    """The same body at another provider or endpoint is another call, wherever the words are cut."""
    keys = {call_key("a", "b", {}), call_key("b", "a", {}), call_key("ab", "", {}), call_key("", "ab", {})}
    assert len(keys) == 4


def test_one_and_one_point_zero_differ() -> None:
    """As they do on the wire."""
    assert call_key("p", "/x", {"t": 1}) != call_key("p", "/x", {"t": 1.0})


def test_what_is_no_json_is_named_with_its_place() -> None:
    """And its value is not, which may be a secret."""
    with pytest.raises(
        TypeError, match=r"body\['messages'\]\[0\]\['content'\] is of type (Posix|Windows)Path"
    ) as caught:
        call_key("p", "/x", {"messages": [{"content": Path("sk-secret")}]})
    assert "sk-secret" not in str(caught.value)
    with pytest.raises(TypeError, match="a key of body is of type tuple"):
        call_key("p", "/x", {(1, 2): 3})
    with pytest.raises(ValueError, match="not JSON compliant"):
        call_key("p", "/x", {"t": float("nan")})


def test_equal_requests_are_counted() -> None:
    """Five identical samples are numbers 0 to 4; another request begins at 0."""
    occurrences = Occurrences()
    assert [occurrences.next(b"a" * 32) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert occurrences.next(b"b" * 32) == 0


def test_each_execution_of_a_cell_counts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """In IPython, so that running a cell again finds its answers."""
    shell = types.SimpleNamespace(execution_count=7)
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    occurrences = Occurrences()
    assert [occurrences.next(b"a" * 32) for _ in range(2)] == [0, 1]
    shell.execution_count = 8
    assert [occurrences.next(b"a" * 32) for _ in range(2)] == [0, 1]


def test_an_ipython_that_is_no_shell_counts_like_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries import IPython in plain scripts too."""
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    occurrences = Occurrences()
    assert [occurrences.next(b"a" * 32) for _ in range(2)] == [0, 1]


@pytest.mark.parametrize(
    "name",
    ["set-cookie", "Authorization", "openai-organization", "OpenAI-Project", "anthropic-organization-id", "x-api-key",
     "server", "x-whatever"],
)  # fmt: skip
def test_headers_of_the_account_are_left_out(name: str) -> None:
    """Nothing that tells whose account it is, and nothing unknown."""
    assert harmless([(name, "secret")]) == ()


@pytest.mark.parametrize(
    "name",
    ["Content-Type", "content-encoding", "x-request-id", "request-id", "openai-model", "openai-processing-ms",
     "x-ratelimit-remaining-project-tokens", "anthropic-ratelimit-tokens-limit", "retry-after"],
)  # fmt: skip
def test_headers_that_explain_an_answer_are_kept(name: str) -> None:
    """Of content, request, model and limits."""
    assert harmless([(name, "value")]) == ((name, "value"),)
