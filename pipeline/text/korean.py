"""Korean to compatibility jamo as they are pronounced: mecab-ko's parts of speech and the rules of g2pk2.

g2pk2's rule modules are used without its main module, which would ask NLTK for a download and may start pip: Latin
letters are already spelled in Hangul when the rules begin, so its English dictionary has nothing to do.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import unicodedata
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

from pipeline.text.korean_text import normalise, normalise_as_upstream
from pipeline.text.packages import package_file, require
from pipeline.text.symbols import PAUSES, symbol_table

_BLANK, _OTHER = "空", "停"
_DIVIDED = str.maketrans(
    {
        "ㅘ": "ㅗㅏ", "ㅙ": "ㅗㅐ", "ㅚ": "ㅗㅣ", "ㅝ": "ㅜㅓ", "ㅞ": "ㅜㅔ", "ㅟ": "ㅜㅣ", "ㅢ": "ㅡㅣ",
        "ㅑ": "ㅣㅏ", "ㅒ": "ㅣㅐ", "ㅕ": "ㅣㅓ", "ㅖ": "ㅣㅔ", "ㅛ": "ㅣㅗ", "ㅠ": "ㅣㅜ",
    }
)  # fmt: skip
_MARKS = {"：": ",", "；": ",", "，": ",", "·": ",", "、": ",", "。": ".", "\n": ".", "！": "!", "？": "?", " ": _BLANK}
_OUR_MARKS = _MARKS | {";": ",", ":": ",", "(": ",", ")": ","}


def read_korean(text: str, *, as_upstream: bool = False) -> tuple[str, list[str], tuple[str, ...]]:
    """Normalised text, phones, and the characters that could not be read.

    Blanks between words are the phone 空. Upstream gives every other strange character the phone 停; here it
    is reported and has no phone. A sentence that ends in a letter gets a full stop.
    """
    normalised = text if as_upstream else normalise(text)
    spelled = normalise_as_upstream(text) if as_upstream else normalised
    jamo = _jamo(pronounce(spelled))
    known = _korean_symbols()
    if as_upstream:
        return normalised, [_MARKS.get(c, c) if _MARKS.get(c, c) in known else _OTHER for c in jamo], ()
    phones: list[str] = []
    unknown: dict[str, None] = {}
    for character in jamo:
        phone = _OUR_MARKS.get(character, character)
        if phone in PAUSES or phone == _BLANK != character or (phone in known and "ㄱ" <= phone <= "ㅣ"):
            phones.append(phone)
        elif unicodedata.category(character)[0] in "LNSM":
            unknown[character] = None
    return normalised, phones, tuple(unknown)


@cache
def _korean_symbols() -> frozenset[str]:
    return frozenset(symbol_table("v2"))


def _jamo(pronounced: str) -> str:
    letters = "".join(map(_letter, require("jamo", "ko").h2j(pronounced))).translate(_DIVIDED)
    letters = re.sub("([ㅇㄹ]ㅡㄹ) ㄹ", r"\1 ㄴ", letters)  # g2pk2 writes ㄹ for the ㄴ that follows a final ㄹ here
    return re.sub(r"([\u3131-\u3163])$", r"\1.", letters)


@cache
def _letter(character: str) -> str:
    """Modern jamo as compatibility letters; archaic ones, which the library cannot convert, stay and are reported."""
    if not re.match("[\u1100-\u1112\u1161-\u1175\u11a8-\u11c2]", character):
        return character
    letter: str = require("jamo", "ko").j2hcj(character)
    return letter


# --- g2pk2 -------------------------------------------------------------------------------------------
class _Rules(NamedTuple):
    idioms: tuple[tuple[re.Pattern[str], str], ...]
    annotate: Callable[[str, Any], str]
    spell_numbers: Callable[[str], str]
    decompose: Callable[[str], str]
    special: tuple[Callable[[str], str], ...]
    table: tuple[tuple[re.Pattern[str], str], ...]
    link: tuple[Callable[[str], str], ...]
    compose: Callable[[str], str]
    tagger: Any


_SPECIAL = (
    "jyeo", "ye", "consonant_ui", "josa_ui", "vowel_ui", "jamo", "rieulgiyeok", "rieulbieub", "verb_nieun", "balb",
    "palatalize", "modifying_rieul",
)  # fmt: skip


def pronounce(text: str) -> str:
    """Hangul as it is pronounced: 같이 -> 가치."""
    rules = _rules()
    for pattern, replacement in rules.idioms:
        text = pattern.sub(replacement, text)
    letters = rules.decompose(rules.spell_numbers(rules.annotate(text, rules.tagger)))
    for function in rules.special:
        letters = function(letters)
    letters = re.sub("/[PJEB]", "", letters)
    for pattern, replacement in rules.table:
        letters = pattern.sub(replacement, letters)
    for function in rules.link:
        letters = function(letters)
    return rules.compose(letters)


@cache
def _rules() -> _Rules:
    utils, special, regular, numerals = (_submodule(name) for name in ("utils", "special", "regular", "numerals"))
    idioms = []
    for line in package_file("g2pk2", "idioms.txt", "ko").read_text(encoding="utf-8").splitlines():
        pattern, separator, replacement = line.split("#")[0].strip().partition("===")
        if separator:
            idioms.append((re.compile(pattern), replacement))
    return _Rules(
        idioms=tuple(idioms),
        annotate=utils.annotate,
        spell_numbers=numerals.convert_num,
        decompose=require("jamo", "ko").h2j,
        special=tuple(getattr(special, name) for name in _SPECIAL),
        table=tuple((re.compile(pattern), replacement) for pattern, replacement, _ in utils.parse_table()),
        link=tuple(getattr(regular, f"link{number}") for number in range(1, 5)),
        compose=utils.compose,
        tagger=require("mecab", "ko").MeCab(),
    )


def _submodule(name: str) -> ModuleType:
    """A module of g2pk2, imported while an empty stand-in takes the place of the package's own start-up code."""
    package = "g2pk2"
    if package in sys.modules:
        return require(f"{package}.{name}", "ko")
    spec = importlib.util.find_spec(package)
    stand_in = ModuleType(package)
    stand_in.__path__ = list(spec.submodule_search_locations or []) if spec else []
    sys.modules[package] = stand_in
    try:
        return require(f"{package}.{name}", "ko")
    finally:
        del sys.modules[package]
