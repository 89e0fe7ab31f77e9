"""What a fork does to the house, in an order that does not hang on who was imported first.

Threads that are not in the child may have held any lock at the moment of the fork. So in the child every part first
puts right what is its own, and asks nobody else; the calls of the parent are ended last, since that calls back, and
what is called back may use all parts. In the parent, and before the fork, the order is the opposite: a step of a queue
may be waiting for a store, so the queues are held still before the stores are.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

__all__ = ["at_fork"]

Step = Callable[[], object]

_log = logging.getLogger(__name__)
_turn = threading.RLock()  # two threads may fork at once, and what one holds still the other must not let go of
_before: list[Step] = []
_in_parent: list[Step] = []
_in_child: list[Step] = []
_last_in_child: list[Step] = []


def at_fork(
    in_child: Step, *, before: Step | None = None, in_parent: Step | None = None, after_all_others: bool = False
) -> None:
    """Have a part of the house put right in every child that this process forks; does nothing where there is no fork.

    A step that fails is logged, and the others are taken all the same.

    Args:
        in_child: renews its own locks and forgets what is the parent's, without a look at any other part.
        before: holds still what must not be copied half way through a change; within seconds, or not at all.
        in_parent: lets go of that again.
        after_all_others: `in_child` ends calls, and so may need all parts; its `before` comes first.
    """
    (_last_in_child if after_all_others else _in_child).append(in_child)
    for steps, step in ((_before, before), (_in_parent, in_parent)):
        if step is not None:
            steps.insert(0 if after_all_others else len(steps), step)


def _take(steps: list[Step]) -> None:
    for step in steps:
        try:
            step()
        except BaseException:  # an interrupt too: what is left undone here hangs later
            _log.exception("fork_step_failed: %s", step.__module__)


def _begin() -> None:
    _turn.acquire()
    _take(_before)


def _end_in_parent() -> None:
    _take(_in_parent[::-1])
    _turn.release()


def _end_in_child() -> None:
    global _turn
    _turn = threading.RLock()
    _take(_in_child)
    _take(_last_in_child)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_begin, after_in_parent=_end_in_parent, after_in_child=_end_in_child)
