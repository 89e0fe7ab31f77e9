"""What tokens cost, in US dollars: by hand, or from the genai-prices package (the extra `cost`), offline."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..core.request import Usage

__all__ = ["Price", "Prices"]

MILLION = 1_000_000
MOST_NAMES = 4_096  # (model, provider) pairs that are remembered; names that somebody makes up must not fill the memory
# What genai-prices calls the providers that our dialects have other names for.
NAMES = {"gemini": "google", "xai": "x-ai"}
UNKNOWN = frozenset({"", "compatible", "generic"})  # dialects of nobody in particular: the model's name decides


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in US dollars.

    Attributes:
        input, output: per million tokens.
        cached_input: per million input tokens that were read from the provider's cache; None: as other input.
        request: per request, whatever it uses.

    Raises:
        TypeError: for what is no number.
        ValueError: for a negative or infinite one.
    """

    input: float
    output: float
    cached_input: float | None = None
    request: float = 0.0

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached_input", "request"):
            value = getattr(self, name)
            if value is None and name == "cached_input":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"a price's {name} must be a number of US dollars, not {value!r}")
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"a price's {name} must be 0 or more US dollars, not {value!r}")

    def cost(self, usage: Usage) -> float:
        """US dollars for the tokens that one call used."""
        if not usage.cached_tokens or self.cached_input is None:
            dollars = usage.input_tokens * self.input
        else:
            cached = min(usage.cached_tokens, usage.input_tokens)
            dollars = (usage.input_tokens - cached) * self.input + cached * self.cached_input
        return (dollars + usage.output_tokens * self.output) / MILLION + self.request


@dataclass(frozen=True, slots=True)
class _Tariff:
    """A price, and how to calculate where it depends on more than the tokens' number.

    Attributes:
        exact: what calculates it then; None when it never does.
        above: input tokens up to which the price holds all the same, since its tiers begin there.
    """

    price: Price
    exact: Callable[[Usage], float] | None = None
    above: float = -1.0

    def cost(self, usage: Usage) -> float:
        if self.exact is None or usage.input_tokens <= self.above:
            return self.price.cost(usage)
        return self.exact(usage)


class Prices:
    """Knows, or finds out, what each model costs. Thread-safe.

    The first look-up of a model that has no price by hand imports genai-prices, which takes half a second: let it
    happen in a thread that holds no lock (`rate` does it). Later ones take a microsecond. Nothing goes online.

    Args:
        own: prices by hand that go before all others: {"gpt-4o-mini": (0.15, 0.60)} in US dollars per million tokens
            of input and output; or {"input": 0.15, "output": 0.60, "cached_input": 0.075}, or a `Price`. A model has
            the price of its own name, else that of the longest name that it begins with, else that of "*".

    Raises:
        TypeError: for what is no mapping of names to prices.
        ValueError: for negative or infinite prices, or wrong names in one.
    """

    def __init__(self, own: Mapping[str, Any] | None = None) -> None:
        if own is not None and not isinstance(own, Mapping):
            raise TypeError(f'prices must be a mapping such as {{"gpt-4o-mini": (0.15, 0.60)}}, not {own!r}')
        self._own = {_name(name): _Tariff(_price(name, value)) for name, value in (own or {}).items()}
        self._other = self._own.pop("*", None)
        self._found: dict[tuple[str, str], _Tariff | None] = {}

    def rate(self, model: str, provider: str = "") -> Price | None:
        """What a model costs; None when nobody knows.

        Args:
            model: its name as the request states it.
            provider: who serves it: a dialect's name ("openai"), a host or a base URL; "" for whoever made the model.

        Returns:
            For a model whose price depends on more than that (tiers by length, the time of day), that of a short call
            at the time of the first look-up; `cost` is exact.
        """
        tariff = self._tariff(model, provider)
        return None if tariff is None else tariff.price

    def cost(self, model: str, provider: str, usage: Usage) -> float | None:
        """US dollars for what one call used; None when nobody knows the model's price. Arguments as for `rate`."""
        tariff = self._tariff(model, provider)
        return None if tariff is None else tariff.cost(usage)

    def _tariff(self, model: str, provider: str) -> _Tariff | None:
        try:
            return self._found[model, provider]
        except (KeyError, TypeError):
            pass
        if not isinstance(model, str):
            return self._other
        tariff = self._by_hand(model) or _listed(model, provider)
        if len(self._found) >= MOST_NAMES:
            self._found.clear()
        self._found[model, provider] = tariff
        return tariff

    def _by_hand(self, model: str) -> _Tariff | None:
        if model in self._own:
            return self._own[model]
        fitting = [name for name in self._own if model.startswith(name)]
        return self._own[max(fitting, key=len)] if fitting else self._other

    def __repr__(self) -> str:
        return f"<Prices {len(self._own) + (self._other is not None)} by hand>"


