"""English text to words that can be looked up: numbers, money, dates, times, units, symbols, abbreviations.

Two tables of rules, applied in order. ``OUR_RULES`` is the default. ``UPSTREAM_RULES`` is what GPT-SoVITS
does (docs/text.md), for comparisons with it; docs/text.md lists where the two differ and why.
"""

from __future__ import annotations

import re
import unicodedata

from pipeline.text.english_numbers import cardinal, digits, ordinal, year
from pipeline.text.rules import apply_rules, rule


def normalise(text: str, *, as_upstream: bool = False) -> tuple[str, tuple[str, ...]]:
    """Text in letters, spaces and ``' . , ? ! -``, and the characters that no rule could read."""
    text = apply_rules(text, UPSTREAM_RULES if as_upstream else OUR_RULES)
    text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    text = text.replace("%", " percent")
    text, unknown = _keep_readable(text)
    return apply_rules(text, UPSTREAM_ENDING if as_upstream else OUR_ENDING), unknown


_READABLE = re.compile(r"[ A-Za-z'.,?!\-]")
_SILENT = frozenset("^`|~<>*_/\\")
"""Markup without a sound of its own. Brackets, quotes and other punctuation are silent by their Unicode category."""


def _keep_readable(text: str) -> tuple[str, tuple[str, ...]]:
    unknown = dict.fromkeys(
        c for c in text if not _READABLE.match(c) and c not in _SILENT and unicodedata.category(c)[0] in "LNSM"
    )
    return "".join(c for c in text if _READABLE.match(c)), tuple(unknown)


# --- money --------------------------------------------------------------------------------------------------
_MONEY = {  # sign: unit, units, hundredth, hundredths
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
    "￥": ("yuan", "yuan", "fen", "fen"),
    "₩": ("won", "won", "jeon", "jeon"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
}
_SCALE_WORDS = r"(?:thousand|million|billion|trillion)"


def _money(match: re.Match[str]) -> str:
    """Money with its numbers still in digits: ``$3.50`` -> ``3 dollars and 50 cents``."""
    unit, units, hundredth, hundredths = _MONEY[match["sign"]]
    amount = match["amount"].replace(",", "")
    if scale := match.groupdict().get("scale"):
        return f"{amount} {scale} {units}"
    whole, _, fraction = amount.partition(".")
    if "." in fraction:
        return f"{amount} {units}"
    large, small = int(whole or 0), int(fraction.ljust(2, "0")) if fraction else 0
    parts = []
    if large:
        parts.append(f"{large} {unit if large == 1 else units}")
    if small:
        parts.append(f"{small} {hundredth if small == 1 else hundredths}")
    return " and ".join(parts) or f"zero {units}"


def _money_in_words(match: re.Match[str]) -> str:
    spoken = re.sub(r"\.([0-9]+)", lambda m: f" point {' '.join(m[1])}", _money(match))
    return re.sub(r"[0-9]+", lambda number: cardinal(int(number[0])), spoken)


# --- numbers ------------------------------------------------------------------------------------------------
def _fraction(match: re.Match[str]) -> str:
    top, bottom = (int(part) for part in match[0].split("/"))
    words = cardinal(top, conjunction=True)
    if bottom == 1:
        return words
    if bottom == 2:
        return f"{words} {'half' if top == 1 else 'halves'}"
    return f"{words} {ordinal(bottom)}{'s' if top > 1 else ''}"


def _plain_number(match: re.Match[str]) -> str:
    number = match[0]
    if len(number) > 8 or (len(number) > 1 and number[0] == "0"):  # 007, 0451, account numbers: codes, not counts
        return digits(number)
    return year(int(number))


# --- times and dates ----------------------------------------------------------------------------------------
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]


def _clock(hour: int, minute: int) -> str:
    """Upstream's reading: always with a.m. or p.m."""
    half = "a.m." if hour < 12 else "p.m."
    spoken = cardinal(minute) if minute else "o'clock"
    return f"{cardinal(hour - 12 if hour > 12 else hour)} {spoken} {half}"


