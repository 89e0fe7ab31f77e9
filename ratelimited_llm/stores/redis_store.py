"""What processes on many machines share, on a Redis or Valkey server (6 and later): one script, one round trip.

    {rll}:pool:NAME          hash    the lines of a pool; see `core.booking_pool`
    {rll}:pool:NAME:orders   hash    the last order of each process
    {rll}:pool:NAME:busy     zset    each process, by the moment until which it is busy
    {rll}:pools              zset    every pool, by its last use
    {rll}:members            zset    every process, by when it reported last
    {rll}:facts              hash    what they reported
    {rll}:wishes             hash    what operators want
    {rll}:cancelled          list    the tags that they cancelled

"rll" is the prefix. The braces keep all keys of one prefix on one node of a cluster. Every key goes away by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from ..core.booking import Answer, Order, Part, Shared
from ..core.booking_pool import look
from ..exceptions import SharedStoreLost
from .control_lines import checked, control_of, facts_of, facts_text, wishes_of
from .redis_link import Address, RedisLink, Script
from .shared_store import Control, Member, PoolFacts

__all__ = ["RedisStore"]

T = TypeVar("T")
KEPT = 90_000  # seconds that an unused pool is kept: every bucket of a day is full again by then


class RedisStore:
    """A `SharedStore` on a Redis or Valkey server. Thread-safe; connects when it is first used.

    Args:
        url: redis://, rediss:// (TLS), valkey://, valkeys:// or unix://, with `?prefix=` for several budgets on one
            server.
        clock: the present moment in seconds, for tests; None for the server's clock, which all processes share.

    Raises:
        ValueError: the URL cannot be understood.
        ImportError: the package `redis` is missing.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] | None = None) -> None:
        self._link = RedisLink(Address.read(url))
        self._clock = clock
        self._book, self._board = Script("book.lua"), Script("board.lua")
        start = "{" + self._link.address.prefix + "}:"
        self._pool_start = start + "pool:"
        self._pools, self._wishes = start + "pools", start + "wishes"
        self._board_keys = (start + "members", start + "facts", self._wishes, start + "cancelled", self._pools)

    def __repr__(self) -> str:
        return f"<RedisStore {self._link.address.shown}>"

    def book(self, pool: str, order: Order) -> Answer:
        """See `SharedStore.book`. Tried twice, under the same number, when the first answer is lost."""
        name = quote(pool, safe="", errors="surrogatepass")
        key = self._pool_start + name
        words = [
            self._now(), name, order.member, order.number, "1" if order.urgent else "", repr(float(order.pause)), KEPT,
        ]  # fmt: skip
        words += map(_line, order.parts)
        keys = (key, key + ":orders", key + ":busy", self._pools, self._wishes)
        return self._understood(_answer, self._link.run(self._book, keys, words, repeat=True))

    def report(self, member: str, facts: Mapping[str, Any]) -> Control:
        """See `SharedStore.report`."""
        return self._understood(_control, self._ask("report", member, facts_text(facts)))

    def leave(self, member: str) -> None:
        """See `SharedStore.leave`."""
        self._ask("leave", member, self._pool_start)

    def members(self) -> list[Member]:
        """See `SharedStore.members`."""
        return self._understood(_members, self._ask("members"))

    def pools(self) -> list[PoolFacts]:
        """See `SharedStore.pools`."""
        return self._understood(_pools, self._ask("pools", self._pool_start))

    def control(
        self, *, paused: bool | None = None, limits: Mapping[str, float | None] | None = None, cancel: str | None = None
    ) -> Control:
        """See `SharedStore.control`.

        Raises:
            ValueError, TypeError: a limit or a tag cannot be.
        """
        words: list[Any] = ["" if paused is None else int(paused), cancel or ""]
        for name, limit in checked(limits, cancel).items():
            words += [name, "" if limit is None else repr(float(limit))]
        return self._understood(_control, self._ask("control", *words))

    def after_fork(self) -> None:
        """See `SharedStore.after_fork`; a child that is not told finds out by itself."""
        self._link.after_fork()

    def close(self) -> None:
        """See `SharedStore.close`."""
        self._link.drop()

    def _now(self) -> str:
        return "" if self._clock is None else repr(self._clock())

    def _ask(self, what: str, *words: Any) -> Any:
        return self._link.run(self._board, self._board_keys, (self._now(), what, *words))

    def _understood(self, read: Callable[[Any], T], reply: Any) -> T:
        try:
            return read(reply)
        except (ValueError, TypeError, LookupError, AttributeError):
            pass
        raise SharedStoreLost(f"{self._link.address.shown}: it answers what cannot be understood")


def _line(part: Part) -> str:
    return (
        f"{part.dimension} {part.amount!r} {part.period!r} {_or_none(part.limit)} {_or_none(part.capacity)} "
        f"{int(part.configured)} {part.held_back!r} {part.correction!r} {_or_none(part.at_most)} "
        f"{_or_none(part.last_level)}"
    )


def _or_none(value: float | None) -> str:
    return "-" if value is None else repr(value)


def _answer(reply: str) -> Answer:
    wait, booked, members, news, *rest = reply.split(" ")
    shared = [
        Shared(rest[place], float(rest[place + 1]), float(rest[place + 2]), float(rest[place + 3]))
        for place in range(0, len(rest), 4)
    ]
    shared.sort(key=lambda each: each.dimension)
    return Answer(float(wait), booked == "1", tuple(shared), int(members), int(float(news)))


def _pairs(flat: Sequence[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _control(reply: Sequence[Any]) -> Control:
    lines, tags = reply
    return control_of(_pairs(lines), zip(tags[::3], tags[1::3], tags[2::3], strict=True))


def _members(reply: Sequence[str]) -> list[Member]:
    found = zip(reply[::3], reply[1::3], reply[2::3], strict=True)
    return [Member(name, max(0.0, float(seen)), facts_of(facts)) for name, seen, facts in found]


def _pools(reply: Sequence[Any]) -> list[PoolFacts]:
    (lines, _), now, *pools = reply
    wishes = wishes_of(_pairs(lines))
    found = []
    for name, state in zip(pools[::2], pools[1::2], strict=True):
        pause, limits = look(_pairs(state), float(now), wishes)
        found.append(PoolFacts(unquote(name, errors="surrogatepass"), pause, limits))
    return found
