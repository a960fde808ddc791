"""Numbers in Chinese words, on strings of digits, so that leading zeros and long fractions survive."""

from __future__ import annotations

_DIGITS = "零一二三四五六七八九"
_SCALES = ((8, "亿"), (4, "万"), (3, "千"), (2, "百"), (1, "十"))
_MOST_DIGITS = 32


def digits(number: str, *, one: str = "一") -> str:
    """Digit by digit; ``one="幺"`` as in telephone numbers. Other characters stay."""
    return "".join(one if c == "1" else _DIGITS[int(c)] if c in "0123456789" else c for c in number)


def cardinal(number: str) -> str:
    """``"1024"`` -> 一千零二十四. More than 32 digits are read one by one."""
    if not number:
        return ""
    if len(number) > _MOST_DIGITS:
        return digits(number)
    spoken = _grouped(number.lstrip("0"))
    return (spoken[1:] if spoken.startswith("一十") else spoken) or _DIGITS[0]


def _grouped(number: str) -> str:
    significant = number.lstrip("0")
    if not significant:
        return ""
    if len(significant) == 1:
        return (_DIGITS[0] if len(number) > 1 else "") + _DIGITS[int(significant)]
    zeros, scale = next((power, name) for power, name in _SCALES if power < len(significant))
    return _grouped(number[:-zeros]) + scale + _grouped(number[-zeros:])


def decimal(number: str) -> str:
    """``"3.20"`` -> 三点二零, ``".5"`` -> 零点五; of several trailing zeros one is spoken."""
    whole, point, fraction = number.partition(".")
    kept = fraction.rstrip("0") + ("0" if fraction.endswith("0") else "")
    spoken = cardinal(whole)
    return f"{spoken or _DIGITS[0]}点{digits(kept)}" if point and kept else spoken


def signed(number: str) -> str:
    """``"-2.5"`` -> 负二点五."""
    return f"负{decimal(number[1:])}" if number.startswith("-") else decimal(number)
