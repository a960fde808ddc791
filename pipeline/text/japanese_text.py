"""Japanese text as Open JTalk reads it best: numbers, dates, times, money, units, telephone numbers."""

from __future__ import annotations

import re
import unicodedata

from pipeline.text.rules import apply_rules, rule

_DIGITS = ("ゼロ", "イチ", "ニー", "サン", "ヨン", "ゴー", "ロク", "ナナ", "ハチ", "キュー")
_CURRENCIES = {"$": "ドル", "¥": "円", "€": "ユーロ", "£": "ポンド", "₩": "ウォン"}
_CURRENCY = "|".join(map(re.escape, _CURRENCIES))
_UNITS = {
    "km/h": "キロメートル毎時", "km": "キロメートル", "cm": "センチメートル", "mm": "ミリメートル",
    "m²": "平方メートル", "m": "メートル", "kg": "キログラム", "mg": "ミリグラム", "g": "グラム", "l": "リットル",
    "L": "リットル", "ml": "ミリリットル", "mL": "ミリリットル", "℃": "度", "°C": "度", "°": "度",
    "GB": "ギガバイト", "MB": "メガバイト", "kHz": "キロヘルツ", "Hz": "ヘルツ", "%": "パーセント",
}  # fmt: skip
_UNIT = "|".join(re.escape(unit) for unit in sorted(_UNITS, key=len, reverse=True))
_SIGNS = {
    "&": "アンド", "+": "プラス", "=": "イコール", "×": "かける", "÷": "わる", "@": "アットマーク", "%": "パーセント",
    "#": "シャープ",
}  # fmt: skip


def normalise_as_upstream(text: str) -> str:
    """Runs of punctuation become their first mark; nothing else."""
    return re.sub(r"([!?…,.\-])[!?…,.\-]+", r"\1", text)


def normalise(text: str) -> str:
    """Half-width letters and digits, full-width kana, and what Open JTalk would misread written out."""
    text = "".join(unicodedata.normalize("NFKC", c) if _is_wide_form(c) else c for c in text)
    return apply_rules(unicodedata.normalize("NFC", text), _RULES)


def _is_wide_form(character: str) -> bool:
    """Full-width ASCII, half-width kana, and signs like ㌔; not ² or ½, which lose their meaning."""
    return "\uff01" <= character <= "\uffef" or "\u3200" <= character <= "\u33ff"


def _telephone(match: re.Match[str]) -> str:
    return "、".join("".join(_DIGITS[int(c)] for c in part) for part in match[0].split("-"))


_RULES = (
    rule("\u3099|\u309a", ""),
    rule(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", ""),
    rule(r"(?<![0-9-])0[0-9]{1,4}-[0-9]{1,4}-[0-9]{3,4}(?![0-9-])", _telephone),
    rule(
        r"(?<![0-9])([12][0-9]{3})([-/.])(0?[1-9]|1[012])\2(0?[1-9]|[12][0-9]|3[01])(?![0-9])",
        lambda m: f"{m[1]}年{int(m[3])}月{int(m[4])}日",
    ),
    rule(
        r"(?<![0-9])([01]?[0-9]|2[0-4]):([0-5][0-9])(?![0-9:])",
        lambda m: f"{int(m[1])}時" + (f"{int(m[2])}分" if int(m[2]) else ""),
    ),
    rule(
        rf"({_CURRENCY}) ?([0-9]+(?:\.[0-9]+)?)([万億兆]*)(?:{'|'.join(_CURRENCIES.values())})?",  # ¥5円
        lambda m: f"{m[2]}{m[3]}{_CURRENCIES[m[1]]}",
    ),
    rule(r"(?<![0-9/])([0-9]{1,4})/([0-9]{1,4})(?![0-9/])", r"\2分の\1"),
    rule(rf"(?<=[0-9])({_UNIT})(?![A-Za-z0-9²])", lambda m: _UNITS[m[1]]),
    rule(r"(?<=[0-9度%]) ?[~～〜–] ?(?=[0-9])", "から"),
    rule(r"(?<![0-9A-Za-z])[-−](?=[0-9])", "マイナス"),
    rule(r"(?<=[0-9])\.(?=[0-9])", "点"),
    rule("|".join(map(re.escape, _SIGNS)), lambda m: _SIGNS[m[0]]),
    rule(r"\.{2,}", "…"),
    rule(r"[ 　]*([!?…,.。、！？])[!?…,.。、！？ 　\-]*", lambda m: _strongest(m[0])),
)


def _strongest(run: str) -> str:
    """A run of punctuation becomes its strongest mark."""
    return next(mark for marks in ("?？", "!！", "…", "。.", "、,") for mark in marks if mark in run)
