"""What these tests have in common: bodies as OpenAI writes them, and short ways to ask."""

from __future__ import annotations

CHAT = "https://api.openai.com/v1/chat/completions"
KEY = {"Authorization": "Bearer sk-test"}


def question(text="hello", **more):
    """The body of a chat call."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def answer(text="hello", tokens=2):
    """What it is answered with."""
    return {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": tokens - 1, "completion_tokens": 1, "total_tokens": tokens},
    }


def refusal(code="rate_limit_exceeded"):
    """The body of a 429; without numbers, which would teach a limit."""
    return {"error": {"message": "Rate limit reached.", "type": "requests", "param": None, "code": code}}


def text_of(response):
    """The text of an answer; waits."""
    return response.json()["choices"][0]["message"]["content"]
