"""Bedrock's Converse as a processor, against botocore's own Stubber: real requests, answers and errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from parts import PATIENCE

from ratelimited_llm.core.feedback import Kind
from ratelimited_llm.core.request import Cost, Usage
from ratelimited_llm.manager import QueueManager
from ratelimited_llm.processors.bedrock import BedrockConverseProcessor

boto3 = pytest.importorskip("boto3")
from botocore.config import Config  # noqa: E402
from botocore.exceptions import ClientError, ReadTimeoutError  # noqa: E402
from botocore.stub import Stubber  # noqa: E402

Make = Callable[..., QueueManager]
MODEL = "anthropic.claude-3-5-sonnet-20241022-v2:0"
PAYLOAD = {
    "modelId": MODEL,
    "messages": [{"role": "user", "content": [{"text": "Explain quantum computing"}]}],
    "inferenceConfig": {"maxTokens": 2_000, "temperature": 0.7},
}
ANSWER = {
    "output": {"message": {"role": "assistant", "content": [{"text": "It is ..."}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 12, "outputTokens": 40, "totalTokens": 52},
    "metrics": {"latencyMs": 900},
}


@pytest.fixture(scope="module")
def client() -> Any:
    """Made once: reading the service's description takes half a second."""
    return boto3.client(
        "bedrock-runtime", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip


@pytest.fixture
def stub(client: Any) -> Iterator[Any]:
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def test_a_request_is_one_converse_call(make: Make, client: Any, stub: Any) -> None:
    """Checked against the service's own description, and so is the answer."""
    stub.add_response("converse", ANSWER, PAYLOAD)
    manager = make(BedrockConverseProcessor(client), tpm=100_000)
    request_id = manager.enqueue_request("converse", PAYLOAD)
    result = manager.get_result(request_id, PATIENCE)
    assert result["output"]["message"]["content"] == [{"text": "It is ..."}]
    usage = manager.get_metrics()["token_usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (12, 40)
    assert list(manager.get_queue_status()["rate_limits"]) == [MODEL]


def test_throttling_waits_and_is_no_attempt(make: Make, client: Any, stub: Any) -> None:
    """Until the model lets it in."""
    stub.add_client_error(
        "converse", "ThrottlingException", "Too many tokens, please wait before trying again.", 429,
        response_meta={"HTTPHeaders": {"retry-after": "0.02"}},
    )  # fmt: skip
    stub.add_response("converse", ANSWER, PAYLOAD)
    manager = make(BedrockConverseProcessor(client), max_retries=0)
    request_id = manager.enqueue_request("converse", PAYLOAD)
    assert manager.get_result(request_id, PATIENCE)["stopReason"] == "end_turn"
    assert manager.get_request_status(request_id)["attempts"] == 2


def test_a_model_that_timed_out_is_tried_again(make: Make, client: Any, stub: Any) -> None:
    """As server errors are."""
    stub.add_client_error("converse", "ModelTimeoutException", "The model timed out.", 408)
    stub.add_response("converse", ANSWER, PAYLOAD)
    manager = make(BedrockConverseProcessor(client))
    assert manager.get_result(manager.enqueue_request("converse", PAYLOAD), PATIENCE)["usage"]["totalTokens"] == 52


def test_a_validation_error_is_final_and_the_very_error(make: Make, client: Any, stub: Any) -> None:
    """botocore's own class, at once."""
    stub.add_client_error("converse", "ValidationException", "The provided model identifier is invalid.", 400)
    manager = make(BedrockConverseProcessor(client))
    request_id = manager.enqueue_request("converse", PAYLOAD)
    with pytest.raises(ClientError, match="model identifier is invalid"):
        manager.get_result(request_id, PATIENCE)
    assert manager.get_request_status(request_id)["attempts"] == 1


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("ThrottlingException", 429, Kind.LIMITED),
        ("ServiceUnavailableException", 503, Kind.OVERLOADED),
        ("InternalServerException", 500, Kind.OVERLOADED),
        ("ModelNotReadyException", 429, Kind.OVERLOADED),
        ("ModelErrorException", 424, Kind.OVERLOADED),
        ("ServiceQuotaExceededException", 400, Kind.EXHAUSTED),
        ("AccessDeniedException", 403, Kind.REJECTED),
        ("ResourceNotFoundException", 404, Kind.REJECTED),
        ("SomethingNew", 502, Kind.OVERLOADED),
    ],
)
def test_errors_are_told_apart_by_their_code(client: Any, code: str, status: int, kind: Kind) -> None:
    """And by the status where the code is new."""
    error = ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Converse")  # type: ignore[arg-type,unused-ignore]
    outcome = BedrockConverseProcessor(client).classify_error(error)
    assert (outcome.kind, outcome.status, outcome.code) == (kind, status, code)


