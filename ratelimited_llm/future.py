"""ResponseFuture: a Future that is also its response.

Which of the two is meant is told by the name alone, so that showing a pending future to anybody never waits:

1. The public names of `concurrent.futures.Future` are the future's, and `ratelimit`. No other public name is ours.
2. Every other public name is the response's, for reading, setting and deleting, and waits. So do the special methods
   of the declared type (iteration, `with`, `[]`, len...), which the future has if, and only if, that type has them.
3. Names that start with `_` are refused at once, but for `_request_id`, which the SDKs document, and for what copying,
   pickling and pydantic ask of the response itself (`__dict__`, `__pydantic_extra__`...), which wait.
4. `type()`, `isinstance`, `repr`, `str`, `hash` and `dir` never wait. Futures are equal by identity.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from functools import lru_cache, partial
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, overload

from .books.status import Ratelimit
from .display.answer_text import shorten, summarize
from .engine.light_future import LightFuture

__all__ = ["ResponseFuture", "as_future"]

T = TypeVar("T")

_FUTURE_NAMES = frozenset({"ratelimit", *(name for name in dir(Future) if not name.startswith("_"))})

# rich asks every object that it prints for this attribute, and takes an answer to mean that it answers to anything.
_RICH_CANARY = "awehoi234_wdfjwljet234_234wdfoijsdfmmnxpi492"

_WORDS = {
    PENDING: "queued",
    RUNNING: "running",
    CANCELLED: "cancelled",
    CANCELLED_AND_NOTIFIED: "cancelled",
    FINISHED: "done",
}
_ROOM = 50 - len("<ResponseFuture >")


class _OnClassOnly:
    """Makes `ResponseFuture.of` ours and leaves `future.of` to the response, as every public name is."""

    def __get__(self, future: Any, owner: Any) -> Callable[[Any], type[ResponseFuture[Any]]]:
        return _of if future is None else future.__getattr__("of")


class ResponseFuture(LightFuture[T]):
    """The future of one queued call, and the response itself for whoever just uses it.

    Make it with the class for its declared type: `ResponseFuture.of(ChatCompletion)(call, owner, where)`.
    """

    __slots__ = ("_ratelimit",)

    of = _OnClassOnly()

    @property
    def ratelimit(self) -> Ratelimit:
        """How the call fares, or fared, in the queue: place, seconds, attempts, what holds it. Never waits."""
        told: Ratelimit | None = getattr(self, "_ratelimit", None)
        if told is None:
            owner = self._owner  # once: another thread may end this future meanwhile
            told = owner.ratelimit(self) if owner is not None and hasattr(owner, "ratelimit") else None
        return told or getattr(self, "_ratelimit", None) or Ratelimit(_WORDS[self._state], 0.0)

    # -- being the response

    def __getattr__(self, name: str) -> Any:
        if (name[:1] == "_" and name != "_request_id") or name == _RICH_CANARY:
            raise AttributeError(f"'ResponseFuture' object has no attribute {name!r}")
        try:
            return getattr(self.result(), name)
        finally:
            del self  # else a failure holds its future: exception -> traceback -> this frame -> future

    def __setattr__(self, name: str, value: Any) -> None:
        if name[:1] == "_" and name != "_request_id":
            object.__setattr__(self, name, value)
        else:
            setattr(self.result(), name, value)

    def __delattr__(self, name: str) -> None:
        if name[:1] == "_" and name != "_request_id":
            object.__delattr__(self, name)
        else:
            delattr(self.result(), name)

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        return vars(self.result())

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if other is None or issubclass(type(other), Future):
            return False
        return bool(self.result() == other)

    __hash__ = object.__hash__

    def __copy__(self) -> T:
        return copy.copy(self.result())

    def __deepcopy__(self, memo: dict[int, Any]) -> T:
        return copy.deepcopy(self.result(), memo)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # What arrives is the response, and needs nothing of ours to be read: cast() returns its second argument.
        return cast, (None, self.result())

    # -- being shown

    def __dir__(self) -> Iterable[str]:
        shown = self._result if self._is_answered() else getattr(type(self), "_declared", None)
        fields = getattr(shown, "__pydantic_fields__", ())  # a class of pydantic does not list them
        return sorted({*_FUTURE_NAMES, *fields, *(name for name in dir(shown) if name[:1] != "_")})

    def __repr__(self) -> str:
        try:
            status = shorten(self._status(), _ROOM)
        except Exception:  # whatever a broken response or owner does, printing a list of futures goes on
            status = _WORDS[self._state]
        return f"<ResponseFuture {status}>"

    def _ipython_display_(self) -> None:
        from .display.notebook import show_future

        show_future(self)

    def __str__(self) -> str:
        return str(self._result) if self._is_answered() else repr(self)

    def __format__(self, spec: str) -> str:
        return format(self._result, spec) if self._is_answered() else format(repr(self), spec)

    def _is_answered(self) -> bool:
        return self._state == FINISHED and self._exception is None

    def _status(self) -> str:
        if self._state == FINISHED:
            if self._exception is not None:
                return f"failed {type(self._exception).__name__}"
            return "done " + summarize(self._result, _ROOM - len("done "))
        owner = self._owner  # once: another thread may end this future meanwhile
        return _WORDS[self._state] if owner is None or self.cancelled() else owner.describe(self)


# -- the class for each declared type


def _enter(response: Any) -> Any:
    return _special(response, "__enter__")(response)


def _exit(response: Any, *error: Any) -> Any:
    return _special(response, "__exit__")(response, *error)


def _call(response: Any, /, *args: Any, **kwargs: Any) -> Any:
    return response(*args, **kwargs)


def _special(response: Any, name: str) -> Any:
    try:
        return getattr(type(response), name)
    except AttributeError:
        raise TypeError(f"{type(response).__name__!r} object has no {name}") from None


# Python looks special methods up on the type, so they cannot come from __getattr__; and a future that had more of them
# than its response would mislead: list() trusts __len__, isinstance(f, Iterator) believes __next__. Each of these
# raises the TypeError that Python has for an object without it, should the answer be of another type than declared.
_SPECIAL_METHODS: dict[str, Callable[..., Any]] = {
    "__bool__": operator.truth,
    "__bytes__": bytes,
    "__call__": _call,
    "__contains__": operator.contains,
    "__delitem__": operator.delitem,
    "__enter__": _enter,
    "__exit__": _exit,
    "__float__": float,
    "__getitem__": operator.getitem,
    "__index__": operator.index,
    "__int__": int,
    "__iter__": iter,
    "__len__": len,
    "__length_hint__": operator.length_hint,
    "__next__": next,
    "__reversed__": reversed,
    "__setitem__": operator.setitem,
}

# What pydantic keeps on each model instance; the rest of its `__pydantic_*__` names are the class's.
_PYDANTIC_OF_INSTANCE = frozenset({"__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__"})


# Forms of typing that some Python or other implements as a class.
_NO_CLASS: tuple[Any, ...] = (Any, Union, UnionType, object)


def _of(declared: Any) -> type[ResponseFuture[Any]]:
    """Return the subclass for a declared response type: `Model`, `Stream[Chunk]`, `Annotated[...]`.

    For what is no class (a union, Any, None) it is ResponseFuture itself, with no special methods.
    """
    try:
        return _class_for(declared)
    except TypeError:  # not hashable: an Annotated with a dict in it, say
        return _class_for.__wrapped__(declared)


# Bounded: a notebook cell that declares a model makes a new type each time it is run.
@lru_cache(maxsize=1024)
def _class_for(declared: Any) -> type[ResponseFuture[Any]]:
    while get_origin(declared) is Annotated:
        declared = get_args(declared)[0]
    declared = get_origin(declared) or declared
    if not isinstance(declared, type) or declared in _NO_CLASS:
        return ResponseFuture
    return _make_class(declared)


@lru_cache(maxsize=1024)
def _make_class(declared: type) -> type[ResponseFuture[Any]]:
    namespace: dict[str, Any] = {
        "__slots__": (),
        "__module__": ResponseFuture.__module__,
        "__doc__": f"The future of a {declared.__qualname__}.",
        "__class__": property(partial(_class_of, declared)),
        "_declared": declared,
    }
    for name, operation in _SPECIAL_METHODS.items():
        if _has_special(declared, name):
            namespace[name] = _iterated if name == "__iter__" else _forwarded(name, operation)
    for name in dir(declared):
        if name.startswith("__pydantic_"):
            namespace[name] = _from_instance(name) if name in _PYDANTIC_OF_INSTANCE else _from_class(name, declared)
    return type("ResponseFuture", (ResponseFuture,), namespace)


def _class_of(declared: type, future: ResponseFuture[Any]) -> type:
    """What `isinstance` goes by: the declared type, and the answer's own once it is there, which may be a subclass."""
    answered = type(future._result) if future._is_answered() else declared
    return answered if issubclass(answered, declared) else declared


