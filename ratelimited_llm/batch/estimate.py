"""What a batch will take, before any money is spent: its lines are read as a run would, and nothing is sent.

Tokens and charges come from the same estimator and dialect as those of a real call, and what this process has learned
of the account (tokens per byte, lengths of answers, limits, what is left of them) is used. When it ends is found by
the same scheduler and limiter in virtual time: see `forecast`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..books.prices import Price, Prices
from ..books.spending import most_output
from ..core.checks import amount, text, whole
from ..core.estimate import prompt_bytes
from ..core.limits import RateLimits
from ..core.request import Cost, Usage
from ..exceptions import BudgetExceeded
from .account import Account
from .estimated import (
    BATCH_FILE_BYTES,
    BATCH_FILE_LINES,
    BATCH_FROM,
    Estimate,
    LimitEstimate,
    LineProblem,
    PoolEstimate,
)
from .forecast import CONCURRENCY, INTERVAL, forecast
from .lines import Line, read_lines
from .load import Load, Terms

__all__ = ["estimate"]

IN_FLIGHT = 100  # calls in flight when no limit is known at all
NAMED = 20  # lines that are named one by one
# By how much a sum of token estimates may be wrong. English prose has 4.4 bytes to a token and JSON 3.6, so 4 is right
# within 12 %. What is not ASCII has between 2 and 6. Once learned, it is the mean of some twenty answers, whose ratios
# differ by 15 % or so: two standard deviations of that mean are 7 %.
UNLEARNED_ERROR, FOREIGN_ERROR, LEARNED_ERROR = 0.12, 0.35, 0.07
LOOKED_AT, EVERY = 200, 53  # lines whose text is looked at for what is not ASCII: the first ones, then one of so many
STATES_MAXIMUM = frozenset({"max_completion_tokens", "max_tokens", "max_output_tokens"})


def estimate(
    client: Any,
    source: Any,
    *,
    limits: RateLimits | None = None,
    model: str | None = None,
    prompt: str | None = None,
    endpoint: str | None = None,
    limit: int | None = None,
    latency: float | None = None,
    output_tokens: int | None = None,
    concurrency: int | None = None,
    prices: Prices | Mapping[str, Any] | None = None,
    base_url: str = "",
) -> Estimate:
    """Foresee what sending every line of an input will take; nothing is sent, and no key is needed.

    Args:
        client: a client of ours, whose limits, prices, learned sizes and limits count; None for none.
        source, model, prompt, endpoint, limit: the input, as for `read_lines`.
        limits: instead of, or in addition to, the client's; what is None in it is the client's.
        latency: seconds from dispatch to answer; None for what the client has seen, else 2.0.
        output_tokens: tokens of an answer that states no smaller maximum; None for what the client has seen, else 256.
        concurrency: calls in flight at most; None for the client's own bound.
        prices: as for `Prices`; None for the client's.
        base_url: whose rules count when there is no client; "" for OpenAI's.

    Returns:
        The estimate. A million lines take less than a minute, in flat memory.

        Of a provider that nobody knows, tokens are charged as the most careful rule has it: it may end earlier.

    Raises:
        TypeError, ValueError: an argument makes no sense, or the input cannot be read so.
        OSError: the input cannot be opened or read.
    """
    if latency is not None:
        amount("latency", latency, "a number of seconds")
    for name, value in (("output_tokens", output_tokens), ("concurrency", concurrency)):
        if value is not None:
            amount(name, value, "a whole number")
            whole(name, value, 1, "; None means not known")
    text("base_url", base_url)
    if limits is not None and not isinstance(limits, RateLimits):
        raise TypeError(f"limits must be a RateLimits value or None, not {limits!r}")
    account = Account.of(client, base_url)
    account.restrict(limits, concurrency)
    if latency is not None:
        account.latency = latency
    if prices is not None:
        account.prices = prices if isinstance(prices, Prices) else Prices(prices)
    reader = _Reader(account, output_tokens)
    for line in read_lines(source, prompt=prompt, model=model, endpoint=endpoint, limit=limit):
        if isinstance(line, Line):
            reader.read(line)
        else:
            reader.bad.add(line.number, line.message)
    return reader.result()


@dataclass
class _Problems:
    """Lines that will not be answered: how many, and the first."""

    count: int = 0
    first: list[LineProblem] = field(default_factory=list)

    def add(self, number: int, message: str) -> None:
        self.count += 1
        if len(self.first) < NAMED:
            self.first.append(LineProblem(number, message))


class _Kind:
    """The lines of one model and endpoint: what they have in common."""

    def __init__(self, account: Account, model: str, url: str, output_tokens: int | None) -> None:
        self.model = model
        self.family = account.dialect.family(model)
        # As the SDKs spell it: OpenAI's base URL ends in /v1, Anthropic's does not.
        self.path = url if url.endswith("/messages") else url.removeprefix("/v1")
        self.key = (self.family, self.path)
        seen = account.estimator.output_tokens(self.key)
        self.learned = seen is not None
        self.output = output_tokens if output_tokens is not None else seen
        self.price: Price | None = account.prices.rate(model, account.dialect.name)


class _Pool:
    """The lines of one pool of limits: how many, and what they were estimated to cost."""

    def __init__(self, account: Account, model: str) -> None:
        told, self.remaining = account.learned(model)
        configured = account.limits
        news = {name: value for name, value in told.items() if getattr(configured, name) is None}
        self.learned = bool(news)
        self.limits = configured.replace(**news) if news else configured
        self.load = Load()


class _Reader:
    """Takes in the lines one by one; memory does not grow with them."""

    def __init__(self, account: Account, output_tokens: int | None) -> None:
        self.account = account
        self.output_tokens = output_tokens
        self.kinds: dict[tuple[Any, str], _Kind] = {}
        self.pools: dict[str, _Pool] = {}
        self.models: Counter[str] = Counter()
        self.unpriced: dict[str, None] = {}
        self.bad = _Problems()
        self.never_fit = _Problems()
        self.bytes = self.looked = self.lines = 0
        self.text_bytes = self.foreign_bytes = 0
        self.dollars = self.most_dollars = 0.0
        self.most_output: int | None = 0
        self.learned = True

    def read(self, line: Line) -> None:
        """Count one line of the input."""
        body, account = line.body, self.account
        kind = self._kind(body.get("model"), line.url)
        pool = self.pools.get(kind.family)
        if pool is None:
            pool = self.pools[kind.family] = _Pool(account, kind.model)
        cost = account.dialect.cost(kind.path, body, self._prompt(kind, body), kind.output)
        self.lines += 1
        try:
            pool.limits.check(cost)
        except BudgetExceeded as error:
            self.never_fit.add(line.number, str(error))
            return
        pool.load.add(cost)
        self.bytes += line.size
        self.models[kind.model] += 1
        self._charge(kind, body, cost)
        if self.lines <= LOOKED_AT or self.lines % EVERY == 0:
            self._look(body)

    def _kind(self, model: Any, url: str) -> _Kind:
        name = model if isinstance(model, str) else ""
        kind = self.kinds.get((name, url))
        if kind is None:
            if len(self.kinds) > 10_000:  # names that somebody makes up
                self.kinds.clear()
            kind = self.kinds[name, url] = _Kind(self.account, name, url, self.output_tokens)
            self.learned = self.learned and kind.learned
        return kind

    def _prompt(self, kind: _Kind, body: Mapping[str, Any]) -> int:
        count = self.account.count
        if count is None:
            return self.account.estimator.prompt_tokens(kind.key, prompt_bytes(body))
        tokens = count(body)
        if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
            raise ValueError(f"estimator= must answer a whole number of tokens from 0 up, not {tokens!r}")
        return tokens

    def _charge(self, kind: _Kind, body: Mapping[str, Any], cost: Cost) -> None:
        """Add up what it costs, probably and at most."""
        most: int | None = None
        if not cost.output_tokens:
            most = 0
        elif not STATES_MAXIMUM.isdisjoint(body):
            most = most_output(kind.path, body)
        if most is None or self.most_output is None:
            self.most_output = None
        elif most > self.most_output:
            self.most_output = most
        if kind.price is None:
            if len(self.unpriced) < 5:
                self.unpriced[kind.model] = None
            return
        cost_of, provider = self.account.prices.cost, self.account.dialect.name
        self.dollars += cost_of(kind.model, provider, Usage(cost.input_tokens, cost.output_tokens)) or 0.0
        if self.most_output is not None:
            self.most_dollars += cost_of(kind.model, provider, Usage(cost.input_tokens, most or 0)) or 0.0

    def _look(self, body: Mapping[str, Any]) -> None:
        """How much of the text is not ASCII?"""
        text = json.dumps(body, ensure_ascii=False)
        size = len(text.encode("utf-8", "surrogatepass"))
        self.text_bytes += size
        if size != len(text):
            self.foreign_bytes += size - sum(character < "\x80" for character in text)

    # -- the result ---------------------------------------------------------------------------------------------------

    def result(self) -> Estimate:
        """The estimate of all lines that were read."""
        pools = sorted(
            (_foreseen(family, pool, self.account) for family, pool in self.pools.items() if pool.load.count),
            key=lambda pool: -pool.seconds,
        )
        loads = [pool.load for pool in self.pools.values()]
        requests = sum(load.count for load in loads)
        priced = not self.unpriced
        stated = self.most_output if requests else None
        return Estimate(
            requests=requests,
            input_tokens=sum(load.input for load in loads),
            input_error=self._error(),
            output_tokens=sum(load.output for load in loads),
            output_source=self._source(),
            most_output=stated or None,
            seconds=max((pool.seconds for pool in pools), default=0.0),
            latency=self.account.latency,
            concurrency=sum(pool.concurrency for pool in pools),
            cost=self.dollars if priced else None,
            most_cost=self.most_dollars * (1.0 + self._error()) if priced and stated is not None else None,
            unpriced=tuple(self.unpriced),
            models=tuple(name for name, _ in self.models.most_common(5)),
            pools=tuple(pools),
            never_fit=self.never_fit.count,
            never_fit_lines=tuple(self.never_fit.first),
            bad=self.bad.count,
            bad_lines=tuple(self.bad.first),
            bytes=self.bytes,
            batch_files=self._batch_files(requests),
        )

    def _error(self) -> float:
        if self.account.count is not None:
            return 0.0
        if self.learned and self.kinds:
            return LEARNED_ERROR
        foreign = self.foreign_bytes / self.text_bytes if self.text_bytes else 0.0
        return UNLEARNED_ERROR + foreign * FOREIGN_ERROR

    def _source(self) -> str:
        if self.output_tokens is not None:
            return "given"
        return "learned" if self.learned and self.kinds else "assumed"

    def _batch_files(self, requests: int) -> int:
        """Files for OpenAI's own Batch API, when that is a choice."""
        if self.account.dialect.name != "openai" or requests < BATCH_FROM:
            return 0
        return max(math.ceil(requests / BATCH_FILE_LINES), math.ceil(self.bytes / BATCH_FILE_BYTES))


def _foreseen(family: str, pool: _Pool, account: Account) -> PoolEstimate:
    """When the calls of one pool will be answered."""
    limits, dialect = pool.limits, account.dialect
    terms = Terms(limits, dialect.charge, dialect.request_smoothing, account.latency, pool.remaining)
    known = bool(terms.names) or limits.min_interval is not None
    if not known and limits.max_concurrency is None:
        terms = Terms(limits.replace(max_concurrency=IN_FLIGHT), dialect.charge, None, account.latency)
    elif account.lane < (limits.max_concurrency or math.inf):
        terms = replace(terms, limits=limits.replace(max_concurrency=int(account.lane)))
    found = forecast(terms, pool.load)
    names = {CONCURRENCY: "max_concurrency", INTERVAL: INTERVAL}
    own = known and limits.max_concurrency is None  # nobody asked for a bound: it is told when it matters
    parts = tuple(
        LimitEstimate(name, float(getattr(terms.limits, names.get(name, name))), seconds)
        for name, seconds in found.alone.items()
        if name != CONCURRENCY or not own or found.binds == CONCURRENCY
    )
    return PoolEstimate(
        family, pool.load.count, found.seconds, found.binds, parts, pool.learned, known, found.concurrency
    )
