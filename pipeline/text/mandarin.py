"""Mandarin to initials and toned finals: jieba's words, pypinyin's readings, tone sandhi, erhua, syllable spelling.

The same sequence as upstream's with G2PW switched off (docs/text.md); G2PW, a net for characters with several
readings, would have to be downloaded.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from pipeline.text.mandarin_text import normalise
from pipeline.text.mandarin_tones import Word, change_tones, join_words, word_lists
from pipeline.text.packages import require
from pipeline.text.symbols import PAUSES, symbol_table


def read_mandarin(text: str, *, as_upstream: bool = False) -> tuple[str, list[str], list[int], tuple[str, ...]]:
    """Normalised text, phones, phones per character, and the characters that could not be read.

    ``^`` is a long pause (phone SP3). Upstream also reads ``￥`` as a pause (SP2) and, where one of the two is present,
    turns every comma of the sentence into that pause.
    """
    if as_upstream:
        return _read_as_upstream(text)
    return _read_with_pauses(text)


def _read_as_upstream(text: str) -> tuple[str, list[str], list[int], tuple[str, ...]]:
    pause = next((pause for sign, pause in (("￥", "SP2"), ("^", "SP3")) if sign in text), ",")
    normalised, unknown = normalise(re.sub("￥" if pause == "SP2" else r"\^", ",", text), as_upstream=True)
    phones, counts, unreadable = _phones(normalised)
    return normalised, [pause if phone == "," else phone for phone in phones], counts, (*unknown, *unreadable)


def _read_with_pauses(text: str) -> tuple[str, list[str], list[int], tuple[str, ...]]:
    normalised = ""
    phones: list[str] = []
    counts: list[int] = []
    unknown: dict[str, None] = {}
    for place, part in enumerate(text.split("^")):
        if place:
            normalised += ","
            phones.append("SP3")
            counts.append(1)
        spoken, strange = normalise(part)
        spoken = spoken.lstrip(",") if place else spoken
        part_phones, part_counts, unreadable = _phones(spoken)
        normalised += "".join(c for c in spoken if c not in unreadable)
        phones += part_phones
        counts += part_counts
        unknown.update(dict.fromkeys((*strange, *unreadable)))
    return normalised, phones, counts, tuple(unknown)


def _phones(normalised: str) -> tuple[list[str], list[int], list[str]]:
    """Phones, phones per character, and characters without a reading (they get no phone and no count)."""
    phones: list[str] = []
    counts: list[int] = []
    unreadable: list[str] = []
    for sentence in re.split(r"(?<=[!?…,.\-])", normalised):
        for character, initial, final in _syllables(sentence):
            if character in PAUSES:
                spelled: tuple[str, ...] = (character,)
            else:
                spelled = spell_syllable(initial, final)
            if not spelled:
                unreadable.append(character)
                continue
            phones.extend(spelled)
            counts.append(len(spelled))
    return phones, counts, unreadable


def _syllables(sentence: str) -> list[tuple[str, str, str]]:
    """(character, initial, toned final) after all tone rules."""
    if not sentence:
        return []
    words = [Word(pair.word, pair.flag) for pair in _tagger().lcut(sentence)]
    syllables: list[tuple[str, str, str]] = []
    for word in join_words(words, _finals):
        initials, finals = _initials(word.text), _finals(word.text)
        if len(finals) != len(word.text) or "" in finals:  # punctuation next to it, or a character without a reading
            initials = [reading for c in word.text for reading in _initials(c)]
            finals = [reading for c in word.text for reading in _finals(c)]
        finals = change_tones(word, finals, _search_words)
        syllables.extend(zip(word.text, initials, _join_er_tone(word, finals), strict=True))
    return syllables


def _join_er_tone(word: Word, finals: list[str]) -> list[str]:
    """儿 at the end of a word takes the tone before it, unless it means child."""
    lists = word_lists()
    text = word.text
    if not text.endswith("儿"):
        return finals
    if finals[-1] == "er1":
        finals[-1] = "er2"
    if text not in lists.erhua and (text in lists.er or word.part in {"a", "j", "nr"}):
        return finals
    if finals[-1] in {"er2", "er5"} and text[-2:] not in lists.er and len(finals) > 1:
        finals[-1] = "er" + finals[-2][-1]
    return finals


# --- spelling ----------------------------------------------------------------------------------------
_WITHOUT_INITIAL = {
    "a": "AA a", "ai": "AA ai", "an": "AA an", "ang": "AA ang", "ao": "AA ao",
    "e": "EE e", "ei": "EE ei", "en": "EE en", "eng": "EE eng", "er": "EE er", "o": "OO o", "ou": "OO ou",
    "i": "y i", "ia": "y a", "ie": "y E", "iao": "y ao", "iou": "y ou", "ian": "y En", "in": "y in", "iang": "y ang",
    "ing": "y ing", "iong": "y ong", "io": "y o",
    "u": "w u", "ua": "w a", "uo": "w o", "uai": "w ai", "uei": "w ei", "uan": "w an", "uen": "w en", "uang": "w ang",
    "ueng": "w eng", "v": "y v", "ve": "y ve", "van": "y van", "vn": "y vn",
    "ê": "EE ei", "n": "EE en", "ng": "EE en", "m": "m u",
}  # fmt: skip
"""Syllables that begin with a vowel; the last line is for interjections, which upstream cannot read."""

_CONTRACTED = {"uei": "ui", "iou": "iu", "uen": "un", "m": "eng", "ng": "eng"}


def spell_syllable(initial: str, toned_final: str) -> tuple[str, ...]:
    """``("zh", "i1")`` -> ``("zh", "ir1")``: two phones of the table, or nothing for what is not a syllable."""
    final, tone = toned_final[:-1], toned_final[-1:]
    if not final or tone not in "12345":
        return ()
    if not initial:
        initial, _, final = _WITHOUT_INITIAL.get(final, "").partition(" ")
    elif final == "i" and initial in ("z", "c", "s"):
        final = "i0"
    elif final == "i" and initial in ("zh", "ch", "sh", "r"):
        final = "ir"
    else:
        final = _CONTRACTED.get(final, final)
    spelled = (initial, final + tone)
    return spelled if all(phone in _known() for phone in spelled) else ()


@cache
def _known() -> frozenset[str]:
    return frozenset(symbol_table("v2"))


# --- libraries ---------------------------------------------------------------------------------------
@cache
def _tagger() -> Any:
    """jieba with parts of speech. Its dictionary is read here: jieba would cache it in a world-writable folder."""
    jieba = require("jieba", "zh")
    tokenizer = jieba.dt
    if not tokenizer.initialized:
        tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
        tokenizer.initialized = True
    return require("jieba.posseg", "zh")


def _search_words(word: str) -> list[str]:
    words: list[str] = require("jieba", "zh").lcut_for_search(word)
    return words


def _initials(word: str) -> list[str]:
    return _pinyin(word, "INITIALS")


def _finals(word: str) -> list[str]:
    return _pinyin(word, "FINALS_TONE3")


def _pinyin(word: str, style: str) -> list[str]:
    pypinyin = require("pypinyin", "zh")
    readings: list[str] = pypinyin.lazy_pinyin(word, style=pypinyin.Style[style], neutral_tone_with_five=True)
    return readings
