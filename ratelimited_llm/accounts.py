"""Whose limits a call spends: an account (provider, base URL, key, limits), and in it a pool for each model family.

Scripts make clients carelessly, even one for each call. So what counts is not the client: calls with the same
provider, base URL, key and configured limits share one account, which outlives the clients.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urlsplit, urlunsplit

from .core.estimate import TokenEstimator
from .core.header_sampler import HeaderSampler
from .core.limiter import Limiter
from .core.limits import RateLimits
from .notices import News
from .providers import Dialect

__all__ = ["Account", "CallPool", "account_for", "canonical", "forget_accounts"]

MOST_NAMES = 1_000  # of models, which somebody may make up


@dataclass(frozen=True)
class CallPool:
    """One set of limits: an account's, for one model family. Its repr names no key."""

    provider: str
    base_url: str
    key_digest: str = field(repr=False)
    limits: RateLimits
    family: str
    dialect: Dialect = field(repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def limiter(self) -> Limiter:
        return Limiter(
            self.limits,
            charge=self.dialect.charge,
            smoothing=self.dialect.request_smoothing,
        )

    @property
    def host(self) -> str:
        """Where its calls go, as far as it is known."""
        return urlsplit(self.base_url).netloc

    @property
    def shared_name(self) -> str | None:
        """What these limits are called where other processes share them; the key is in it as a digest only.

        None when nobody knows whose they are.
        """
        return f"{self.base_url}|{self.key_digest}|{self.family}" if self.base_url else None

    def __hash__(self) -> int:  # the generated one would hash every limit at every look-up, of which a call has a dozen
        return self._hash

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.base_url, self.key_digest, self.family)))


class Account:
    """A provider, a base URL, a key and the limits given for them: makes the pools, and learns what tokens cost."""

    def __init__(self, provider: str, base_url: str, digest: str, limits: RateLimits, dialect: Dialect) -> None:
        self.provider = provider
        self.base_url = base_url
        self.limits = limits
        self.dialect = dialect
        self.estimator = TokenEstimator()
        self.news = News(base_url)
        self._digest = digest
        self._pools: dict[str, CallPool] = {}
        self._samplers: dict[str, HeaderSampler] = {}

    def sampler(self, pool: CallPool) -> HeaderSampler:
        """When the limits of a pool were read last; thread-safe, as two that were made at once do no harm."""
        found = self._samplers.get(pool.family)
        if found is None:
            if len(self._samplers) > MOST_NAMES:
                self._samplers.clear()
            found = self._samplers[pool.family] = HeaderSampler()
        return found

    def pool(self, model: str) -> CallPool:
        """The pool of a model; thread-safe, since two that were made at once are equal."""
        pool = self._pools.get(model)
        if pool is None:
            family = self.dialect.family(model)
            pool = CallPool(self.provider, self.base_url, self._digest, self.limits, family, self.dialect)
            if len(self._pools) > MOST_NAMES:
                self._pools.clear()
            self._pools[model] = pool
        return pool


def account_for(provider: str, base_url: str, key: str, limits: RateLimits, dialect: Dialect) -> Account:
    """The account of a key at a base URL; the same object for the same arguments. The key itself is not kept in it."""
    return _account(provider, canonical(base_url), key, limits, dialect)


@lru_cache(maxsize=1024)
def canonical(base_url: str) -> str:
    """A base URL as all who mean the same write it: scheme and host in lower case, no slash at the end, no query."""
    with suppress(ValueError):
        url = urlsplit(base_url)
        place = url.netloc.rpartition("@")[2].lower()
        return urlunsplit((url.scheme.lower(), place, url.path.rstrip("/"), "", ""))
    return base_url.rstrip("/")


@lru_cache(maxsize=1024)
def _account(provider: str, base_url: str, key: str, limits: RateLimits, dialect: Dialect) -> Account:
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Account(provider, base_url, digest, limits, dialect)


def forget_accounts() -> None:
    """Forget every account with what its answers taught, as after a new start of the process."""
    _account.cache_clear()
