"""What users import, and what importing it costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ratelimited_llm
from ratelimited_llm import exceptions


def in_fresh_python(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_all_is_sorted_and_complete() -> None:
    """`__all__` names every public name that the package offers, in order, and each one is there."""
    assert ratelimited_llm.__all__ == sorted(ratelimited_llm.__all__)
    assert set(ratelimited_llm.__all__) == set(ratelimited_llm._HOMES)
    for name in ratelimited_llm.__all__:
        assert getattr(ratelimited_llm, name) is not None
    assert set(ratelimited_llm.__all__) <= set(dir(ratelimited_llm))


def test_every_public_name_is_used_in_the_type_tests() -> None:
    """mypy checks `typing/api.py`; a name that it does not use is one whose types nobody has looked at."""
    tree = ast.parse((Path(__file__).parent / "typing" / "api.py").read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "ratelimited_llm"
        for alias in node.names
    }
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert {*ratelimited_llm.__all__, *ratelimited_llm._MODULES} - (imported & used) == set()


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A typo in an import is told as Python tells it."""
    with pytest.raises(AttributeError, match="no attribute 'OpenAi'"):
        ratelimited_llm.OpenAi  # noqa: B018


def test_importing_the_package_loads_no_sdk_and_no_third_party() -> None:
    """`import ratelimited_llm` costs next to nothing: no SDK, no HTTP client, no pydantic, no asyncio."""
    loaded = in_fresh_python("import sys, ratelimited_llm; print(*sorted({m.split('.')[0] for m in sys.modules}))")
    heavy = {"openai", "groq", "anthropic", "httpx", "httpx2", "pydantic", "requests", "asyncio", "h11", "concurrent"}
    assert not heavy & set(loaded.split())


def test_the_executor_loads_no_sdk() -> None:
    """RateLimitedExecutor is for any callable, so it needs no SDK."""
    loaded = in_fresh_python(
        "import sys; from ratelimited_llm import RateLimitedExecutor; print('openai' in sys.modules)"
    )
    assert loaded == "False"


def test_a_door_shows_the_very_objects_of_its_sdk() -> None:
    """Exceptions and types of a mirror module are the SDK's own, so old except lines catch what is raised."""
    import openai as plain

    from ratelimited_llm import openai as ours

    assert ours.RateLimitError is plain.RateLimitError
    assert ours.types is plain.types
    assert ours.OpenAI is not plain.OpenAI
    assert issubclass(ours.OpenAI, plain.OpenAI)
    assert "RateLimitError" in dir(ours)
    with pytest.raises(AttributeError, match=r"ratelimited_llm\.openai"):
        ours.NoSuchThing  # noqa: B018


def test_every_error_of_ours_is_caught_by_the_old_except_line() -> None:
    """Ours subclass what people catch already: queue.Full, TimeoutError, ValueError, RuntimeError."""
    import concurrent.futures
    import queue

    assert issubclass(exceptions.QueueFull, queue.Full)
    assert issubclass(exceptions.RequestExpired, TimeoutError)
    assert issubclass(exceptions.RequestExpired, concurrent.futures.TimeoutError)
    assert issubclass(exceptions.BudgetExceeded, ValueError)
    assert issubclass(exceptions.WorkerStopped, RuntimeError)
    for name in exceptions.__all__:
        assert issubclass(getattr(exceptions, name), exceptions.RateLimitedLLMError)


def test_errors_say_what_happened_with_the_number_and_what_to_change() -> None:
    """The message of an error is a next step, and its numbers are attributes."""
    too_big = exceptions.BudgetExceeded("tpm", 30_000, 342_389, request_id=7)
    assert "342,389" in str(too_big)
    assert "30,000" in str(too_big)
    assert "tpm=" in str(too_big)
    assert (too_big.dimension, too_big.limit, too_big.requested, too_big.request_id) == ("tpm", 30_000, 342_389, 7)
    assert "max_queue=" in str(exceptions.QueueFull(10))
    assert "max_queue_per_tenant=" in str(exceptions.QueueFull(10, tenant="acme"))
    late = exceptions.RequestExpired(31.0, 30.0)
    assert (late.waited, late.allowed) == (31.0, 30.0)
    assert "deadline=" in str(late)