def _name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise TypeError(f"prices: a model's name must be a string, not {name!r}")
    return name


def _price(name: str, value: object) -> Price:
    """Read one price by hand, whatever its shape."""
    try:
        if isinstance(value, Price):
            return value
        if isinstance(value, Mapping):
            return Price(**value)
        if isinstance(value, (tuple, list)) and len(value) == 2:
            return Price(*value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"prices: {name!r}: {error}") from None
    raise TypeError(
        f"prices: {name!r}: give (input, output) in US dollars per million tokens, or a mapping with "
        f"input, output and cached_input, not {value!r}"
    )


@functools.lru_cache(maxsize=1)
def _library() -> Any:
    """The genai-prices package, or None when it is not installed."""
    try:
        import genai_prices
    except ImportError:
        return None
    return genai_prices


def _listed(model: str, provider: str) -> _Tariff | None:
    """What the price list says; None when it does not know the model, or is not installed."""
    library = _library()
    if library is None:
        return None
    for where in _providers(provider):
        try:
            found = library.calc_price(library.Usage(input_tokens=1, output_tokens=1), model, **where)
        except LookupError:
            continue
        except ValueError:  # a price in units that such a call says nothing about
            return None
        else:
            return _tariff(library, found)
    return None


def _providers(provider: str) -> list[dict[str, str]]:
    """Where to look, in turn: at the provider, and for hosts that nobody knows by the model's name alone."""
    if provider in UNKNOWN:
        return [{}]
    if "/" in provider or "." in provider:
        url = provider if "//" in provider else f"https://{provider}/"
        return [{"provider_api_url": url}, {}]
    return [{"provider_id": NAMES.get(provider, provider)}]


def _tariff(library: Any, found: Any) -> _Tariff | None:
    """Read the library's price of a model; None when it is no price of tokens or requests."""
    listed = found.model_price
    named = {name: getattr(listed, name, None) for name in ("input_mtok", "output_mtok", "cache_read_mtok")}
    per_thousand = getattr(listed, "requests_kcount", None)
    given = [value for value in (*named.values(), per_thousand) if value is not None]
    if not given:
        return None
    least = [None if value is None else float(getattr(value, "base", value)) for value in named.values()]
    request = float(getattr(per_thousand, "base", per_thousand or 0)) / 1_000
    price = Price(least[0] or 0.0, least[1] or 0.0, least[2], request)
    by_time = isinstance(found.model.prices, list)
    starts = [tier.start for value in given for tier in getattr(value, "tiers", ())]
    if not by_time and not starts:
        return _Tariff(price)
    exact = functools.partial(_calculated, library.Usage, found.model, found.provider)
    return _Tariff(price, exact, -1.0 if by_time else float(min(starts)))


def _calculated(make: Callable[..., Any], model: Any, provider: Any, usage: Usage) -> float:
    """What the library itself calculates, now."""
    cached = min(usage.cached_tokens, usage.input_tokens) or None
    used = make(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cache_read_tokens=cached)
    return float(model.calc_price(used, provider).total_price)
