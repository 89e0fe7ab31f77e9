"""What the SDKs' own suites taught about the classes of the doors: copies, subclasses, who is an instance of what."""

from __future__ import annotations

import copy

import anthropic
import openai
import pytest
from talking import Stub, ask

from ratelimited_llm import Anthropic, AzureOpenAI, Groq, OpenAI
from ratelimited_llm import openai as door_module


class Tagged(OpenAI):
    """A subclass as users write them."""

    def __init__(self, **options):
        super().__init__(**options)
        self.tag = "mine"

    @property
    def default_headers(self):
        return {**super().default_headers, "X-From": "the subclass"}


def test_a_subclass_is_copied_by_its_own_constructor(door):
    """As with the plain SDK; and the copy still shares the queue."""
    client = door(Tagged)
    twin = client.with_options(max_retries=5, priority="high")
    assert (type(twin), twin.tag, twin.max_retries) == (Tagged, "mine", 5)
    assert twin._runtime.ledger is client._runtime.ledger


def test_a_subclass_is_itself_while_it_is_constructed():
    """What it overrides counts in the SDK's constructor too."""
    seen = []

    class Watching(OpenAI):
        @property
        def custom_auth(self):
            return None

        def _enforce_trailing_slash(self, url):
            seen.append(type(self))
            return super()._enforce_trailing_slash(url)

    with Watching(api_key="sk-test", base_url="http://127.0.0.1:9/v1"):
        assert set(seen) == {Watching}


def test_a_subclass_sends_what_it_overrides(door):
    """Queued calls go through the subclass's methods."""
    stub = Stub()
    ask(door(Tagged, http_client=stub.client)).result()
    assert stub.requests[0].headers["x-from"] == "the subclass"


def test_a_copy_of_a_copy_is_of_the_doors_class(door):
    """`copy` and `with_options` never fall back to the plain client."""
    for cls, options in (
        (OpenAI, {}),
        (Groq, {}),
        (Anthropic, {}),
        (AzureOpenAI, {"azure_endpoint": "http://127.0.0.1:9", "api_version": "1"}),
    ):
        client = door(cls, **options)
        assert type(client.copy().with_options(timeout=3)) is cls
        assert type(copy.copy(client)) is cls


def test_a_copy_that_changes_nothing_has_the_same_settings(door):
    """Anthropic's own suite compares all that a client and its copy hold."""
    client = door(Anthropic)
    assert client.copy()._runtime == client._runtime
    assert client.with_options(priority="high")._runtime != client._runtime


def test_a_limit_is_refused_where_it_cannot_be_changed(door):
    """The message names the class whose limit it is."""
    with pytest.raises(TypeError, match=r"Groq\(rpm=\.\.\.\)"):
        door(Groq).with_options(rpm=3)


def test_the_module_clients_are_clients_of_the_door():
    """As the SDK's module clients are instances of the SDK's public classes."""
    assert issubclass(door_module._ModuleClient, OpenAI)
    assert issubclass(door_module._AzureModuleClient, AzureOpenAI)
    with door_module._AzureModuleClient(
        api_key="sk-test", azure_endpoint="http://127.0.0.1:9", api_version="1"
    ) as client:
        assert isinstance(client, (AzureOpenAI, openai.AzureOpenAI, openai._AzureModuleClient))
        assert client._runtime.provider == "azure"


def test_anthropic_looks_for_credentials_as_for_its_own_client(monkeypatch):
    """Its constructor and its copy compare exact classes before they do."""
    asked = []
    monkeypatch.setattr("anthropic._client.default_credentials", lambda **_: asked.append(1), raising=False)
    counts = []
    for cls in (anthropic.Anthropic, Anthropic):
        asked.clear()
        with cls() as client:
            client.copy()
        counts.append(len(asked))
    assert counts[0] == counts[1]


def test_a_fresh_key_keeps_the_limits_of_the_one_before(door):
    """A function that makes keys is one account, however often it makes a new one."""
    keys = iter(["first", "second", "third"])
    client = door(OpenAI, api_key=lambda: next(keys), http_client=Stub().client)
    accounts = []
    for _ in range(3):
        accounts.append(client._account(client._runtime))
        ask(client).result()
    assert client.api_key == "third"
    assert len(set(map(id, accounts))) == 1
