"""What one row of JSON asks for: which endpoint, which body, under which name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .template import InputError, Template

__all__ = ["ENDPOINTS", "BadRow", "Request", "Shapes", "shown"]

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
EMBEDDINGS, MODERATIONS, MESSAGES = "/v1/embeddings", "/v1/moderations", "/v1/messages"
ENDPOINTS = (CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, MODERATIONS, "/v1/images/generations", MESSAGES)
# Fields that only one of the two endpoints with an `input` has.
_OF_RESPONSES = frozenset({"instructions", "max_output_tokens", "previous_response_id", "reasoning", "text", "tools"})
_OF_EMBEDDINGS = frozenset({"dimensions", "encoding_format"})


class BadRow(Exception):
    """This row cannot be sent; also a value, for the one who reads on."""

    def __init__(self, message: str, custom_id: str | None = None) -> None:
        super().__init__(message)
        self.custom_id = custom_id


@dataclass(slots=True)
class Request:
    """What a row asks for; `custom_id` is None when it names none."""

    custom_id: str | None
    url: str
    body: dict[str, Any]


def _known_url(url: object) -> str | None:
    """OpenAI's spelling of an endpoint's path ("chat/completions" and Groq's are read too); None for no endpoint."""
    if not isinstance(url, str):
        return None
    path = "/" + url.strip().strip("/")
    for prefix in ("/openai", "/v1"):
        path = path.removeprefix(prefix) if path.startswith(prefix + "/") else path
    return "/v1" + path if "/v1" + path in ENDPOINTS else None


class Shapes:
    """Reads rows.

    Args:
        model: for rows that name none.
        endpoint: the path for rows that name none; None to tell by their fields.
        template: makes a prompt of every row.

    Raises:
        InputError: the endpoint is none.
    """

    def __init__(self, *, model: str | None, endpoint: str | None, template: Template | None) -> None:
        self._model = model
        self._endpoint = None if endpoint is None else _known_url(endpoint)
        self._template = template
        if endpoint is not None and self._endpoint is None:
            raise InputError(f"unknown endpoint {endpoint!r}: a batch can send to {', '.join(ENDPOINTS)}")

    def request(self, row: Any) -> Request:
        """What this row asks for.

        Raises:
            BadRow: nothing that could be sent.
        """
        if not isinstance(row, dict):
            raise BadRow(f"not a JSON object but {_kind(row)}")
        custom_id = _custom_id(row)
        try:
            return self._request(row, custom_id)
        except BadRow as bad:
            bad.custom_id = custom_id
            raise

    def prompted(self, prompt: str, custom_id: str | None) -> Request:
        """The request that a prompt without any other column makes."""
        return self._prompt(prompt, custom_id, self._model)

    def _request(self, row: dict[str, Any], custom_id: str | None) -> Request:
        if "body" in row or "params" in row:
            return self._batch_line(row, custom_id)
        if self._template is not None:
            missing = next((name for name in self._template.names if name not in row), None)
            if missing is not None:
                raise BadRow(f"no field {missing!r}, which the prompt uses")
            return self._prompt(self._template.fill(row), custom_id or _id(row), self._model)
        if "prompt" in row and "messages" not in row and self._endpoint not in (COMPLETIONS, ENDPOINTS[5]):
            if not isinstance(row["prompt"], str):
                raise BadRow(f'"prompt" is {_kind(row["prompt"])}, not text')
            return self._prompt(row["prompt"], custom_id or _id(row), row.get("model") or self._model)
        body = {name: value for name, value in row.items() if name != "custom_id"}
        return self._whole(custom_id, self._url_for(body), body)

    def _batch_line(self, row: dict[str, Any], custom_id: str | None) -> Request:
        body = row["body"] if "body" in row else row["params"]
        if not isinstance(body, dict):
            raise BadRow(f"the body is {_kind(body)}, not a JSON object")
        method = row.get("method", "POST")
        if method != "POST":
            raise BadRow(f'the method is {shown(method)}: a batch can only "POST"')
        if row.get("url") is None:
            return self._whole(custom_id, MESSAGES if "params" in row else self._url_for(body), body)
        url = _known_url(row["url"])
        if url is None:
            raise BadRow(f"unknown url {shown(row['url'])}: a batch can send to {', '.join(ENDPOINTS)}")
        return self._whole(custom_id, url, body)

    def _url_for(self, body: dict[str, Any]) -> str:
        if self._endpoint is not None:
            return self._endpoint
        if "messages" in body:
            return CHAT
        if "input" in body:
            return _endpoint_of_input(body)
        if "prompt" in body:
            return COMPLETIONS
        raise BadRow('neither a batch line nor a body: no "body", "messages", "input" or "prompt"')

    def _prompt(self, prompt: str, custom_id: str | None, model: Any) -> Request:
        if not isinstance(model, str):
            raise BadRow("no model: give one with --model (model=)")
        if self._endpoint in (COMPLETIONS, ENDPOINTS[5]):
            return self._whole(custom_id, self._endpoint, {"model": model, "prompt": prompt})
        if self._endpoint in (RESPONSES, EMBEDDINGS, MODERATIONS):
            return self._whole(custom_id, self._endpoint, {"model": model, "input": prompt})
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": prompt}]}
        if self._endpoint == MESSAGES:
            body["max_tokens"] = 4096  # the API asks for it; every model of Anthropic's can write so much
        return self._whole(custom_id, self._endpoint or CHAT, body)

    def _whole(self, custom_id: str | None, url: str, body: dict[str, Any]) -> Request:
        if body.get("stream"):
            raise BadRow('the body has "stream": true: a batch cannot stream')
        if body.get("model") is None and self._model is not None:
            body = {"model": self._model, **{name: value for name, value in body.items() if name != "model"}}
        if body.get("model") is None and url != MODERATIONS:
            raise BadRow("no model: give one with --model (model=)")
        if not isinstance(body.get("model", ""), str):
            raise BadRow(f"the model is {_kind(body['model'])}, not text")
        return Request(custom_id, url, body)


def _endpoint_of_input(body: dict[str, Any]) -> str:
    """Where a body with an `input` belongs, by its other fields, then the model's name, then the input's shape."""
    names, model, value = body.keys(), str(body.get("model")).lower(), body["input"]
    if names & _OF_RESPONSES:
        return RESPONSES
    if names & _OF_EMBEDDINGS or "embed" in model:
        return EMBEDDINGS
    if "moderation" in model:
        return MODERATIONS
    return EMBEDDINGS if isinstance(value, list) and value and not isinstance(value[0], dict) else RESPONSES


def _custom_id(row: dict[str, Any]) -> str | None:
    value = row.get("custom_id")
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise BadRow(f"the custom_id is {_kind(value)}, not text")


def _id(row: dict[str, Any]) -> str | None:
    """The row's own `id`, if that can name a call."""
    value = row.get("id")
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "" else None


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def shown(value: object) -> str:
    """A value as it is repeated in an error, in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
