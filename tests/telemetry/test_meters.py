"""What is counted: pure values."""

import pytest

from ratelimited_llm.accounts import account_for
from ratelimited_llm.core.feedback import Feedback, Kind, Outcome
from ratelimited_llm.core.limits import RateLimits
from ratelimited_llm.core.retry import RetryPolicy
from ratelimited_llm.engine.jobs import AttemptFailed
from ratelimited_llm.providers import dialect_for
from ratelimited_llm.telemetry.meters import MOST_REASONS, Histogram, Labels, Meter, Meters, operation_of
from ratelimited_llm.telemetry.reasons import error_type, reason_of
from ratelimited_llm.telemetry.registry import provider_of


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("/chat/completions", "chat"),
        ("/openai/v1/chat/completions?api-version=1", "chat"),
        ("/deployments/x/chat/completions/", "chat"),
        ("/completions", "text_completion"),
        ("/v1/complete", "text_completion"),
        ("/v1/messages", "chat"),
        ("/responses", "chat"),
        ("/embeddings", "embeddings"),
        ("/audio/speech", "speech"),
        ("/v1beta/models/gemini-2.0:generateContent", "generate_content"),
        ("/whatever/sk-key", "other"),
        ("", "other"),
    ],
)
def test_an_operation_is_one_of_a_few_words(path, operation):
    """What a path does, in the words of the GenAI conventions; never a part of the path itself."""
    assert operation_of(path) == operation


def test_a_value_counts_under_the_first_bound_that_it_does_not_pass():
    """Prometheus' buckets are upper bounds, inclusive; the last one has none."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.0, 1.0, 1.1, 2.0, 9.0, -1.0, float("nan")):
        histogram.add(value)
    assert histogram.counts == [4, 2, 1]
    assert histogram.sum == pytest.approx(13.1)
    other = Histogram((1.0, 2.0))
    other.add(1.5)
    histogram.join(other)
    assert (histogram.counts, histogram.count) == ([4, 3, 1], 8)


def test_reasons_are_bounded():
    """A server that makes up a new status for each answer fills no memory."""
    meter = Meter()
    for number in range(10 * MOST_REASONS):
        meter.came_back(f"reason {number}", limited=False)
    meter.came_back("rpm", limited=True)
    assert len(meter.retries) == MOST_REASONS + 1
    assert meter.retries["other"] == 9 * MOST_REASONS
    assert meter.limited == {"rpm": 1}


def test_meters_are_added_up_name_by_name():
    """Two clients with the same kind of calls are one line, and no count is forgotten."""
    labels = Labels("openai", "m", "m", "chat", 5)
    one, two = Meters(), Meters()
    for meters in (one, two):
        meter = meters[labels]
        for name in Meter.__slots__:
            if isinstance(getattr(meter, name), (int, float)):
                setattr(meter, name, 2)
        meter.came_back("rpm", limited=True)
        meter.came_back("503", limited=False)
        meter.wait.add(1.0)
        meter.duration.add(1.0)
        meter.first_chunk.add(1.0)
    one.join(two)
    joined = one[labels]
    for name in Meter.__slots__:
        value = getattr(joined, name)
        assert (value.count if isinstance(value, Histogram) else value) in (2, 4, {"rpm": 2}, {"503": 2}), name


class Told(Exception):
    """An error with a status, as the SDKs' have one."""

    status_code = 503


def test_a_failure_is_named_by_status_or_class_and_never_by_its_text():
    """The text of an error may quote the prompt."""
    assert error_type(Told("my secret prompt")) == "503"
    assert error_type(TimeoutError("my secret prompt")) == "TimeoutError"
    refused = Feedback(Outcome(Kind.LIMITED, dimension="tpm"))
    assert reason_of(AttemptFailed(refused, RetryPolicy(), Told())) == "tpm"
    assert reason_of(AttemptFailed(Feedback(Outcome(Kind.LIMITED)), RetryPolicy(), Told())) == "unknown"
    assert reason_of(AttemptFailed(Feedback(Outcome(Kind.OVERLOADED)), RetryPolicy(), Told())) == "503"


@pytest.mark.parametrize(
    ("door", "url", "name"),
    [
        ("openai", "https://api.openai.com/v1", "openai"),
        ("openai", "http://user:password@localhost:8000/v1", "openai"),
        ("openai", "https://api.groq.com/openai/v1", "groq"),
        ("azure", "https://x.openai.azure.com", "azure.ai.openai"),
        ("anthropic", "https://api.anthropic.com", "anthropic"),
    ],
)
def test_a_provider_is_called_as_in_the_conventions(door, url, name):
    """By the host where it is known, and otherwise by the kind of client that asks."""
    account = account_for(door, url, "sk-test", RateLimits(), dialect_for(door, url))
    assert provider_of(account.pool("m")) == name
