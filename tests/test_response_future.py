"""ResponseFuture is its response, and shows itself without ever waiting."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import threading
import traceback
from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import CancelledError, Future
from typing import Annotated, Any

import pytest
from openai import Stream
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, TypeAdapter

from ratelimited_llm.future import ResponseFuture, as_future


def completion(text: str | None = "Positive", tokens: int = 214) -> ChatCompletion:
    return ChatCompletion.model_validate(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4.1-mini",
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}},
            ],
            "usage": {"prompt_tokens": 200, "completion_tokens": tokens - 200, "total_tokens": tokens},
        }
    )


def pending(declared: Any = ChatCompletion, owner: Any = None) -> Any:
    return ResponseFuture.of(declared)("call", owner)


def answered(response: Any, declared: Any = None) -> Any:
    future = pending(declared or type(response))
    future.set_result(response)
    return future


class Waited(Exception):
    """Raised instead of blocking, so that a test of what must not wait cannot hang."""


class Impatient:
    """An owner that will not have its future waited for."""

    def __init__(self, status: str = "queued 812/1990 ~1m38s") -> None:
        self.status = status

    def cancelled(self, future: Any) -> None: ...

    def waiting(self, future: Any) -> None:
        raise Waited

    def describe(self, future: Any) -> str:
        return self.status


# -- the response's names


def test_public_attributes_are_the_response_s() -> None:
    """Reading, setting and deleting reach the response itself, and `_request_id` does too."""
    response = completion()
    future = answered(response)
    assert future.choices[0].message.content == "Positive"
    assert future.model_dump() == response.model_dump()
    future.model = "other"
    future._request_id = "req_1"
    assert (response.model, response._request_id, future._request_id) == ("other", "req_1", "req_1")
    del future.usage
    assert not hasattr(response, "usage")


def test_an_attribute_waits_for_the_answer_of_another_thread() -> None:
    """The reader gets the value as soon as there is one."""
    future, seen = pending(), []
    reader = threading.Thread(target=lambda: seen.append(future.id))
    reader.start()
    future.set_result(completion())
    reader.join()
    assert seen == ["chatcmpl-1"]


@pytest.mark.parametrize(
    "use",
    [
        lambda f: f.choices,
        lambda f: setattr(f, "model", "x"),
        lambda f: delattr(f, "model"),
        lambda f: f._request_id,
        lambda f: f.__dict__,
        lambda f: list(f),
        lambda f: f == completion(),
        lambda f: copy.deepcopy(f),
        lambda f: pickle.dumps(f),
    ],
)
def test_using_a_pending_response_waits(use: Any) -> None:
    """Each of these asks for the answer."""
    with pytest.raises(Waited):
        use(pending(owner=Impatient()))


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        format,
        "{!r:>60}".format,
        dir,
        hash,
        bool,
        type,
        inspect.isawaitable,
        lambda f: [f, f],
        lambda f: f == pending(),
        lambda f: f in [None, Future(), f],
        lambda f: isinstance(f, (ChatCompletion, BaseModel, Future, Iterator)),
        lambda f: f.__class__,
        lambda f: [getattr(f, name, None) for name in ASKED_BY_DISPLAYS],
    ],
)
def test_showing_a_pending_future_never_waits(show: Any) -> None:
    """What notebooks, debuggers, pandas, numpy and rich ask of a strange object is answered at once."""
    show(pending(owner=Impatient()))


ASKED_BY_DISPLAYS = [
    "_ipython_canary_method_should_not_exist_",
    "_repr_html_",
    "_repr_mimebundle_",
    "_repr_json_",
    "_repr_png_",
    "_typ",
    "__array__",
    "__array_interface__",
    "__array_struct__",
    "__rich__",
    "__rich_repr__",
    "_fields",
    "__wrapped__",
    "__setstate__",
    "__len__",
    "__await__",
    "_asyncio_future_blocking",
    "awehoi234_wdfjwljet234_234wdfoijsdfmmnxpi492",
]


@pytest.mark.parametrize("name", ASKED_BY_DISPLAYS)
def test_private_names_are_refused_at_once(name: str) -> None:
    """Even when the answer is there, so that a future looks the same before and after."""
    for future in (pending(owner=Impatient()), answered(completion())):
        with pytest.raises(AttributeError):
            getattr(future, name)


def test_a_future_has_no_public_names_but_those_of_future_and_ratelimit() -> None:
    """Each further one would hide a field of some response; no SDK's response has a `ratelimit`."""
    declared = type("Anything", (), {})
    ours = {name for name in dir(pending(declared)) if not name.startswith("_")}
    assert ours == {name for name in dir(Future) if not name.startswith("_")} | {"ratelimit"}
    response = declared()
    response.of = "the response's"
    assert answered(response).of == "the response's"