def _time(match: re.Match[str]) -> str:
    """Morning or afternoon is said where the text says it or the hour shows it: 3:30 stays "three thirty"."""
    hour, minute = int(match["hour"]), int(match["minute"])
    half = " ".join((match["half"] or "").replace(" ", "").upper())
    if not half and (hour == 0 or hour > 12):
        half = "A M" if hour in (0, 24) else "P M"
    hour = (hour - 1) % 12 + 1
    minutes = cardinal(minute) if minute > 9 else f"oh {cardinal(minute)}" if minute else "" if half else "o'clock"
    seconds = f"and {cardinal(int(match['second']))} seconds" if match["second"] else ""
    return " ".join(part for part in (cardinal(hour), minutes, seconds, half) if part)


def _iso_date(match: re.Match[str]) -> str:
    month, day = int(match["month"]), int(match["day"])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0]
    return f"{_MONTHS[month - 1]} {ordinal(day)}, {year(int(match['year']))}"


def _slashed_date(match: re.Match[str]) -> str:
    """Month first, as in the United States, unless the first number cannot be a month."""
    first, second = int(match[1]), int(match[2])
    month, day = (first, second) if first <= 12 else (second, first)
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0]
    return f"{_MONTHS[month - 1]} {ordinal(day)}, {year(int(match[3]))}"


def _month_and_day(match: re.Match[str]) -> str:
    """Nov. 20 -> November twentieth; what is not a day of a month stays a number."""
    day = int(match[2])
    return f"{match[1]} {ordinal(day) if 1 <= day <= 31 else match[2]}"


def _month(name: str) -> str:
    """Its whole name."""
    return next(month for month in _MONTHS if month.startswith(name[:3]))


def _decade(match: re.Match[str]) -> str:
    words = year(int(match[1])) if len(match[1]) > 2 else cardinal(int(match[1]))
    return (words[:-1] + "ies" if words.endswith("y") else words + "s") if words[-1] != "x" else words + "es"


# --- units --------------------------------------------------------------------------------------------------
_UNITS = {
    "km/h": ("kilometer per hour", "kilometers per hour"),
    "m/s": ("meter per second", "meters per second"),
    "mph": ("mile per hour", "miles per hour"),
    "km²": ("square kilometer", "square kilometers"),
    "m²": ("square meter", "square meters"),
    "m³": ("cubic meter", "cubic meters"),
    "km": ("kilometer", "kilometers"),
    "cm": ("centimeter", "centimeters"),
    "mm": ("millimeter", "millimeters"),
    "m": ("meter", "meters"),
    "ft": ("foot", "feet"),
    "lb": ("pound", "pounds"),
    "lbs": ("pound", "pounds"),
    "oz": ("ounce", "ounces"),
    "kg": ("kilogram", "kilograms"),
    "mg": ("milligram", "milligrams"),
    "g": ("gram", "grams"),
    "L": ("liter", "liters"),
    "ml": ("milliliter", "milliliters"),
    "tbsp": ("tablespoon", "tablespoons"),
    "tsp": ("teaspoon", "teaspoons"),
    "h": ("hour", "hours"),
    "min": ("minute", "minutes"),
    "ms": ("millisecond", "milliseconds"),
    "s": ("second", "seconds"),
    "°C": ("degree Celsius", "degrees Celsius"),
    "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "°": ("degree", "degrees"),
    "kHz": ("kilohertz", "kilohertz"),
    "MHz": ("megahertz", "megahertz"),
    "GHz": ("gigahertz", "gigahertz"),
    "Hz": ("hertz", "hertz"),
    "kB": ("kilobyte", "kilobytes"),
    "MB": ("megabyte", "megabytes"),
    "GB": ("gigabyte", "gigabytes"),
    "TB": ("terabyte", "terabytes"),
    "dB": ("decibel", "decibels"),
    "kW": ("kilowatt", "kilowatts"),
    "W": ("watt", "watts"),
    "V": ("volt", "volts"),
}
_LETTER_SCALES = {"k": "thousand", "m": "million", "bn": "billion", "tn": "trillion"}  # £3m
_UNIT_NAMES = "|".join(re.escape(unit) for unit in sorted(_UNITS, key=len, reverse=True))


