"""The endpoints that generate nothing: embeddings, moderations, and the list of models."""

from __future__ import annotations

import base64
import hashlib
import math
from array import array
from typing import Any

from .replies import Answer, Ask, BadRequest, Endpoint, text_of
from .text import count_tokens

__all__ = ["EMBEDDINGS", "MODERATIONS", "model_card", "model_list"]

# text-embedding-3-small's; a call may ask for another number.
DIMENSIONS = 1536
CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip


def _inputs(body: dict[str, Any]) -> list[Any]:
    """The inputs of a call, one for each vector: texts, or lists of token numbers."""
    given = body.get("input")
    if given is None or given == []:
        raise BadRequest("'input' is missing")
    if isinstance(given, str) or (isinstance(given, list) and isinstance(given[0], int)):
        return [given]
    return given if isinstance(given, list) else [given]


def _tokens(given: Any) -> int:
    if isinstance(given, list) and given and isinstance(given[0], int):
        return len(given)
    text, other = text_of(given)
    return count_tokens(text) + other


def _read(body: dict[str, Any]) -> Ask:
    inputs = _inputs(body)
    tokens = max(1, sum(map(_tokens, inputs)))
    return Ask(str(body.get("model", "")), tokens, prompt=text_of(inputs[-1])[0], body=body, produces=False)


def vector(given: Any, dimensions: int) -> array[float]:
    """The vector of an input: always the same one, of about unit length."""
    raw = hashlib.shake_128(repr(given).encode("utf-8", "surrogatepass")).digest(4 * dimensions)
    # Uniform in [-1, 1] has a variance of one third, so this makes the sum of squares about 1.
    scale = math.sqrt(3 / dimensions) / 2**31
    return array("f", [number * scale for number in array("i", raw)])


def _embeddings(ask: Ask, answer: Answer) -> dict[str, Any]:
    size = ask.body.get("dimensions") or DIMENSIONS
    packed = ask.body.get("encoding_format") == "base64"
    data = []
    for index, given in enumerate(_inputs(ask.body)):
        numbers = vector(given, size)
        value = base64.b64encode(numbers.tobytes()).decode() if packed else numbers.tolist()
        data.append({"object": "embedding", "index": index, "embedding": value})
    usage = {"prompt_tokens": ask.input_tokens, "total_tokens": ask.input_tokens}
    return {"object": "list", "data": data, "model": ask.model, "usage": usage}


def _moderations(ask: Ask, answer: Answer) -> dict[str, Any]:
    result = {
        "flagged": False,
        "categories": dict.fromkeys(CATEGORIES, False),
        "category_scores": dict.fromkeys(CATEGORIES, 0.0),
        "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
    }
    return {"id": f"modr-{answer.id}", "model": ask.model, "results": [result for _ in _inputs(ask.body)]}


def model_card(name: str) -> dict[str, Any]:
    """A model as both kinds of SDK read it: OpenAI's fields and Anthropic's together."""
    return {
        "id": name,
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "simulator",
        "type": "model",
        "display_name": name,
        "created_at": "2023-11-14T22:13:20Z",
        "lifecycle": "active",
    }


def model_list(names: list[str]) -> dict[str, Any]:
    """A page of models, the only one."""
    data = [model_card(name) for name in names]
    ends = {"first_id": names[0], "last_id": names[-1]} if names else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, "has_more": False, **ends}


EMBEDDINGS = Endpoint("embeddings", _read, _embeddings)
MODERATIONS = Endpoint("moderations", _read, _moderations)