def test_dir_lists_the_fields_of_the_declared_type() -> None:
    """So Tab shows them before there is an answer."""
    names = dir(pending(owner=Impatient()))
    assert {"choices", "usage", "model_dump", "result", "add_done_callback"} <= set(names)


# -- the response's type


def test_a_future_is_an_instance_of_both() -> None:
    """Of its declared type at once, and of Future."""
    future = pending(owner=Impatient())
    assert isinstance(future, ChatCompletion)
    assert isinstance(future, Future)
    assert future.__class__ is ChatCompletion
    assert issubclass(type(future), ResponseFuture)


def test_the_class_for_a_type_is_made_once() -> None:
    """Also for a generic alias, and for what `Annotated` wraps."""
    assert ResponseFuture.of(ChatCompletion) is ResponseFuture.of(Annotated[ChatCompletion, "x"])
    assert ResponseFuture.of(ChatCompletion) is ResponseFuture.of(Annotated[ChatCompletion, {}])
    assert ResponseFuture.of(Stream[ChatCompletionChunk]) is ResponseFuture.of(Stream)
    assert ResponseFuture.of(int | str) is ResponseFuture.of(None) is ResponseFuture.of(Any) is ResponseFuture


class Numbers:
    """A response with most of the special methods."""

    def __init__(self) -> None:
        self.items = [1, 2]
        self.log: list[Any] = []

    def __iter__(self) -> Iterator[int]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> int:
        return self.items[index]

    def __setitem__(self, index: int, value: int) -> None:
        self.items[index] = value

    def __delitem__(self, index: int) -> None:
        del self.items[index]

    def __contains__(self, item: object) -> bool:
        return item in self.items

    def __bool__(self) -> bool:
        return False

    def __enter__(self) -> str:
        return "entered"

    def __exit__(self, *error: object) -> bool:
        self.log.append(error[0])
        return True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs


def test_special_methods_are_those_of_the_declared_type() -> None:
    """Each works through the future as on the response."""
    future = answered(Numbers())
    assert (list(future), len(future), future[1], 2 in future, bool(future)) == ([1, 2], 2, 2, True, False)
    future[0] = 9
    del future[1]
    assert future.items == [9]
    with future as entered:
        raise ValueError
    assert (entered, future.log) == ("entered", [ValueError])
    assert future(1, two=2) == ((1,), {"two": 2})


def test_a_future_has_no_special_method_that_its_type_has_not() -> None:
    """A completion has no length, no items and no `with`; a stream has iteration and `with`, but no length."""
    chat, stream = pending(owner=Impatient()), pending(Stream[ChatCompletionChunk], Impatient())
    for use in (len, next, lambda f: f[0], lambda f: f()):
        with pytest.raises(TypeError):
            use(chat)
    with pytest.raises(TypeError):
        len(stream)
    assert (isinstance(chat, Iterable), isinstance(chat, Iterator), isinstance(chat, Sized)) == (True, False, False)
    assert isinstance(stream, Iterator)
    assert not isinstance(stream, Sized)
    assert bool(chat)


def test_an_iterator_is_had_without_waiting_and_its_first_item_waits() -> None:
    """pandas 2 tries iter() and len() on each cell of a table that it shows."""
    for declared in (ChatCompletion, Stream[ChatCompletionChunk]):
        items = iter(pending(declared, Impatient()))
        with pytest.raises(Waited):
            next(items)


@pytest.mark.parametrize("use", [list, len, next, bool, lambda f: f[0], lambda f: f(), lambda f: f.__enter__()])
def test_an_answer_of_another_type_than_declared_raises_type_errors(use: Any) -> None:
    """Never an AttributeError, which hasattr() and list() would swallow."""
    future = answered(object(), Numbers)
    if use is bool:
        assert use(future) is True
        return
    with pytest.raises(TypeError):
        use(future)


# -- values


def test_futures_are_equal_by_identity_and_to_what_their_response_equals() -> None:
    """So sets, dicts, `in` and remove() work, while `==` with a plain object compares the answer."""
    one, other = answered(completion()), answered(completion())
    assert one != other
    assert len({one, other, one}) == 2
    several = [one, other]
    several.remove(other)
    assert several == [one]
    assert one == completion()
    assert completion() == one
    assert one != completion("Negative")


def test_pickle_and_copy_make_the_plain_response() -> None:
    """What a process pool gets, and what copy gives, is the SDK's object."""
    future = answered(completion())
    for copied in (
        pickle.loads(pickle.dumps(future)),
        pickle.loads(pickle.dumps([future, future]))[1],
        copy.copy(future),
        copy.deepcopy({"a": future})["a"],
        future.model_copy(),
    ):
        assert type(copied) is ChatCompletion
        assert copied == completion()
    assert b"ratelimited" not in pickle.dumps(future)


class Row(BaseModel):
    answer: ChatCompletion
    anything: Any