def _unit(match: re.Match[str]) -> str:
    return f"{match[1]} {_UNITS[match[2]][0 if match[1] == '1' else 1]}"


# --- the default rules --------------------------------------------------------------------------------------
_SIGNS = {
    "&": " and ",
    "@": " at ",
    "=": " equals ",
    "×": " times ",
    "÷": " divided by ",
    "±": " plus or minus ",
    "©": " copyright ",
    "§": " section ",
    "√": " square root of ",
    "π": " pi ",
    "μ": " micro ",
    "≈": " about ",
    "≤": " less than or equal to ",
    "≥": " greater than or equal to ",
}
_ABBREVIATIONS = {
    "mr": "mister", "mrs": "missus", "ms": "miss", "dr": "doctor", "prof": "professor", "st": "saint", "jr": "junior",
    "sr": "senior", "vs": "versus", "etc": "et cetera", "approx": "approximately", "dept": "department", "mt": "mount",
}  # fmt: skip
_TOP_LEVEL = r"(?:com|org|net|edu|gov|io|ai|dev|app|info|co|uk|de|fr|jp|cn|kr|hk|eu|us)"


def _shouted(match: re.Match[str]) -> str:
    """A whole text in capitals is text, not initials (LibriSpeech transcripts are written so)."""
    return match[0].lower() if re.search(r"[A-Z]{4}", match[0]) and " " in match[0].strip() else match[0]


