"""The simulator on loopback, asked by the real SDKs: every endpoint, plain and streamed, in their own types."""

from __future__ import annotations

import json

import anthropic
import groq
import openai
import pydantic
import pytest

from ratelimited_llm.simulator import Simulator, count_tokens

HELLO = [{"role": "user", "content": "hello there"}]
SEARCH = {
    "name": "search",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}, "top": {"type": "integer"}}},
}


class Review(pydantic.BaseModel):
    label: str
    score: int
    reasons: list[str]


@pytest.fixture
def simulator():
    """An OpenAI without limits."""
    with Simulator("openai", seed=1) as running:
        yield running


@pytest.fixture
def client(simulator):
    """The openai SDK, which does not retry by itself."""
    with openai.OpenAI(base_url=simulator.base_url, api_key="any", max_retries=0) as client:
        yield client


def test_chat_counts_its_tokens_with_one_counter(client):
    """Usage is what the prompt and the text really count."""
    answer = client.chat.completions.create(model="m", messages=HELLO)
    text = answer.choices[0].message.content
    assert answer.usage.prompt_tokens == count_tokens("hello there") == 3
    assert answer.usage.completion_tokens == count_tokens(text)
    assert answer.choices[0].finish_reason == "stop"


def test_the_same_call_gets_the_same_answer(client):
    """Answers are drawn from the seed and the body; another body gets another."""
    first, second = (client.chat.completions.create(model="m", messages=HELLO) for _ in range(2))
    other = client.chat.completions.create(model="m", messages=HELLO, temperature=0.5)
    assert first.choices[0].message.content == second.choices[0].message.content
    assert first.choices[0].message.content != other.choices[0].message.content
    assert first.id != second.id


def test_max_tokens_cuts_and_says_so(client):
    """The answer has at most as many tokens as allowed, and the finish reason is length."""
    answer = client.chat.completions.create(model="m", messages=HELLO, max_completion_tokens=5, n=2)
    assert [choice.finish_reason for choice in answer.choices] == ["length", "length"]
    assert answer.usage.completion_tokens == 10


def test_streamed_chat_is_the_plain_answer_in_pieces(client):
    """Joined chunks are the text of the plain call; the usage comes last, when asked for."""
    plain = client.chat.completions.create(model="m", messages=HELLO, max_tokens=30)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model="m", messages=HELLO, max_tokens=30, **options))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert count_tokens(text) == chunks[-1].usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == plain.usage.prompt_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_structured_outputs_fit_their_schema(client):
    """parse() of chat and of responses returns the model it was given."""
    answer = client.chat.completions.parse(model="m", messages=HELLO, response_format=Review)
    assert isinstance(answer.choices[0].message.parsed, Review)
    assert isinstance(client.responses.parse(model="m", input="hi", text_format=Review).output_parsed, Review)


def test_json_mode_answers_an_object(client):
    """response_format json_object without a schema is some JSON object."""
    answer = client.chat.completions.create(model="m", messages=HELLO, response_format={"type": "json_object"})
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_a_forced_tool_is_called(client):
    """tool_choice decides; the arguments fit the tool's schema, streamed ones too."""
    tools = [{"type": "function", "function": SEARCH}]
    call = {"model": "m", "messages": HELLO, "tools": tools, "tool_choice": "required"}
    choice = client.chat.completions.create(**call).choices[0]
    assert choice.finish_reason == "tool_calls"
    arguments = json.loads(choice.message.tool_calls[0].function.arguments)
    assert set(arguments) == {"query", "top"}
    deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(**call, stream=True)]
    pieces = [delta.tool_calls[0].function.arguments for delta in deltas if delta.tool_calls]
    assert set(json.loads("".join(pieces))) == {"query", "top"}


def test_responses_plain_and_streamed(client):
    """output_text, usage and the snapshot of the stream helper are all there."""
    answer = client.responses.create(model="m", input="hello there", max_output_tokens=8)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.usage.output_tokens == count_tokens(answer.output_text) == 8
    with client.responses.stream(model="m", input="hello there") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == text
    kinds = [event.type for event in client.responses.create(model="m", input="hi", stream=True)]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")


def test_responses_call_a_forced_tool(client):
    """The Responses spelling of a tool works, plain and streamed."""
    call = {"model": "m", "input": "hi", "tools": [{"type": "function", **SEARCH}], "tool_choice": "required"}
    item = client.responses.create(**call).output[0]
    assert (item.type, item.name) == ("function_call", "search")
    done = [e for e in client.responses.create(**call, stream=True) if e.type.endswith("arguments.done")]
    assert set(json.loads(done[0].arguments)) == {"query", "top"}


def test_completions_answer_every_prompt(client):
    """Two prompts and n=2 are four choices; streaming works too."""
    answer = client.completions.create(model="m", prompt=["a", "b"], n=2)
    assert len(answer.choices) == 4
    chunks = list(client.completions.create(model="m", prompt="a", stream=True))
    assert chunks[-1].choices[0].finish_reason == "length"


