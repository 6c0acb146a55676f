"""How a number is written in a report: one place, so that text, tables and figures agree."""

from __future__ import annotations

import math

from epc.compiler.contract.logic import Operator, compare

MINUS = "−"
MOST_DIGITS = 12
"""Digits after which a value counts as equal to the threshold it is printed beside."""


def unknown(reason: str | None) -> str:
    """What stands in a cell that has no value: never nothing."""
    return f"unknown: {reason or 'not recorded'}"


def digits_for(scale: tuple[float, float]) -> int:
    """Decimals of a quantity on a scale: three up to a span of 1, else two."""
    return 3 if scale[1] - scale[0] <= 1 else 2


def is_share(scale: tuple[float, float]) -> bool:
    """True where a value is also worth reading as a percentage."""
    return scale == (0.0, 1.0)


def fixed(value: float, digits: int, *, sign: bool = False) -> str:
    """`value` with a fixed number of decimals, a true minus sign, and no negative zero."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        return text.lstrip("-")
    text = text.replace("-", MINUS)
    return f"+{text}" if sign and value > 0 else text


def compact(value: float) -> str:
    """A constant as briefly as it can be read back: 0.15, −0.1, 5."""
    return f"{value:.12g}".replace("-", MINUS)


def level(value: float, scale: tuple[float, float]) -> str:
    """A mean or rate: `0.349 (34.9%)`."""
    text = fixed(value, digits_for(scale))
    return f"{text} ({fixed(100 * value, 1)}%)" if is_share(scale) else text


def difference(value: float, scale: tuple[float, float]) -> str:
    """A treatment - control difference: `+0.328 (+32.8 pp)`."""
    text = fixed(value, digits_for(scale), sign=True)
    return f"{text} ({fixed(100 * value, 1, sign=True)} pp)" if is_share(scale) else text


def interval(low: float, high: float, scale: tuple[float, float], *, sign: bool) -> str:
    """Both ends of an interval: `[+0.214, +0.442]`."""
    digits = digits_for(scale)
    return f"[{fixed(low, digits, sign=sign)}, {fixed(high, digits, sign=sign)}]"


def operator(symbol: str) -> str:
    """A comparison as it is printed: ≤ for <=."""
    return symbol.replace("<=", "≤").replace(">=", "≥")


def percent(share: float) -> str:
    """A share with one decimal: `12.5%`."""
    return f"{fixed(100 * share, 1)}%"


def rate(share: float | None) -> str:
    """A share of completions: `12.5%`, unknown where there was none."""
    return unknown("no completion") if share is None else percent(share)


def estimate(value: float, scale: tuple[float, float], *, contrast: bool) -> str:
    """What an analysis estimates: a difference of two arms, or the level of one."""
    return difference(value, scale) if contrast else level(value, scale)


def percent_level(share: float) -> str:
    """A confidence level: .95 as `95%`, .975 as `97.5%`."""
    return f"{compact(round(100 * share, 6))}%"


def p_value(p: float, level: float | None = None) -> str:
    """`.0249`, `< .0001`, `1`: four decimals and no leading zero, as statistics journals print it.

    With the level that it is compared to, as many more as the comparison needs: .02499, not .0250, beside .025.
    """
    if p < 0.0001 and (p == 0 or level is None or level >= 0.0001):
        return "< .0001"
    least = 4 if p >= 0.0001 else -math.floor(math.log10(p))
    text = f"{p:.{least if level is None else deciding_digits(p, '<', level, least)}f}"
    return "1" if float(text) == 1 else text.removeprefix("0")


def p_phrase(p: float, level: float | None = None) -> str:
    """`p = .0249` or `p < .0001`."""
    text = p_value(p, level)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def deciding_digits(value: float, operator: Operator, constant: float, digits: int) -> int:
    """Decimals, at least `digits`, with which the printed value compares to the constant as the value does.

    With three decimals 0.14996 would be printed as 0.150 beside a threshold of 0.15 that it fails.
    """
    truth = compare(value, operator, constant)
    for more in range(digits, MOST_DIGITS):
        if compare(float(f"{value:.{more}f}"), operator, constant) == truth:
            return more
    return MOST_DIGITS


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 unit`, `24 units`, `6,000 rows`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def seconds(value: float) -> str:
    """`< 0.1 s`, `8.4 s`, `3 min 20 s`, `2 h 05 min`."""
    if 0 < value < 0.1:
        return "< 0.1 s"
    if value < 100:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(value / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