OUR_RULES = (
    rule(r"[\uFF01-\uFF5E]", lambda m: chr(ord(m[0]) - 0xFEE0)),  # full-width forms
    rule(r"[’‘‛ʼ`´]", "'"),
    rule(r"[“”„«»\"「」『』]", " "),
    rule(r"。", "."),
    rule(r"[、]", ","),
    rule(r"…|\.{2,}", ". "),
    rule(r"^[^a-z]*$", _shouted),
    rule(r"\b([\w.+-]{1,64})@([\w-]{1,64}(?:\.[\w-]{1,64}){1,8})", lambda m: f"{m[1]} at {m[2].replace('.', ' dot ')}"),
    rule(r"\bhttps?://", " "),
    rule(r"\bwww\.", " www dot "),
    rule(r"\bPh\. ?D\.?", "P H D"),
    rule(rf"(?<=[A-Za-z0-9])\.(?={_TOP_LEVEL}\b)", " dot ", ignore_case=True),
    rule(r"\b(i\.e|e\.g)\.,?", lambda m: "that is," if m[1].lower() == "i.e" else "for example,", ignore_case=True),
    rule(
        rf"\b({'|'.join(_ABBREVIATIONS)})\.(?=[\s,]|$)",
        lambda m: _ABBREVIATIONS[m[1].lower()] + ("." if m.end() == len(m.string) else ""),
        ignore_case=True,
    ),
    rule(r"\b[Nn]o\. ?(?=[0-9])|#(?=[0-9])", "number "),
    rule(r"\b(Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.? (?=[0-9])", lambda m: _month(m[1]) + " "),
    rule(rf"\b({'|'.join(_MONTHS)}) ([0-9]{{1,2}})(?=,? [12][0-9]{{3}}\b|[,.;:!?)]|$| (?:at|to|and|or|in|on)\b)",
         _month_and_day),
    rule(r"\b((?:[A-Za-z]\.){2,})(?=(\s*$)?)", lambda m: " ".join(m[1].replace(".", "").upper())
          + ("." if m[2] is not None else "")),
    rule(r"\b(?P<year>[12][0-9]{3})-(?P<month>[0-9]{1,2})-(?P<day>[0-9]{1,2})\b", _iso_date),
    rule(r"(?<![0-9/])([0-9]{1,2})/([0-9]{1,2})/([12][0-9]{3})(?![0-9/])", _slashed_date),
    rule(r"(?<![\w-])\+?(?:[0-9]{1,3}[ -])?(?:\([0-9]{3}\) ?|[0-9]{3}[ -])[0-9]{3}[ -][0-9]{4}\b",
          lambda m: digits(m[0].strip("+"), zero="oh")),
    rule(r"(?m)^\s*([0-9]{1,3})[.)] (?=\S)", lambda m: f"{ordinal(int(m[1]))}, "),
    rule(
        r"\b(?P<hour>[01]?[0-9]|2[0-4]):(?P<minute>[0-5][0-9])(?::(?P<second>[0-5][0-9]))?"
        r"(?: ?(?P<half>[ap] ?m|[AP] ?M)\b)?(?![0-9:])", _time),
    rule(r"\b(?P<hour>1[0-2]|[1-9])(?P<minute>)(?P<second>) ?(?P<half>am|pm|AM|PM|a m|p m|A M|P M)\b",
          lambda m: f"{cardinal(int(m['hour']))} {' '.join(m['half'].replace(' ', '').upper())}"),
    rule(r"(?<=[$£€¥￥₩₹])([0-9][0-9.,]*) ?(k|m|bn|tn)\b", lambda m: f"{m[1]} {_LETTER_SCALES[m[2]]}"),
    rule(rf"(?P<sign>[$£€¥￥₩₹]) ?(?P<amount>[0-9][0-9,]*(?:\.[0-9]+)?)(?: ?(?P<scale>{_SCALE_WORDS})\b)?",
          _money_in_words),
    rule(r"(?P<amount>\b[0-9][0-9,]*(?:\.[0-9]+)?) ?(?P<sign>[$£€¥￥₩₹])(?P<scale>)", _money_in_words),
    rule(r"\b([12][0-9]{2}0|[2-9]0)'?s\b", _decade),
    rule(r"\b([0-9]{1,3}(?:,[0-9]{3})+)(?![0-9.])", lambda m: cardinal(int(m[1].replace(",", "")))),
    rule(r"(?<=[0-9]),(?=[0-9]{3})", ""),
    rule(rf"\b([0-9]+(?:\.[0-9]+)?) ?({_UNIT_NAMES})(?![A-Za-z0-9²³])", _unit),
    rule(r"(?<=[0-9]) ?[–—-] ?(?=[0-9])", " to "),
    rule(r"(?<![\w-])[-−](?=[0-9.])", "minus "),
    rule(r"(?<=[\w)]) [-−] (?=[0-9])|(?<=[0-9])\s*−\s*(?=[0-9])", " minus "),
    rule(r"[⁰¹²³⁴-⁹½¼¾]", lambda m: " " + unicodedata.normalize("NFKC", m[0]).replace("\N{FRACTION SLASH}", "/")),
    rule(r"\b[0-9]{1,9}/[0-9]{1,9}\b", _fraction),
    rule(r"(?<=[A-Za-z])-(?=[0-9])|(?<=[0-9])-(?=[A-Za-z])", " "),
    rule(r"\+", " plus "),
    rule("|".join(map(re.escape, _SIGNS)), lambda m: _SIGNS[m[0]]),
    rule(r"\s+-+\s+|--+|[–—―]", ", "),
    rule(r"[()\[\]{};]|:(?![0-9])|(?<![0-9]):", ", "),
    rule(r"[/:_]", " "),
    rule(r"(?<![0-9.])\.([0-9]+)", lambda m: f"point {' '.join(m[1])}"),
    rule(r"([0-9]+)\.([0-9]+)", lambda m: f"{cardinal(int(m[1]))} point {' '.join(m[2])}"),
    rule(r"\b([0-9]{1,9})(?:st|nd|rd|th)\b", lambda m: f" {ordinal(int(m[1]))} ", ignore_case=True),
    rule(r"[0-9]{1,36}", lambda m: f" {_plain_number(m)} "),
)  # fmt: skip

