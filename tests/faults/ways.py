"""The ways to ask: every door of the package, with futures, in the own thread, in a task, as a stream, in a journal.

A way is a function of a tag; it submits the question and answers what to call for the text that came. So a thread can
have several open at once, and what goes wrong at either moment is the call's own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import CancelledError, Future
from contextlib import asynccontextmanager
from typing import Any

from answers import (
    GivenUp,
    piece_of,
    piece_of_message,
    text_of,
    text_of_json,
    text_of_message,
)

__all__ = ["PATIENCE", "Clients", "question"]

PATIENCE = 40.0  # seconds after which a call counts as one that never ends
RPM = 60_000

Text = Callable[[], str]


def question(tag: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": tag}]}


class Clients:
    """One client of each kind at one provider.

    Args:
        url: of the provider.
        timeout: seconds of patience with one attempt; may be changed.
        width: calls that each may have in flight.
        journal: path of the journal that some of them keep.
        budget: path of the file in which the executor's limits are shared.
        partly: told of the pieces of each stream, whether it ended or broke.
    """

    def __init__(
        self, url: str, *, timeout: float, width: int, journal: str, budget: str,
        partly: Callable[[str, list[str]], None],
    ) -> None:  # fmt: skip
        from ratelimited_llm import Anthropic, Groq, OpenAI, RateLimitedExecutor, requests
        from ratelimited_llm.manager import QueueManager

        self.url, self.timeout, self.width, self.partly = url, timeout, width, partly
        limits: dict[str, Any] = {"rpm": RPM, "max_concurrency": width}
        self.options: dict[str, Any] = {"api_key": "sk-test", "timeout": timeout, "progress": False, **limits}
        self.journal = journal
        root = url.removesuffix("/v1")
        self.openai = OpenAI(base_url=url, **self.options)
        # Another key, or its limits would be those of the other.
        self.journalled = OpenAI(base_url=url, **{**self.options, "api_key": "sk-journalled"}, journal=journal)
        self.groq = Groq(base_url=root, **self.options)
        self.anthropic = Anthropic(base_url=root, **self.options)
        self.session = requests.Session(progress=False, **limits)
        self.executor = RateLimitedExecutor(retry_on=OSError, budget=f"sqlite:///{budget}", **limits)
        self.manager = QueueManager(client=self.openai, keep_results=None)  # an hour is over soon where clocks jump
        # What an SDK imports at its first use it does under a lock, which a fork just then would leave locked for good.
        for client in (self.openai, self.journalled, self.groq):
            _ = client.chat.completions
        _ = self.anthropic.messages
        self.doors: dict[str, Callable[[str], Text]] = {
            "future": self.future, "journalled": self.in_journal, "anthropic": self.messages, "requests": self.post,
            "executor": self.function, "manager": self.managed,
        }  # fmt: skip
        self.keeping = (self.in_journal, self.journalled_blocking, self.journalled_stream)
        self.ways: list[Callable[[str], Text]] = [
            *self.doors.values(), self.future, self.blocking, self.stream, self.raw, self.journalled_blocking,
            self.journalled_stream, self.through_groq, self.groq_stream, self.message_stream, self.cancelled,
            self.unread,
        ]  # fmt: skip

    @property
    def all(self) -> tuple[Any, ...]:
        """Those that have to be closed; the manager first, as it goes through another."""
        return (self.manager, self.executor, self.openai, self.journalled, self.groq, self.anthropic, self.session)

    def question(self, tag: str) -> dict[str, Any]:
        return {**question(tag), "timeout": self.timeout}

    def close(self) -> None:
        self.manager.stop()
        self.executor.shutdown()
        for client in self.all[2:]:
            client.close()

    # -- futures ------------------------------------------------------------------------------------------------------

    def future(self, tag: str) -> Text:
        future = self.openai.chat.completions.create(**self.question(tag))
        return lambda: text_of(future.result(timeout=PATIENCE))

    def in_journal(self, tag: str) -> Text:
        future = self.journalled.chat.completions.create(**self.question(tag))
        return lambda: text_of(future.result(timeout=PATIENCE))

    def raw(self, tag: str) -> Text:
        future = self.openai.chat.completions.with_raw_response.create(**self.question(tag))
        return lambda: text_of(future.result(timeout=PATIENCE).parse())

    def through_groq(self, tag: str) -> Text:
        future = self.groq.chat.completions.create(**self.question(tag))
        return lambda: text_of(future.result(timeout=PATIENCE))

    def messages(self, tag: str) -> Text:
        future = self.anthropic.messages.create(**self.question(tag), max_tokens=10)
        return lambda: text_of_message(future.result(timeout=PATIENCE))

    def cancelled(self, tag: str) -> Text:
        """Its caller changes their mind at once; a call that was sent already is answered all the same."""
        future = self.openai.chat.completions.create(**self.question(tag))
        future.cancel()

        def text() -> str:
            try:
                return text_of(future.result(timeout=PATIENCE))
            except CancelledError as error:
                raise GivenUp("cancelled") from error

        return text

    # -- in the own thread --------------------------------------------------------------------------------------------

    def blocking(self, tag: str) -> Text:
        answer = self.openai.with_options(mode="blocking").chat.completions.create(**self.question(tag))
        return lambda: text_of(answer)

    def journalled_blocking(self, tag: str) -> Text:
        answer = self.journalled.with_options(mode="blocking").chat.completions.create(**self.question(tag))
        return lambda: text_of(answer)

    # -- streams ------------------------------------------------------------------------------------------------------

    def read(self, tag: str, future: Any, piece: Callable[[Any], str]) -> Text:
        def text() -> str:
            pieces: list[str] = []
            stream: Iterable[Any] = future.result(timeout=PATIENCE)
            try:
                for each in stream:
                    pieces.append(piece(each))
            finally:
                self.partly(tag, pieces)
            return "".join(pieces)

        return text

    def stream(self, tag: str) -> Text:
        return self.read(tag, self.openai.chat.completions.create(**self.question(tag), stream=True), piece_of)

    def journalled_stream(self, tag: str) -> Text:
        return self.read(tag, self.journalled.chat.completions.create(**self.question(tag), stream=True), piece_of)

    def groq_stream(self, tag: str) -> Text:
        return self.read(tag, self.groq.chat.completions.create(**self.question(tag), stream=True), piece_of)

    def message_stream(self, tag: str) -> Text:
        future = self.anthropic.messages.create(**self.question(tag), max_tokens=10, stream=True)
        return self.read(tag, future, piece_of_message)

    def unread(self, tag: str) -> Text:
        """A stream of which only the first piece is read: the collector finds it, and its place has to come back."""
        future = self.groq.chat.completions.create(**self.question(tag), stream=True)

        def text() -> str:
            for each in future.result(timeout=PATIENCE):
                self.partly(tag, [piece_of(each)])
                break
            raise GivenUp("unread")

        return text

    # -- what is no SDK -----------------------------------------------------------------------------------------------

    def post(self, tag: str) -> Text:
        future = self.session.post(self.url + "/chat/completions", json=question(tag), timeout=self.timeout)

        def text() -> str:
            response = future.result(timeout=PATIENCE)
            response.raise_for_status()
            return text_of_json(response.json())

        return text

    def function(self, tag: str) -> Text:
        future: Future[str] = self.executor.submit(self.asks_plainly, tag)
        return lambda: future.result(timeout=PATIENCE)

    def asks_plainly(self, tag: str) -> str:
        """What a user's own function does: a connection for one question, and nothing of ours on its way."""
        import requests  # its exceptions are OSErrors, which the executor takes for worth another try

        with requests.post(self.url + "/chat/completions", json=question(tag), timeout=self.timeout) as response:
            response.raise_for_status()
            return text_of_json(response.json())

    def managed(self, tag: str) -> Text:
        name = self.manager.enqueue_request("chat.completions", question(tag), timeout=self.timeout)
        return lambda: text_of(self.manager.get_result(name, PATIENCE))

    # -- tasks --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def tasks(self, journalled: bool) -> AsyncIterator[Callable[[str, bool], Any]]:
        """A client of this event loop; gives the way to ask through it: a tag, and whether it is to be a stream."""
        from ratelimited_llm import AsyncOpenAI

        own = {"journal": self.journal, "api_key": "sk-journalled"} if journalled else {}
        async with AsyncOpenAI(base_url=self.url, **{**self.options, **own}) as client:

            async def ask(tag: str, stream: bool) -> str:
                if not stream:
                    return text_of(await client.chat.completions.create(**self.question(tag)))
                pieces: list[str] = []
                opened = await client.chat.completions.create(**self.question(tag), stream=True)
                try:
                    async for each in opened:
                        pieces.append(piece_of(each))
                finally:
                    self.partly(tag, pieces)
                return "".join(pieces)

            yield ask
