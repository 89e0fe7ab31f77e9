"""Things that somebody puts into a request: JSON has no word for some, and others hit back when looked at."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import itertools
import math
import threading
import types
import uuid
from collections.abc import Mapping
from pathlib import Path

import openai
import pydantic
from nested import cyclic, deep


class Model(pydantic.BaseModel):
    a: int = 1
    b: str = "x"


@dataclasses.dataclass
class Data:
    a: int = 1


class Name(enum.Enum):
    A = "a"


class TextName(str, enum.Enum):
    A = "a"


class Number(enum.IntEnum):
    A = 1


class Text(str):
    pass


class Float(float):
    pass


class Raises:
    """All that may be asked of it without a name."""

    def fails(self, *args):
        raise ZeroDivisionError("hit back")

    __repr__ = __str__ = __eq__ = __hash__ = __deepcopy__ = __bool__ = __len__ = __iter__ = __getstate__ = fails


class BadDict(dict):
    def items(self):
        raise ZeroDivisionError("hit back")


class BadList(list):
    def __iter__(self):
        raise ZeroDivisionError("hit back")


class BadMapping(Mapping):
    def __getitem__(self, key):
        raise ZeroDivisionError("hit back")

    def __iter__(self):
        raise ZeroDivisionError("hit back")

    def __len__(self):
        return 1


Pair = collections.namedtuple("Pair", "a b")
DEEP, CYCLIC = deep(100_000), cyclic()
STRANGE = {
    "nan": lambda: math.nan, "inf": lambda: math.inf, "bytes": lambda: b"x", "bytearray": lambda: bytearray(b"x"),
    "a set": lambda: {1}, "a frozenset": lambda: frozenset([1]), "a generator": lambda: (i for i in range(3)),
    "an endless iterator": itertools.count, "a range": lambda: range(3), "a deque": lambda: collections.deque([1]),
    "an array": lambda: array.array("i", [1]), "a tuple": lambda: (1, 2), "a view of keys": lambda: {"a": 1}.keys(),
    "a named tuple": lambda: Pair(1, 2), "another mapping": lambda: types.MappingProxyType({"a": 1}),
    "an ordered dict": lambda: collections.OrderedDict(a=1), "a model": Model, "a class": lambda: Model,
    "a data class": Data, "an enum": lambda: Name.A, "an enum of text": lambda: TextName.A,
    "an enum of numbers": lambda: Number.A, "a moment": lambda: datetime.datetime(2020, 1, 1),
    "a day": lambda: datetime.date(2020, 1, 1), "a decimal": lambda: decimal.Decimal("1.5"),
    "a uuid": lambda: uuid.UUID(int=1), "a path": lambda: Path("x"), "a lock": threading.Lock, "a module": lambda: math,
    "a function": lambda: len, "an exception": lambda: ValueError("x"), "an ellipsis": lambda: ..., "an object": object,
    "a complex number": lambda: 1j, "a subclass of str": lambda: Text("x"), "a subclass of float": lambda: Float(1.5),
    "one that is no number": lambda: Float(math.nan), "half a pair": lambda: "\ud83d",
    "half a pair in a subclass": lambda: Text("\ud800"), "half a pair as a key": lambda: {"\udc00": 1},
    "a tuple as a key": lambda: {(1, 2): 3}, "bytes as a key": lambda: {b"a": 1}, "nan as a key": lambda: {math.nan: 1},
    "an object as a key": lambda: {object(): 1}, "numbers as keys": lambda: {1: 2, 2.5: 3, None: 4, False: 5},
    "text and numbers": lambda: {"a": 1, 1: 2}, "a huge number": lambda: 10**400,
    "not given": lambda: {"a": openai.omit}, "150 levels": lambda: deep(150),
    "a dict of its own": lambda: BadDict(a=1), "a list of its own": lambda: BadList([1]),
    "a mapping of its own": BadMapping, "an object that hits back": Raises, "cyclic": lambda: CYCLIC,
    "100,000 levels": lambda: DEEP,
}  # fmt: skip
