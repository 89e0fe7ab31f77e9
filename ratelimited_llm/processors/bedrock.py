"""Amazon Bedrock's Converse API as a processor: `pip install "ratelimited-llm[bedrock]"`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ..core.feedback import Kind, Outcome
from ..core.request import Cost, Usage
from . import Processor, judged

__all__ = ["BedrockConverseProcessor"]

LIMITED = frozenset({"ThrottlingException", "TooManyRequestsException", "Throttling"})
TROUBLE = frozenset({
    "InternalServerException", "ModelErrorException", "ModelNotReadyException", "ModelTimeoutException",
    "ServiceUnavailableException",
})  # fmt: skip
DROPPED = frozenset({
    "ConnectTimeoutError", "ConnectionClosedError", "EndpointConnectionError", "HTTPClientError", "ReadTimeoutError",
})  # fmt: skip
BYTES_PER_TOKEN = 4
IMAGE_TOKENS = 1_600  # what Anthropic's models count for the largest image that is not scaled down
DEFAULT_OUTPUT = 256  # tokens, when the request names no maximum: a few paragraphs


class BedrockConverseProcessor(Processor):
    """Sends each payload as one `converse` call: `{"modelId": ..., "messages": [...], "inferenceConfig": {...}}`.

    Its result is what boto3 returns. Limits count per model, as Bedrock's do; those that were not configured are
    measured from its refusals. It never tries again by itself: that is the manager's.

    Args:
        client: a boto3 client of "bedrock-runtime"; make it with `retries={"total_max_attempts": 1}`, or boto3 retries
            beside us. None to make one so.
        region_name: of a client that is made here; None for the environment's.
        timeout: seconds that a read may take, of a client that is made here. boto3 takes no timeout with a call, so a
            manager's `timeout=` does not reach it.
        **client_options: further arguments of `boto3.client`.

    Raises:
        ImportError: boto3 is not installed.
    """

    provider = "aws.bedrock"
    required_fields = ("modelId", "messages")
    learn_limits = True

    def __init__(
        self,
        client: Any = None,
        *,
        region_name: str | None = None,
        timeout: float = 600.0,
        **client_options: Any,
    ) -> None:
        if client is None:
            client = _new_client(region_name, timeout, client_options)
        elif region_name is not None or client_options:
            raise TypeError("region_name= and other options are for a client that is made here: give them or client=")
        self._client = client

    def validate(self, payload: Any) -> None:
        """Refuse what has no modelId and no messages, and messages that are no list of roles and content blocks.

        Raises:
            ValueError: saying which.
        """
        super().validate(payload)
        if not isinstance(payload["modelId"], str):
            raise ValueError(f"modelId must be a string, not {payload['modelId']!r}")
        messages = payload["messages"]
        if not isinstance(messages, (list, tuple)) or not messages:
            raise ValueError("messages must be a list with one message at least")
        for number, message in enumerate(messages):
            content = message.get("content") if isinstance(message, Mapping) else None
            if not isinstance(content, (list, tuple)) or message.get("role") not in ("user", "assistant"):
                raise ValueError(
                    f'message {number} must be {{"role": "user" or "assistant", "content": [blocks]}}, '
                    'where a block of text is {"text": "..."}'
                )

    def estimate_tokens(self, payload: Any) -> Cost:
        """The prompt by its text, and the answer by `inferenceConfig.maxTokens`, which Bedrock holds at admission."""
        prompt = _tokens_in((payload.get("system"), payload["messages"], payload.get("toolConfig")))
        config = payload.get("inferenceConfig")
        most = config.get("maxTokens") if isinstance(config, Mapping) else None
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            most = None
        expected = min(DEFAULT_OUTPUT, most or DEFAULT_OUTPUT)
        return Cost(prompt + (most or expected), prompt + expected, prompt, expected)

    def limit_group(self, payload: Any) -> str:
        """The model: Bedrock limits each by itself."""
        return str(payload["modelId"])

    def process(self, payload: Any, *, timeout: float | None = None) -> Any:
        """Call `converse`; `timeout` has no meaning here (see the class)."""
        return self._client.converse(**payload)

    def classify_error(self, error: Exception) -> Outcome:
        """By the error's code; a ThrottlingException waits for the limit, and a ValidationException is final."""
        if any(base.__name__ in DROPPED for base in type(error).__mro__):
            return Outcome(Kind.DROPPED)
        response = getattr(error, "response", None)
        if not isinstance(response, Mapping):
            return judged(error)
        code = _text(response, "Error", "Code")
        metadata = response.get("ResponseMetadata")
        status = metadata.get("HTTPStatusCode") if isinstance(metadata, Mapping) else None
        status = status if isinstance(status, int) else None
        if code in LIMITED:
            return Outcome(Kind.LIMITED, _retry_after(metadata), status=status or 429, code=code)
        if code == "ServiceQuotaExceededException":
            return Outcome(Kind.EXHAUSTED, status=status, code=code)
        trouble = code in TROUBLE or (status is not None and status >= 500)
        return Outcome(Kind.OVERLOADED if trouble else Kind.REJECTED, status=status, code=code)

    def usage(self, result: Any) -> Usage | None:
        """`usage` as Converse tells it; what was read from the prompt cache does not count towards the limits."""
        told = result.get("usage") if isinstance(result, Mapping) else None
        if not isinstance(told, Mapping):
            return None
        cached = _count(told, "cacheReadInputTokens")
        prompt = _count(told, "inputTokens") + _count(told, "cacheWriteInputTokens") + cached
        return Usage(prompt, _count(told, "outputTokens"), cached)


def _new_client(region_name: str | None, timeout: float, options: dict[str, Any]) -> Any:
    try:
        boto3, config_module = import_module("boto3"), import_module("botocore.config")
    except ImportError as error:
        raise ImportError('Bedrock needs boto3: pip install "ratelimited-llm[bedrock]"') from error
    config = config_module.Config(
        retries={"total_max_attempts": 1},
        read_timeout=timeout,
        max_pool_connections=256,  # boto3's own ten would be the brake; more in flight from one process are rare
    )
    given = options.pop("config", None)
    if given is not None:
        config = config.merge(given)
    return boto3.client("bedrock-runtime", region_name=region_name, config=config, **options)


def _tokens_in(value: Any) -> int:
    """Tokens of all text, images and documents in content blocks."""
    size, stack = 0, [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            size += len(item.encode("utf-8", "surrogatepass"))
        elif isinstance(item, (bytes, bytearray)):
            size += IMAGE_TOKENS * BYTES_PER_TOKEN
        elif isinstance(item, Mapping):
            stack.extend(each for name, each in item.items() if name not in ("role", "format"))
        elif isinstance(item, (list, tuple)):
            stack.extend(item)
    return -(-size // BYTES_PER_TOKEN)


def _text(holder: Any, *names: str) -> str | None:
    for name in names:
        holder = holder.get(name) if isinstance(holder, Mapping) else None
    return holder if isinstance(holder, str) else None


def _count(told: Mapping[str, Any], name: str) -> int:
    value = told.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _retry_after(metadata: Any) -> float | None:
    headers = metadata.get("HTTPHeaders") if isinstance(metadata, Mapping) else None
    if not isinstance(headers, Mapping):
        return None
    from ..providers import parsing

    return parsing.retry_after(headers)
