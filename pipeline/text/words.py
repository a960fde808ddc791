"""Which phones belong to which word of a sentence, so that what is known of phones can be said of words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from pipeline.records.phones import Language
from pipeline.text.frontend import phonemize
from pipeline.text.scripts import script_of
from pipeline.text.symbols import PAUSES

_BY_CHARACTER = frozenset({"han", "kana"})


def words_of(text: str) -> list[str]:
    """Words as a reader sees them: between blanks, and every Chinese or Japanese character by itself."""
    words: list[str] = []
    for stretch in re.findall(r"\S+", text):
        grown = ""
        for letter in stretch:
            if script_of(letter) in _BY_CHARACTER:
                words += [grown, letter] if grown else [letter]
                grown = ""
            elif words and not grown and script_of(letter) == "other" and words[-1][-1:] and _ends(words[-1]):
                words[-1] += letter  # a mark belongs to the character before it
            else:
                grown += letter
        if grown:
            words.append(grown)
    return [word for word in words if any(script_of(letter) != "other" for letter in word)]


def _ends(word: str) -> bool:
    return any(script_of(letter) in _BY_CHARACTER for letter in word)


def phones_of_words(words: Sequence[str], symbols: Sequence[str], language: Language) -> list[list[int]]:
    """For every word the places of its phones in the sentence's `symbols`, rising.

    Each word is read by itself and found again in the sentence. Where a reading differs (a number, an abbreviation, a
    word that neighbours change), phones between two words that were found are shared out in order.
    """
    alone = [[symbol for symbol in phonemize(word, language).symbols if symbol not in PAUSES] for word in words]
    spoken = [place for place, symbol in enumerate(symbols) if symbol not in PAUSES]
    owners = [number for number, phones in enumerate(alone) for _ in phones]
    matcher = SequenceMatcher(
        None, [phone for phones in alone for phone in phones], [symbols[p] for p in spoken], False
    )
    found: list[list[int]] = [[] for _ in words]
    for _, first, last, start, end in matcher.get_opcodes():
        for offset in range(end - start):
            if first < last:
                owner = owners[first + offset * (last - first) // (end - start)]
            else:
                owner = owners[min(first, len(owners) - 1)] if owners else 0
            if found:
                found[owner].append(spoken[start + offset])
    return [sorted(places) for places in found]
