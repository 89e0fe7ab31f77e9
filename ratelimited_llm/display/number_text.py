"""Numbers as people read them on a crowded line: short, and never wrong by their rounding."""

from __future__ import annotations

import math

__all__ = ["amount", "money", "percent", "span"]

UNITS = ("", "k", "M", "B", "T")
UNKNOWN = "?"
MINUTE, HOUR, DAY, YEAR = 60, 3_600, 86_400, 31_557_600


def amount(n: float) -> str:
    """Write a count in at most 5 characters (and a minus): "7", "488", "9.7k", "171k", "1.2M", "10M".

    Two digits below ten, three at most above; infinity is "inf", and what is no number "?".
    """
    value = _finite(n)
    if value is None or math.isinf(value):
        return UNKNOWN if value is None else "inf" if value > 0 else "-inf"
    if value < 0:
        text = amount(-value)
        return text if text == "0" else f"-{text}"
    for unit in UNITS:
        text = _two_digits(value)
        if float(text) < 1000:  # asked of the rounded number: 999,600 is 1M and not 1000k
            return text + unit
        value /= 1000
    return f"{float(n):.0e}".replace("+", "")


def span(seconds: float | None) -> str:
    """Write a duration in at most 7 characters: "0:07", "1:38", "1h11", "3d 4h", "120d", "12y"; "?" for None.

    Below an hour it is minutes:seconds. Negative counts as 0; infinite, or no number, is "?".
    """
    value = None if seconds is None else _finite(seconds)
    if value is None or math.isinf(value):
        return UNKNOWN
    value = max(0.0, value)
    # Each step asks the rounded number, so that 59.6 s is 1:00 and 3,599.6 s is 1h00.
    whole = round(value)
    if whole < HOUR:
        return f"{whole // MINUTE}:{whole % MINUTE:02d}"
    minutes = round(value / MINUTE)
    if minutes < 24 * 60:
        return f"{minutes // 60}h{minutes % 60:02d}"
    hours = round(value / HOUR)
    if hours < 100 * 24:
        return f"{hours // 24}d {hours % 24}h"
    days = round(value / DAY)
    return f"{days}d" if days < 1000 else f"{amount(value / YEAR)}y"


def money(x: float | None) -> str:
    """Write US dollars in at most 7 characters (and a minus): "$0.0004", "$0.09", "$18", "$1.2k"; "?" for None.

    Cents from one cent to ten dollars, whole dollars above, the first digit that counts below.
    """
    value = None if x is None else _finite(x)
    if value is None:
        return UNKNOWN
    if value < 0:
        return f"-{money(-value)}"
    if value == 0:
        return "$0"
    if value < 0.0001:
        return "<$.0001"
    if value < 0.01:
        digits = -math.floor(math.log10(value))
        return f"${value:.{digits}f}".rstrip("0")  # 0.0099 rounds to 0.010
    return f"${value:.2f}" if value < 9.995 else f"${amount(round(value) if value < 1000 else value)}"


def percent(part: float, whole: float) -> str:
    """Write a share in whole percent, rounded down, so that "100%" means all of it; "?" of nothing."""
    if not whole > 0 or not math.isfinite(whole) or not math.isfinite(part):
        return UNKNOWN
    return f"{min(100, max(0, math.floor(100 * part / whole)))}%"


def _two_digits(value: float) -> str:
    """9.7 below ten, 171 above, 7 for 7.0."""
    return f"{value:.1f}".removesuffix(".0") if value < 9.95 else f"{value:.0f}"


def _finite(n: float) -> float | None:
    """The number as a float, infinite when it is too large for one; None for NaN."""
    try:
        value = float(n)
    except OverflowError:
        value = math.inf if n > 0 else -math.inf
    return None if math.isnan(value) else value