def test_pydantic_and_json_take_a_future_for_its_response() -> None:
    """As a field, in a TypeAdapter, strictly, and through json's `default`."""
    future, plain = answered(completion()), completion().model_dump()
    row = Row(answer=future, anything=future)
    assert row.model_dump() == {"answer": plain, "anything": plain}
    assert json.loads(row.model_dump_json())["anything"] == json.loads(completion().model_dump_json())
    adapter = TypeAdapter(ChatCompletion)
    assert adapter.validate_python(future, strict=True) is future
    assert adapter.dump_json(future) == adapter.dump_json(completion())
    assert adapter.dump_python(future) == plain
    assert json.loads(json.dumps([future], default=lambda thing: thing.model_dump())) == [plain]


# -- being shown


@pytest.mark.parametrize(
    ("future", "shown"),
    [
        (lambda: pending(), "queued"),
        (lambda: pending(owner=Impatient()), "queued 812/1990 ~1m38s"),
        (lambda: pending(owner=Impatient("running 0.8s try 2")), "running 0.8s try 2"),
        (lambda: pending(owner=Impatient("q" * 99)), "q" * 30 + "..."),
        (lambda: pending(owner=Impatient("5 \u20ac\nor so")), "5 \\u20ac or so"),
        (lambda: pending(owner=object()), "queued"),
        (lambda: answered(completion()), "done 'Positive' 214 tok"),
        (lambda: answered(completion("It is a\nlong answer " * 9)), "done 'It is a long an...' 214 tok"),
        (lambda: answered(completion("\u4f60\u597d" * 9)), "done '\\u4f60\\u597d...' 214 tok"),
        (lambda: answered(completion("\x1b[31m red", 10**40)), "done '\\x1b[31m red'"),
        (lambda: answered(completion(None)), "done ChatCompletion 214 tok"),
        (lambda: answered({"output": [{"content": [{"text": "Yes"}]}]}), "done 'Yes'"),
        (
            lambda: answered(
                {"content": [{"type": "text", "text": "Yes"}], "usage": {"input_tokens": 3, "output_tokens": 1}}
            ),
            "done 'Yes' 4 tok",
        ),
        (lambda: answered(CreateEmbeddingResponse.model_construct(usage=7)), "done CreateEmbeddingResponse"),
    ],
)
def test_repr_is_a_true_status_of_at_most_fifty_ascii_characters(future: Any, shown: str) -> None:
    """Place and time while it is queued, the first words and the tokens when it is done."""
    text = repr(future())
    assert text == f"<ResponseFuture {shown}>"
    assert len(text) <= 50
    assert text.isascii()


def test_repr_of_the_other_ends() -> None:
    """Running without an owner, cancelled, and failed with the error's type but not its text."""
    running, cancelled, failed = pending(), pending(), pending()
    running.set_running_or_notify_cancel()
    cancelled.cancel()
    failed.set_exception(ValueError("sk-secret"))
    failed.exception()
    assert [repr(future)[16:-1] for future in (running, cancelled, failed)] == [
        "running",
        "cancelled",
        "failed ValueError",
    ]


def test_repr_of_a_broken_response_does_not_raise() -> None:
    """Nor does it touch any property of it, which could read a socket."""

    class Broken:
        choices = property(lambda self: 1 / 0)
        content = property(lambda self: 1 / 0)

        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(name)

    assert repr(answered(Broken(), Numbers)) == "<ResponseFuture done>"


def test_str_is_the_response_s_when_there_is_one() -> None:
    """Before that, and after a failure, it is the status; it never waits and never raises."""
    future = pending(owner=Impatient())
    assert str(future) == f"{future}" == repr(future)
    future.set_result(completion())
    assert str(future) == f"{future}" == str(completion())
    failed = pending()
    failed.set_exception(ValueError())
    assert str(failed) == "<ResponseFuture failed ValueError>"
    failed.exception()


# -- failing


def test_any_use_of_a_failed_call_raises_its_error_with_the_same_traceback() -> None:
    """At each use, the very object, whose traceback does not grow."""
    error = ValueError("no")
    future = pending()
    future.set_exception(error)
    lengths = set()
    for _ in range(50):
        with pytest.raises(ValueError, match="no") as caught:
            future.choices  # noqa: B018
        assert caught.value is error
        lengths.add(len(traceback.extract_tb(error.__traceback__)))
    assert len(lengths) == 1


def test_using_a_cancelled_call_raises_cancelled_error() -> None:
    """As result() does."""
    future = pending()
    future.cancel()
    with pytest.raises(CancelledError):
        future.choices  # noqa: B018


def test_as_future_returns_the_same_object() -> None:
    """It exists for type checkers."""
    future = pending()
    assert as_future(future) is future


def test_as_future_explains_itself_when_it_gets_a_plain_response() -> None:
    """Which is what blocking mode returns."""
    with pytest.raises(TypeError, match=r"not a plain ChatCompletion: .*blocking"):
        as_future(completion())
