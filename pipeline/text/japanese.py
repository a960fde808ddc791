"""Japanese to romaji phones with pitch marks, out of Open JTalk's full-context labels.

``[`` is a rise and ``]`` a fall of the pitch, ``_`` a pause, ``UNK`` the border of an accent phrase: upstream writes
``#`` there, which its symbol table lacks, so ``UNK`` is what the official weights learned for it. (Kurihara,
Seiyama and Kumano 2021 describe the marks.)
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from typing import Any

from pipeline.text.japanese_text import normalise, normalise_as_upstream
from pipeline.text.packages import require
from pipeline.text.symbols import PAUSES, UNKNOWN_SYMBOL, symbol_table

_READABLE = r"A-Za-z\d\u3005\u3040-\u30ff\u4e00-\u9fff\uff11-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uff9d"
_PIECE = re.compile(f"[{_READABLE}]+|[^{_READABLE}]")
_MARKS = {
    "：": ",", "；": ",", "，": ",", "·": ",", "、": ",", "。": ".", "\n": ".", "！": "!", "？": "?",
}  # fmt: skip
_OUR_MARKS = _MARKS | {";": ",", ":": ",", "～": "…", "〜": "…", "—": "…", "―": "…"}
_ACCENT_PHRASE = UNKNOWN_SYMBOL
_LONGEST_PIECE = 400


def read_japanese(text: str, *, as_upstream: bool = False) -> tuple[str, list[str], tuple[str, ...]]:
    """Normalised text, phones, and the characters that could not be read.

    Upstream turns every mark it does not know (brackets, quotation marks) into ``UNK``; here they are silent, and
    letters without a reading are reported.
    """
    normalised = normalise_as_upstream(text) if as_upstream else normalise(text)
    known = symbol_table("v2")
    phones: list[str] = []
    unknown: dict[str, None] = {}
    for piece in _PIECE.findall(normalised.replace("％", "パーセント").lower()):
        if re.match(f"[{_READABLE}]", piece):
            spoken, unreadable = _speak(piece)
            phones.extend(phone if phone in known else UNKNOWN_SYMBOL for phone in spoken)
            unknown.update(dict.fromkeys(unreadable))
        elif as_upstream:
            mark = _MARKS.get(piece, piece)
            if mark != " ":
                phones.append(mark if mark in known else UNKNOWN_SYMBOL)
        elif (mark := _OUR_MARKS.get(piece, piece)) in PAUSES:
            phones.append(mark)
        elif unicodedata.category(piece)[0] in "LNSM":
            unknown[piece] = None
    return normalised, phones, () if as_upstream else tuple(unknown)


def _speak(piece: str) -> tuple[list[str], list[str]]:
    """Phones of text without punctuation, and its letters without a reading."""
    phones: list[str] = []
    unreadable: list[str] = []
    for start in range(0, len(piece), _LONGEST_PIECE):
        words = _library().run_frontend(piece[start : start + _LONGEST_PIECE])
        unreadable += [
            c for word in words if word["mora_size"] == 0 and word["pron"] in "*、？！" for c in word["string"]
        ]
        phones += label_phones(_library().make_label(words))
    return phones, unreadable


_CONTEXT = re.compile(
    r"-(?P<phone>[^+]*)\+"  # ...p2-p3+p4...
    r".*?/A:(?P<to_accent>-?\d+|xx)\+(?P<position>\d+|xx)\+(?P<from_end>\d+|xx)/"
    r".*?/F:(?P<moras>\d+|xx)_"
)


def label_phones(labels: list[str]) -> list[str]:
    """Phones and marks of HTS full-context labels; the silences at both ends are left out.

    /A: is the distance of a mora to the accent and its place in the accent phrase, counted from both ends; /F: the
    moras of that phrase.
    """
    contexts = [match for match in map(_CONTEXT.search, labels) if match]
    phones: list[str] = []
    for current, following in pairwise(contexts[1:]):
        phone = current["phone"]
        if phone == "pau":
            phones.append("_")
            continue
        phones.append(phone.lower() if phone in "AEIOU" else phone)  # devoiced vowels are written in capitals
        place, next_place = _number(current["position"]), _number(following["position"])
        if _number(current["from_end"]) == 1 and next_place == 1 and phone in "aeiouAEIOUNcl":
            phones.append(_ACCENT_PHRASE)
        elif _number(current["to_accent"]) == 0 and next_place == place + 1 and place != _number(current["moras"]):
            phones.append("]")
        elif place == 1 and next_place == 2:
            phones.append("[")
    return phones


def _number(value: str) -> int:
    return -50 if value == "xx" else int(value)


def _library() -> Any:
    return require("pyopenjtalk", "ja")
