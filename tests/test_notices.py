"""What a person acts on is said once, with its facts, and without keys or prompts."""

import logging
import os
import subprocess
import sys

import pytest

from ratelimited_llm.core.feedback import Kind, Outcome, Reading
from ratelimited_llm.notices import News
from ratelimited_llm.openai import OpenAI
from ratelimited_llm.simulator import Simulator

LOGGER = "ratelimited_llm.limits"
TOLD = (Reading("rpm", 500), Reading("tpm", 200_000))


def test_learned_limits_are_said_once_and_again_when_they_change(caplog: pytest.LogCaptureFixture) -> None:
    """One line for what was learned, one for what changed, none in between."""
    caplog.set_level(logging.INFO, LOGGER)
    news = News("https://api.example.com/v1")
    for _ in range(3):
        news.answered("gpt-4.1-mini", TOLD)
    news.answered("gpt-4.1-mini", (Reading("rpm", 250), *TOLD[1:]))
    assert caplog.messages == [
        "limits learned from api.example.com: 500 rpm, 200,000 tpm (gpt-4.1-mini)",
        "limits changed at api.example.com: 250 rpm (gpt-4.1-mini)",
    ]
    assert [record.event for record in caplog.records] == ["limits_learned", "limits_changed"]


def test_the_first_refusal_of_a_model_is_news_and_the_others_are_details(caplog: pytest.LogCaptureFixture) -> None:
    """INFO once, DEBUG afterwards."""
    caplog.set_level(logging.DEBUG, LOGGER)
    news = News("https://api.example.com/v1")
    for _ in range(2):
        news.refused("m", Outcome(Kind.LIMITED, retry_after=7.66, dimension="tpm"))
    assert [record.levelno for record in caplog.records] == [logging.INFO, logging.DEBUG]
    assert "limit: tpm, wait: 7.7 s" in caplog.messages[0]


def test_a_client_says_what_it_learned(caplog: pytest.LogCaptureFixture) -> None:
    """The first answer's headers are the news."""
    caplog.set_level(logging.INFO, LOGGER)
    with Simulator("openai", rpm=500, tpm=200_000) as provider:
        with OpenAI(base_url=provider.base_url, api_key="sk-secret-in-test") as client:
            messages = [{"role": "user", "content": "the prompt"}]
            assert client.chat.completions.create(model="gpt-4.1-mini", messages=messages).choices  # type: ignore[arg-type]
        said = [message for message in caplog.messages if "limits learned" in message]
    assert said == ["limits learned from 127.0.0.1: 500 rpm, 200,000 tpm (gpt-4.1-mini)"]
    assert "sk-secret" not in caplog.text
    assert "the prompt" not in caplog.text


def test_the_environment_shows_the_log_on_stderr() -> None:
    """RATELIMITED_LLM_LOG=info needs no line of code."""
    code = "import ratelimited_llm, logging; logging.getLogger('ratelimited_llm.limits').info('learned')"
    environment = {**os.environ, "RATELIMITED_LLM_LOG": "info"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert "ratelimited_llm.limits" in done.stderr
    assert "learned" in done.stderr
