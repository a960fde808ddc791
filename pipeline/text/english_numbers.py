"""Numbers in English words: cardinals, ordinals, years, digits."""

from __future__ import annotations

_UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ("", "", *["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"])
_SCALES = (
    "",
    *[
        "thousand",
        "million",
        "billion",
        "trillion",
        "quadrillion",
        "quintillion",
        "sextillion",
        "septillion",
        "octillion",
        "nonillion",
        "decillion",
    ],
)
_LARGEST = 10 ** (3 * len(_SCALES))
_IRREGULAR_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def cardinal(number: int, *, conjunction: bool = False) -> str:
    """``1234`` -> ``one thousand, two hundred thirty-four`` (with ``conjunction``: ``two hundred and thirty-four``).

    Numbers of 37 digits and more are read digit by digit.
    """
    if number < 0:
        return "minus " + cardinal(-number, conjunction=conjunction)
    if number >= _LARGEST:
        return digits(str(number))
    groups: list[str] = []
    last = number % 1000
    rest, scale = number, 0
    while rest:
        rest, group = divmod(rest, 1000)
        if group:
            groups.append(f"{_hundreds(group, conjunction)} {_SCALES[scale]}".strip())
        scale += 1
    if not groups:
        return _UNITS[0]
    words = ", ".join(reversed(groups[1:]))
    if not words:
        return groups[0]
    if 0 < last < 100:  # "one thousand and one", "one thousand one"
        return f"{words}{' and ' if conjunction else ' '}{groups[0]}"
    return f"{words}, {groups[0]}"


def _hundreds(number: int, conjunction: bool) -> str:
    hundreds, rest = divmod(number, 100)
    words = [f"{_UNITS[hundreds]} hundred"] if hundreds else []
    if rest:
        words.append(_below_hundred(rest))
    return (" and " if conjunction else " ").join(words)


def _below_hundred(number: int) -> str:
    if number < 20:
        return _UNITS[number]
    tens, unit = divmod(number, 10)
    return _TENS[tens] + (f"-{_UNITS[unit]}" if unit else "")


def ordinal(number: int) -> str:
    """``21`` -> ``twenty-first``."""
    words = cardinal(number, conjunction=True)
    start = max(words.rfind(" "), words.rfind("-")) + 1
    last = words[start:]
    if last in _IRREGULAR_ORDINALS:
        last = _IRREGULAR_ORDINALS[last]
    elif last.endswith("y"):
        last = last[:-1] + "ieth"
    else:
        last += "th"
    return words[:start] + last


def year(number: int) -> str:
    """``1905`` -> ``nineteen oh five``, ``2024`` -> ``twenty twenty-four``; other numbers are cardinals."""
    if not 1000 < number < 3000:
        return cardinal(number)
    if number == 2000:
        return "two thousand"
    if 2000 < number < 2010:
        return f"two thousand {_UNITS[number % 100]}"
    century, rest = divmod(number, 100)
    if rest == 0:
        return f"{_below_hundred(century)} hundred"
    return f"{_below_hundred(century)} {_below_hundred(rest) if rest > 9 else f'oh {_UNITS[rest]}'}"


def digits(number: str, *, zero: str = "zero") -> str:
    """``305`` -> ``three zero five``; anything that is not a digit ends a group with a comma."""
    words = [(zero if c == "0" else _UNITS[int(c)]) if c.isascii() and c.isdigit() else "," for c in number]
    return " ".join(words).replace(" ,", ",").strip(", ")
