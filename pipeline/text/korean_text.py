"""Korean text to Hangul: numbers, dates, times, money, units, signs, Latin letters."""

from __future__ import annotations

import re

from pipeline.text.rules import apply_rules, rule

_LETTERS = {
    "a": "에이", "b": "비", "c": "시", "d": "디", "e": "이", "f": "에프", "g": "지", "h": "에이치", "i": "아이",
    "j": "제이", "k": "케이", "l": "엘", "m": "엠", "n": "엔", "o": "오", "p": "피", "q": "큐", "r": "아르",
    "s": "에스", "t": "티", "u": "유", "v": "브이", "w": "더블유", "x": "엑스", "y": "와이", "z": "제트",
}  # fmt: skip
_LATIN = rule("[A-Za-z]", lambda m: _LETTERS[m[0].lower()])
_DIGITS = "영일이삼사오육칠팔구"
_SMALL_UNITS = ("", "십", "백", "천")
_LARGE_UNITS = ("", "만", "억", "조", "경")
_NATIVE_ONES = ("", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉")
_NATIVE_TENS = ("", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔")
_NATIVE_COUNTERS = (
    "시간|시(?!간)|개|명|마리|살|대|권|잔|병|장|번|벌|켤레|송이|그루|가지|군데|사람|달(?!러)"  # with 시: o'clock
)


def normalise_as_upstream(text: str) -> str:
    """Latin letters spelled in Hangul, nothing else; digit runs too long for g2pk2 are cut."""
    return re.sub(r"[0-9]{17,}", lambda m: digits(m[0]), apply_rules(text, (_LATIN,)))


def normalise(text: str) -> str:
    """Text in Hangul and punctuation; what no rule can read is left in place."""
    return apply_rules(text, _RULES)


def digits(number: str, *, zero: str = "영") -> str:
    """Digit by digit; ``zero="공"`` as in telephone numbers."""
    return "".join(zero if c == "0" else _DIGITS[int(c)] for c in number)


def sino(number: int) -> str:
    """Sino-Korean numerals: 1234 -> 천이백삼십사."""
    if number == 0:
        return "영"
    if number >= 10 ** (4 * len(_LARGE_UNITS)):
        return digits(str(number))
    spoken = ""
    for place, unit in enumerate(_LARGE_UNITS):
        group = number // 10 ** (4 * place) % 10000
        if group:
            spoken = ("" if group == 1 and place == 1 else _group(group)) + unit + spoken
    return spoken


def _group(number: int) -> str:
    spoken = ""
    for place, unit in enumerate(_SMALL_UNITS):
        digit = number // 10**place % 10
        if digit:
            spoken = ("" if digit == 1 and place else _DIGITS[digit]) + unit + spoken
    return spoken


def native(number: int) -> str:
    """Native numerals as they stand before a counter: 21 -> 스물한; from 100 on Sino-Korean."""
    if number == 20:
        return "스무"
    return _NATIVE_TENS[number // 10] + _NATIVE_ONES[number % 10] if 0 < number < 100 else sino(number)


def _decimal(match: re.Match[str]) -> str:
    return f"{sino(int(match[1]))} 점 {digits(match[2])}"


def _telephone(match: re.Match[str]) -> str:
    return ", ".join(digits(part, zero="공") for part in re.split("[- ]", match[0]))


_CURRENCIES = {"$": "달러", "₩": "원", "￦": "원", "€": "유로", "¥": "엔", "￥": "위안", "£": "파운드"}
_CURRENCY = "|".join(map(re.escape, _CURRENCIES))
_UNITS = {
    "km/h": "킬로미터 퍼 아워", "km": "킬로미터", "cm": "센티미터", "mm": "밀리미터", "m²": "제곱미터", "m": "미터",
    "kg": "킬로그램", "mg": "밀리그램", "g": "그램", "L": "리터", "ml": "밀리리터", "mL": "밀리리터", "℃": "도",
    "°C": "도", "°": "도", "GB": "기가바이트", "MB": "메가바이트", "kHz": "킬로헤르츠", "Hz": "헤르츠",
}  # fmt: skip
_UNIT = "|".join(re.escape(unit) for unit in sorted(_UNITS, key=len, reverse=True))
_SIGNS = {
    "%": " 퍼센트",
    "&": " 앤드 ",
    "+": " 더하기 ",
    "=": " 는 ",
    "×": " 곱하기 ",
    "÷": " 나누기 ",
    "@": " 골뱅이 ",
}

_RULES = (
    rule("[\uff01-\uff5e]", lambda m: chr(ord(m[0]) - 0xFEE0)),
    rule(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", ""),
    rule(r"(?<![0-9-])0[0-9]{1,2}[- ][0-9]{3,4}[- ][0-9]{4}(?![0-9-])", _telephone),
    rule(
        r"(?<![0-9])([12][0-9]{3})([-/.])(0?[1-9]|1[012])\2(0?[1-9]|[12][0-9]|3[01])(?![0-9])",
        lambda m: f"{m[1]}년 {int(m[3])}월 {int(m[4])}일",
    ),
    rule(
        r"(?<![0-9])([01]?[0-9]|2[0-4]):([0-5][0-9])(?![0-9:])",
        lambda m: (
            f"{native(int(m[1])) if 0 < int(m[1]) < 13 else sino(int(m[1]))} 시"
            + (f" {sino(int(m[2]))} 분" if int(m[2]) else "")
        ),
    ),
    rule(
        rf"({_CURRENCY}) ?([0-9]+(?:\.[0-9]+)?)([만억조천]*)(?: ?(?:{'|'.join(_CURRENCIES.values())}))?",  # ₩5원
        lambda m: f"{m[2]}{m[3]}{_CURRENCIES[m[1]]}",
    ),
    rule(r"(?<![0-9/])([0-9]{1,4})/([0-9]{1,4})(?![0-9/])", lambda m: f"{sino(int(m[2]))}분의 {sino(int(m[1]))}"),
    rule(rf"(?<=[0-9]) ?({_UNIT})(?![A-Za-z0-9²])", lambda m: f" {_UNITS[m[1]]}"),
    rule(r"(?<=[0-9]) ?[~～–] ?(?=[0-9])|(?<=[0-9])-(?=[0-9])", "에서 "),
    rule(r"(?<![0-9A-Za-z가-힣])[-−](?=[0-9])", "마이너스 "),
    rule("6월", "유월"),
    rule("10월", "시월"),
    rule(r"([0-9]+)\.([0-9]+)", _decimal),
    rule("|".join(map(re.escape, _SIGNS)), lambda m: _SIGNS[m[0]]),
    rule(rf"(?<![0-9])([0-9]{{1,2}})(?= ?(?:{_NATIVE_COUNTERS}))", lambda m: native(int(m[1]))),
    rule(r"(?<![0-9])0[0-9]+", lambda m: digits(m[0], zero="공")),
    rule(r"[0-9]{1,24}", lambda m: sino(int(m[0]))),
    _LATIN,
    rule(r"\.{2,}", "…"),
    rule(r"[“”‘’\"'()\[\]{}<>《》「」『』]", " "),
    rule(r"\s+", " "),
    rule(r"^ | $| (?=[!?…,.])", ""),
    rule(r"([!?…,.\-])[!?…,.\- ]*[!?…,.\-]", lambda m: next(c for c in "?!….,-" if c in m[0])),
)