def test_broken_connections_are_dropped_calls_and_other_errors_are_final(client: Any) -> None:
    """Whatever else an exception carries."""
    processor = BedrockConverseProcessor(client)
    assert processor.classify_error(ReadTimeoutError(endpoint_url="https://x")).kind is Kind.DROPPED
    assert processor.classify_error(ValueError()).kind is Kind.REJECTED
    odd = ClientError({"Error": {}, "ResponseMetadata": {"HTTPStatusCode": "odd"}}, "Converse")  # type: ignore[arg-type,unused-ignore]
    assert processor.classify_error(odd).kind is Kind.REJECTED


@pytest.mark.parametrize(
    "payload",
    [
        {}, "text", {"modelId": MODEL}, {"modelId": 5, "messages": PAYLOAD["messages"]},
        {"modelId": MODEL, "messages": []}, {"modelId": MODEL, "messages": "hello"},
        {"modelId": MODEL, "messages": [{"role": "user", "content": "hello"}]},
        {"modelId": MODEL, "messages": [{"role": "system", "content": [{"text": "x"}]}]},
        {"modelId": MODEL, "messages": ["hello"]},
    ],
)  # fmt: skip
def test_what_converse_would_refuse_is_refused_at_the_call(make: Make, client: Any, payload: Any) -> None:
    """Before it waits in a queue."""
    with pytest.raises(ValueError, match=r"modelId|message|payload"):
        make(BedrockConverseProcessor(client)).enqueue_request("converse", payload)


def test_the_estimate_holds_what_bedrock_holds(client: Any) -> None:
    """The prompt and the whole of maxTokens, of which less is expected; an image counts, its bytes do not."""
    processor = BedrockConverseProcessor(client)
    text = {"text": "x" * 4_000}
    image = {"image": {"format": "png", "source": {"bytes": b"x" * 1_000_000}}}
    payload = {**PAYLOAD, "system": [{"text": "y" * 400}], "messages": [{"role": "user", "content": [text, image]}]}
    assert processor.estimate_tokens(payload) == Cost(4_700, 2_956, 2_700, 256)
    assert processor.estimate_tokens({**PAYLOAD, "inferenceConfig": {"maxTokens": -1}}).output_tokens == 256


def test_what_was_read_from_the_cache_does_not_count(client: Any) -> None:
    """As AWS counts it; an answer that tells nothing is none."""
    processor = BedrockConverseProcessor(client)
    told = {"inputTokens": 10, "outputTokens": 5, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 20}
    assert processor.usage({"usage": told}) == Usage(130, 5, 100)
    assert processor.usage({}) is processor.usage(None) is processor.usage({"usage": 5}) is None


def test_a_client_is_made_here_without_retries_of_its_own() -> None:
    """One authority retries."""
    made = BedrockConverseProcessor(region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")._client
    assert made.meta.config.retries["total_max_attempts"] == 1
    assert made.meta.region_name == "eu-west-1"
    with pytest.raises(TypeError, match="client="):
        BedrockConverseProcessor(made, region_name="eu-west-1")


def test_without_boto3_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what to install."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ImportError, match=r"ratelimited-llm\[bedrock\]"):
        BedrockConverseProcessor()
