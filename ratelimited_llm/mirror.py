"""A module that is another module but for a few names: what a door shows of its SDK."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

__all__ = ["mirror"]


class MirrorModule(ModuleType):
    """Answers every name that it lacks with the SDK's own object, and sets the SDK's settings where they live."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__title__", "__version__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        lazy: Mapping[str, Callable[[], Any]] = self.__dict__["_lazy"]
        if name in lazy:
            return lazy[name]()
        try:
            return getattr(self.__dict__["_sdk"], name)
        except AttributeError:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        sdk = self.__dict__.get("_sdk")
        # A setting such as `openai.api_key = ...` has to reach the code that reads it.
        if sdk is not None and name not in self.__dict__ and not name.startswith("_") and hasattr(sdk, name):
            setattr(sdk, name, value)
        else:
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *self.__dict__["_lazy"], *dir(self.__dict__["_sdk"])})


def mirror(name: str, sdk: ModuleType, lazy: Mapping[str, Callable[[], Any]] | None = None) -> None:
    """Make the module `name` a mirror of an SDK.

    Args:
        name: of a module that is being imported.
        sdk: what it shows where it has no name of its own.
        lazy: names that are made each time they are asked for.
    """
    module = sys.modules[name]
    module.__dict__.update(_sdk=sdk, _lazy=dict(lazy or {}))
    module.__class__ = MirrorModule