def _has_special(declared: type, name: str) -> bool:
    # Not hasattr: every class has a __call__, its metaclass's.
    return next((vars(base)[name] for base in declared.__mro__ if name in vars(base)), None) is not None


def _forwarded(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: ResponseFuture[Any], /, *args: Any, **kwargs: Any) -> Any:
        return operation(self.result(), *args, **kwargs)

    method.__name__ = name
    method.__qualname__ = f"ResponseFuture.{name}"
    return method


def _iterated(self: ResponseFuture[Any]) -> Iterator[Any]:
    # Whoever just asks for an iterator waits for nothing: pandas 2 does, of each cell of a table that it shows.
    yield from self.result()


def _from_instance(name: str) -> property:
    return property(lambda self: getattr(self.result(), name))


def _from_class(name: str, declared: type) -> property:
    # No wait: isinstance(future, BaseModel) reads one of them. And no copy: pydantic may build them later.
    return property(lambda self: getattr(type(self._result) if self._is_answered() else declared, name))


@overload
def as_future(response: ResponseFuture[T]) -> ResponseFuture[T]: ...
@overload
def as_future(response: T) -> ResponseFuture[T]: ...
def as_future(response: Any) -> Any:
    """Tell a type checker that what a queued call returned is a future: the same object, typed.

    Raises:
        TypeError: it is a plain object, as calls that wait return.
    """
    if issubclass(type(response), ResponseFuture):
        return response
    raise TypeError(
        f"as_future() takes what a queued call returned, not a plain {type(response).__name__}: "
        'the call was not queued, or the client waits (mode="blocking")'
    )
