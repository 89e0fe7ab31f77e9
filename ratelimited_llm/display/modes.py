"""Which kind of progress is shown: what an argument, the environment and the stream say."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

from ..core.checks import says_no, says_yes

__all__ = ["AUTO", "BAR", "LOG", "NONE", "NOTEBOOK", "PLAIN", "chosen", "fitting"]

AUTO, BAR, PLAIN, LOG, NOTEBOOK, NONE = "auto", "bar", "plain", "log", "notebook", "none"
MODES = (AUTO, BAR, PLAIN, LOG, NOTEBOOK, NONE)
VARIABLE = "RATELIMITED_LLM_PROGRESS"
YES = frozenset({"", "1", "true", "yes", "on"})

_log = logging.getLogger("ratelimited_llm")
_complained: set[str] = set()  # wrong values of the variable that were spoken of


def chosen(mode: bool | str | None, environ: Mapping[str, str] | None = None) -> str:
    """Return the mode that was asked for: one of `MODES`.

    None is what `RATELIMITED_LLM_PROGRESS` says (a yes or a no, too), or else "auto"; True is "auto" and False "none".
    `TQDM_DISABLE=1` turns "auto" into "none", and leaves alone what was asked for by name.

    Raises:
        TypeError, ValueError: it is none of these. A wrong variable is no error: it is logged once and not followed.
    """
    environ = os.environ if environ is None else environ
    if mode is None:
        mode = _from_environment(environ)
    elif isinstance(mode, bool):
        mode = AUTO if mode else NONE
    elif not isinstance(mode, str):
        raise TypeError(f"progress must be True, False, None or one of {_choices()}, not {mode!r}")
    elif mode not in MODES:
        raise ValueError(f"progress must be one of {_choices()}, not {mode!r}")
    if mode == AUTO and says_yes(environ.get("TQDM_DISABLE", "")):
        return NONE
    return mode


def fitting(mode: str, stream: Any, environ: Mapping[str, str] | None = None) -> str:
    """Return what "auto" comes to on this stream at this moment: "bar" on a terminal that can erase, else "plain"."""
    if mode != AUTO:
        return mode
    environ = os.environ if environ is None else environ
    try:
        return BAR if stream.isatty() and environ.get("TERM") != "dumb" else PLAIN
    except Exception:  # None (no console at all), or closed
        return PLAIN


def in_kernel() -> bool:
    """Whether this is the kernel of a notebook; imports nothing."""
    ipython: Any = sys.modules.get("IPython")
    try:
        return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
    except Exception:
        return False


def _from_environment(environ: Mapping[str, str]) -> str:
    said = environ.get(VARIABLE, "")
    mode = said.strip().lower()
    if mode in MODES:
        return mode
    if mode in YES or says_no(mode):  # as the argument takes True and False
        return AUTO if mode in YES else NONE
    if said not in _complained:
        _complained.add(said)
        facts = {"event": "wrong_variable", "variable": VARIABLE}
        _log.warning("%s must be one of %s, not %r; it is taken as auto", VARIABLE, _choices(), said, extra=facts)
    return AUTO


def _choices() -> str:
    return ", ".join(f'"{mode}"' for mode in MODES)
