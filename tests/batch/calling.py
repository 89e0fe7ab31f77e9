"""What the tests of batches have in common: a line of a batch, and the end of a command."""

from __future__ import annotations


def call(number, text=None, **more):
    """An OpenAI Batch line."""
    messages = [{"role": "user", "content": text or f"question {number}"}]
    body = {"model": "m", "messages": messages, **more}
    return {"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def ended(child, data=None):
    """Exit code, stdout and stderr of a command, once it has ended."""
    out, err = child.communicate(data, timeout=15)
    return child.returncode, out.decode(), err.decode()