def test_embeddings_are_deterministic_in_both_encodings(client):
    """Base64, which the SDK asks for by itself, and floats are the same vector; dimensions are honoured."""
    packed = client.embeddings.create(model="m", input=["a", "b"])
    plain = client.embeddings.create(model="m", input="a", encoding_format="float", dimensions=8)
    short = client.embeddings.create(model="m", input="a", dimensions=8)
    assert len(packed.data) == 2
    assert len(packed.data[0].embedding) == 1536
    assert packed.data[0].embedding != packed.data[1].embedding
    assert plain.data[0].embedding == pytest.approx(short.data[0].embedding)


def test_moderations_and_models(client, simulator):
    """Moderations flag nothing; models are those that were asked for; neither is generated text."""
    assert [r.flagged for r in client.moderations.create(model="m", input=["a", "b"]).results] == [False, False]
    assert [model.id for model in client.models.list()] == ["m"]
    assert client.models.retrieve("gpt-x").id == "gpt-x"
    assert simulator.counters.output_tokens == 0


def test_groq_is_answered_under_its_own_path():
    """The groq SDK reaches chat through the bare host, and reads Groq's headers."""
    with (
        Simulator("groq", rpd=1000, tpm=6000, answer="echo") as simulator,
        groq.Groq(base_url=simulator.base_url, api_key="any", max_retries=0) as client,
    ):
        raw = client.chat.completions.with_raw_response.create(model="m", messages=HELLO, max_tokens=100)
        assert raw.headers["x-ratelimit-limit-requests"] == "1000"
        assert raw.headers["x-ratelimit-remaining-tokens"] == "5897"
        assert raw.parse().choices[0].message.content == "hello there"
        chunks = list(client.chat.completions.create(model="m", messages=HELLO, stream=True))
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == "hello there"
        assert simulator.log[0].path == "/openai/v1/chat/completions"


def test_azure_deployments_name_the_model():
    """The Azure client's path and key are understood, deployment included."""
    with (
        Simulator("azure", rpm=600, tpm=60_000, api_key="secret") as simulator,
        openai.AzureOpenAI(
            azure_endpoint=simulator.base_url, api_key="secret", api_version="2024-10-21", max_retries=0
        ) as client,
    ):
        raw = client.chat.completions.with_raw_response.create(model="dep", messages=HELLO)
        assert raw.headers["x-ratelimit-limit-tokens"] == "60000"
        assert simulator.log[0].model == "dep"
        assert simulator.log[0].path.startswith("/openai/deployments/dep/chat/completions?api-version=")


@pytest.fixture
def claude():
    """The anthropic SDK on a simulator with Anthropic's two meters."""
    with (
        Simulator("anthropic", rpm=50, itpm=80_000, otpm=16_000) as simulator,
        anthropic.Anthropic(base_url=simulator.base_url, api_key="any", max_retries=0) as client,
    ):
        yield client


def test_messages_plain_and_streamed(claude):
    """Content, stop reason and usage are Anthropic's; the stream helper ends with the same."""
    raw = claude.messages.with_raw_response.create(model="claude", max_tokens=7, messages=HELLO, system="be brief")
    message = raw.parse()
    assert raw.headers["anthropic-ratelimit-output-tokens-limit"] == "16000"
    assert (message.stop_reason, message.usage.output_tokens, message.usage.input_tokens) == ("max_tokens", 7, 5)
    with claude.messages.stream(model="claude", max_tokens=500, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.content[0].text == text
    assert final.usage.output_tokens == count_tokens(text)


def test_messages_call_a_forced_tool(claude):
    """A tool use block carries arguments that fit, streamed ones too; tokens can be counted for free."""
    tool = {"name": "search", "input_schema": SEARCH["parameters"]}
    call = {"model": "claude", "max_tokens": 500, "messages": HELLO, "tools": [tool]}
    block = claude.messages.create(**call, tool_choice={"type": "tool", "name": "search"}).content[0]
    assert (block.type, set(block.input)) == ("tool_use", {"query", "top"})
    with claude.messages.stream(**call, tool_choice={"type": "any"}) as stream:
        assert set(stream.get_final_message().content[0].input) == {"query", "top"}
    assert claude.messages.count_tokens(model="claude", messages=HELLO).input_tokens == 3


def test_echo_reaches_the_right_caller(simulator):
    """In echo mode each call is answered with its own last user message."""
    with (
        Simulator(answer="echo") as simulator,
        openai.OpenAI(base_url=simulator.base_url, api_key="any") as client,
    ):
        for text in ("first", "sécond ✓"):
            messages = [*HELLO, {"role": "assistant", "content": "x"}, {"role": "user", "content": text}]
            assert client.chat.completions.create(model="m", messages=messages).choices[0].message.content == text
        assert client.responses.create(model="m", input="third").output_text == "third"
        assert [record.tag for record in simulator.log] == ["first", "sécond ✓", "third"]
