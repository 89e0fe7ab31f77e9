"""Where in the user's own code a call was submitted: found in under a microsecond, told when the call fails."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from types import FrameType

__all__ = ["add_note_of_submission", "helper_frame", "submitted_at"]

# Frames of these packages are between the user's line and us. The standard library's are there when an executor calls.
_BETWEEN = frozenset(
    {"ratelimited_llm", "openai", "groq", "anthropic", "requests", "concurrent", "threading", "functools", "contextlib"}
)

_between: set[str] = set()  # file names, each sorted once into one of the two
_outside: set[str] = set()
_places: dict[tuple[str, int], str] = {}  # so that a million calls from one line share one string
_MOST_NAMES = 10_000  # a notebook that runs for weeks makes a new file name for every cell


def submitted_at(depth: int = 1) -> str | None:
    """Name the user's line that led here, as "script.py:4"; None when only library frames did.

    Args:
        depth: how many frames to skip, this one included, because they are known to be ours.
    """
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        name = frame.f_code.co_filename
        if name in _between or (name not in _outside and _is_between(name, frame)):
            frame = frame.f_back
        else:
            return _places.get((name, frame.f_lineno)) or _remember(name, frame.f_lineno)
    return None


def _is_between(name: str, frame: FrameType) -> bool:
    between = str(frame.f_globals.get("__name__", "")).partition(".")[0] in _BETWEEN
    names = _between if between else _outside
    if len(names) >= _MOST_NAMES:
        names.clear()
    names.add(name)
    return between


def helper_frame(sdk: str, depth: int = 1) -> bool:
    """Whether the nearest caller beyond an SDK's resources and plumbing is still the SDK's own code.

    Args:
        sdk: the SDK's package name.
        depth: how many frames to skip, this one included.
    """
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        name = frame.f_code.co_filename
        role = _roles.get(name)
        if role is None:
            role = _role(name, str(frame.f_globals.get("__name__", "")), sdk)
        if role:
            return role == "helper"
        frame = frame.f_back
    return False


_roles: dict[str, str] = {}  # by file name: "" is plumbing, which is looked past
_PLUMBING = frozenset(
    {"", "resources", "_base_client", "_response", "_legacy_response", "_utils", "_client", "_module_client"}
)


def _role(name: str, module: str, sdk: str) -> str:
    package, _, rest = module.partition(".")
    if package == sdk:
        # openai 3.x keeps the body of some methods of its resources in lib/_..._resources.py.
        plumbing = rest.partition(".")[0] in _PLUMBING or rest.endswith("_resources")
        role = "" if plumbing else "helper"
    else:
        role = "" if package in ("ratelimited_llm", "functools", "contextlib") else "user"
    if len(_roles) >= _MOST_NAMES:
        _roles.clear()
    _roles[name] = role
    return role


def _remember(name: str, line: int) -> str:
    if len(_places) >= _MOST_NAMES:
        _places.clear()
    place = _places[name, line] = f"{_shorten(name)}:{line}"
    return place


def _shorten(name: str) -> str:
    # ipykernel compiles a cell under a made-up file name that nobody has seen.
    if "ipykernel_" in name or name.startswith("<ipython-input"):
        return "notebook cell"
    try:
        here = os.path.join(os.getcwd(), "")
    except OSError:  # the directory is gone
        return name
    return name[len(here) :] if name.startswith(here) else name


def add_note_of_submission(exception: BaseException, where: str | None) -> None:
    """Note on the exception where its call was submitted, once: one object may fail many calls."""
    if where is None:
        return
    notes = getattr(exception, "__notes__", ())
    if any(str(note).startswith("submitted at ") for note in notes):
        return
    note = f"submitted at {where}"
    with suppress(Exception):  # a class may refuse new attributes; the failure itself matters more
        if sys.version_info >= (3, 11):
            exception.add_note(note)
        else:  # Python 3.10 does not print it; pytest and rich do
            vars(exception)["__notes__"] = [*notes, note]
