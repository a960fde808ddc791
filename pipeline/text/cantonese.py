"""Cantonese to Jyutping initials and toned finals, each with the prefix ``Y`` that keeps them apart from Mandarin's."""

from __future__ import annotations

import re
from typing import Any

from pipeline.text.mandarin_text import normalise_cantonese
from pipeline.text.packages import require
from pipeline.text.symbols import PAUSES, UNKNOWN_SYMBOL, symbol_table

_INITIAL = re.compile(
    "(?P<initial>ng(?=a)|aa|ai|au|ap|at|ak|a|p|b|e|t|d|kw|k|gw|g|f|h|l|m|ng|n|s|w|c|z|j|ong|on|ou|oi|ok|o|uk|ung)"
    "(?P<final>[a-z]*)(?P<tone>[1-6])"
)
"""Upstream's division of a syllable. Syllables that begin with a vowel are cut after it: ``aai3`` -> aa, i3."""


def read_cantonese(text: str, *, as_upstream: bool = False) -> tuple[str, list[str], list[int], tuple[str, ...]]:
    """Normalised text, phones, phones per character, and the characters that could not be read."""
    normalised, unknown = normalise_cantonese(text, as_upstream=as_upstream)
    phones: list[str] = []
    counts: list[int] = []
    read: list[str] = []
    unreadable: list[str] = []
    for character, syllables in _library().get_jyutping_list(normalised) if normalised else []:
        spelled = [character] if character in PAUSES else spell_jyutping(syllables or "")
        if not spelled:
            unreadable.append(character)
            continue
        read.append(character)
        phones.extend(spelled)
        counts.append(len(spelled))
    return "".join(read), phones, counts, tuple(dict.fromkeys((*unknown, *unreadable)))


def spell_jyutping(syllables: str) -> list[str]:
    """``"nei5"`` -> ``["Yn", "Yei5"]``; a character may have several syllables. Nothing for what is not Jyutping."""
    known = symbol_table("v2")
    phones: list[str] = []
    for syllable in syllables.split():
        match = _INITIAL.fullmatch(syllable)
        if not match:
            return []
        initial, final = match["initial"], match["final"] or match["initial"][-1]
        pair = (f"Y{initial}", f"Y{final}{match['tone']}")
        phones.extend(phone if phone in known else UNKNOWN_SYMBOL for phone in pair)
    return phones


def _library() -> Any:
    return require("ToJyutping", "yue")
