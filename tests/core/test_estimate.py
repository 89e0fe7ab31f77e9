"""What a call will probably cost: bytes, and what answers teach about them."""

import pytest

from ratelimited_llm.core.estimate import TokenEstimator, prompt_bytes
from ratelimited_llm.core.request import Usage

KEY = ("gpt-4.1-mini", "/chat/completions")


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ({"model": "m", "prompt": "four"}, 4),
        ({"model": "m", "input": ["four", "four"]}, 8),
        ({"model": "m", "prompt": [1, 2, 3]}, 12),  # tokens already
        ({"prompt": "日本語"}, 9),
        ({"prompt": "\ud800"}, 3),
        ({"max_tokens": 100, "temperature": 0.5, "stop": None}, 0),
        ({}, 0),
        (None, 0),
    ],
)
def test_the_text_of_a_body_is_counted_in_utf8_bytes(body: object, size: int) -> None:
    """Prompts count, in whatever shape; parameters do not."""
    assert prompt_bytes(body) == size


def test_messages_count_their_text_and_a_little_for_the_frame() -> None:
    """Roles and types are no text of the user's; each message costs about three tokens more."""
    plain = {"messages": [{"role": "user", "content": "x" * 100}]}
    parts = {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 100}]}]}
    assert prompt_bytes(plain) == prompt_bytes(parts) == 112


def test_an_image_counts_as_an_image_and_not_as_its_bytes() -> None:
    """A data URL of a megabyte is not a quarter of a million tokens."""
    url = "data:image/png;base64," + "A" * 1_000_000
    body = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}
    assert prompt_bytes(body) < 4_000


def test_without_experience_a_token_is_four_bytes_and_an_answers_length_unknown() -> None:
    """The estimate starts where everybody's does."""
    estimator = TokenEstimator()
    assert estimator.prompt_tokens(KEY, 401) == 101
    assert estimator.output_tokens(KEY) is None


def test_experience_corrects_the_estimate_within_twenty_answers() -> None:
    """What looked like 100 tokens and was 150 each time is known to be 150."""
    estimator = TokenEstimator()
    for _ in range(20):
        estimator.learn(KEY, 400, Usage(150, 30))
    assert estimator.prompt_tokens(KEY, 400) == pytest.approx(150, abs=1)
    assert estimator.output_tokens(KEY) == 30


def test_each_model_and_endpoint_learns_for_itself() -> None:
    """What one model's answers teach says nothing about another's."""
    estimator = TokenEstimator()
    estimator.learn(KEY, 400, Usage(300, 30))
    assert estimator.prompt_tokens(("other", "/chat/completions"), 400) == 100


def test_an_answer_without_a_prompt_teaches_no_ratio() -> None:
    """Zero bytes or zero tokens would teach nonsense."""
    estimator = TokenEstimator()
    estimator.learn(KEY, 0, Usage(300, 30))
    estimator.learn(KEY, 400, Usage(0, 30))
    assert estimator.prompt_tokens(KEY, 400) == 100