OUR_ENDING = (
    rule(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])(?![A-Z]s\b)", " "),  # camelCase, HTTPServer
    rule(r"(?<![A-Za-z'])'|'(?![A-Za-z])", ""),  # quotation marks, and the silent apostrophe of "dogs'"
    rule(r"\s+", " "),
    rule(r" ?([!?.,\-])(?: ?[!?.,\-])+", lambda m: _strongest(m[0])),
    rule(r" (?=[!?.,])", ""),
    rule(r"^[ ,]+|\s+$", ""),
)


def _strongest(run: str) -> str:
    """A run of punctuation becomes its strongest mark: what was said last decides how the sentence ends."""
    return next((mark for mark in "?!.,-" if mark in run), "")


# --- upstream's rules ---------------------------------------------------------------------------------------
_POWERS = "⁰¹²³⁴⁵⁶⁷⁸⁹ˣʸⁿ"
_OPERATORS = {"+": " plus ", "-": " minus ", "×": " times ", "÷": " divided by ", "=": " Equals "}
_UPSTREAM_UNITS = r"(m|km|ft|L|tbsp|tsp|h|min|s|°C|°F)"
_AMOUNT = r"(?P<amount>[0-9.,]*[0-9])"


def _upstream_unit(match: re.Match[str]) -> str:
    number, fraction, unit = match[1], match[2] or "", match[3]
    singular, plural = ("feet", "feet") if unit == "ft" else _UNITS[unit]
    return f"{number}{fraction} {(singular if not fraction and int(number) == 1 else plural).lower()}"


def _suffixed(number: str) -> str:
    teen = len(number) > 1 and number[-2] == "1"
    return number + ("th" if teen else {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th"))


UPSTREAM_RULES = (
    rule(r"[。！？]", lambda m: {"。": ".", "！": "!", "？": "?"}[m[0]]),
    rule(r"\b([0-9]+)\. ", lambda m: f"{_suffixed(m[1])}, "),
    rule(
        rf"(?<=[0-9A-Za-z{_POWERS}])\s+([+\-×÷=])\s+(?=-?[0-9]|\.[0-9]|[A-Za-z])",
        lambda m: _OPERATORS[m[1]],
    ),
    rule(r"(?:^|\s+)-([0-9]+)", r"negative \1"),
    rule(r"[0-9][0-9,]+[0-9]", lambda m: m[0].replace(",", "")),
    rule(r"\b([01]?[0-9]|2[0-3]):([0-5][0-9])\b", lambda m: _clock(int(m[1]), int(m[2]))),
    rule(rf"\b([0-9]+)(\.[0-9]+)?{_UPSTREAM_UNITS}\b", _upstream_unit),
    rule(rf"(?P<sign>£){_AMOUNT}", _money),
    rule(rf"{_AMOUNT}(?P<sign>£)", _money),
    rule(rf"(?P<sign>\$){_AMOUNT}", _money),
    rule(rf"{_AMOUNT}(?P<sign>\$)", _money),
    rule(r"([0-9]+)\.(\s*[0-9]+)", lambda m: f"{m[1]} point {' '.join(m[2])}"),
    rule(r"[0-9]+/[0-9]+", _fraction),
    rule(r"([0-9]+)(?:st|nd|rd|th)", lambda m: ordinal(int(m[1]))),
    rule(r"[0-9]+", lambda m: year(int(m[0]))),
)

UPSTREAM_ENDING = (
    rule(r"i\.e\.", "that is", ignore_case=True),
    rule(r"e\.g\.", "for example", ignore_case=True),
    rule(r"(?<!^)(?<!\s)([A-Z])", r" \1"),
    rule(r"([!?…,.\-\s])[!?…,.\-]+", r"\1"),
)
