"""What was heard beside what was to be said: one rule for every language, and the faults that it shows.

Both texts go through the language's own front end first: digits, signs and abbreviations become the words that are
said, traditional characters simplified ones. Then they are cut into units that sound:

    en  letters, without case, marks and spaces
    zh  characters, equal where their syllables are equal but for the tone: a recogniser picks among homophones
    ja  phones, since the same word is written in kanji or kana
    ko  phones, as they are said across borders of syllables

A rate of errors is the least number of units to replace, drop or add, per unit to be said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from pipeline.records.phones import Language, Phones
from pipeline.text.edits import align, edit_costs
from pipeline.text.frontend import phonemize
from pipeline.text.symbols import PAUSES

LISTENED: tuple[Language, ...] = ("en", "zh", "ja", "ko")
_SILENT = {*PAUSES, "SP", "SP2", "SP3", "_", "空", "停", "UNK", "[", "]", "#"}
_SHORTEST_REPEAT = 5  # units: about two syllables


@dataclass(frozen=True)
class Comparison:
    """What was heard against what was to be said, in units.

    Attributes:
        units: to be said.
        replaced, dropped, added: the least changes.
        dropped_at_start, dropped_at_end: in one piece there: a truncated sentence.
        longest_added: in one piece: words that nobody wrote.
        repeated: units that were heard twice in a row and are not to be said so.
    """

    units: int
    replaced: int
    dropped: int
    added: int
    dropped_at_start: int
    dropped_at_end: int
    longest_added: int
    repeated: int

    @property
    def errors(self) -> int:
        return self.replaced + self.dropped + self.added

    @property
    def rate(self) -> float:
        return self.errors / max(self.units, 1)

    @property
    def distance(self) -> float:
        """Errors per unit of the longer text, 0 to 1: texts that have nothing in common lie over 0.7 apart."""
        return self.errors / max(self.units, self.units - self.dropped + self.added, 1)


@dataclass(frozen=True)
class Difference:
    """Words that were to be said and words heard in their place; one of them may be empty."""

    said: str
    heard: str


def compare(said: str, heard: str, language: Language) -> Comparison:
    """Compare a text with what a recogniser wrote.

    Raises:
        MissingExtraError: the front end of the language is not installed.
    """
    wanted, found = units_of(said, language), units_of(heard, language)
    pairs = align(wanted, found)
    is_dropped = [there is None for _, there in pairs]
    is_added = [here is None for here, _ in pairs]
    replaced = sum(here is not None and there is not None and wanted[here] != found[there] for here, there in pairs)
    return Comparison(
        units=len(wanted),
        replaced=replaced,
        dropped=sum(is_dropped),
        added=sum(is_added),
        dropped_at_start=_missing_end(wanted[::-1], found[::-1]),
        dropped_at_end=_missing_end(wanted, found),
        longest_added=max((_run(is_added[at:]) for at in range(len(is_added))), default=0),
        repeated=max(0, _repeated(found) - _repeated(wanted)),
    )


def differences(said: str, heard: str, language: Language) -> list[Difference]:
    """Where what was heard differs, in words as they are read: for people."""
    wanted, found = words_of(said, language), words_of(heard, language)
    one, other = ([word.casefold() for word in words] for words in (wanted, found))
    space = "" if language in ("zh", "ja") else " "
    return [
        Difference(space.join(wanted[start:end]), space.join(found[first:last]))
        for kind, start, end, first, last in SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
        if kind != "equal"
    ]


def units_of(text: str, language: Language) -> tuple[str, ...]:
    """A text as the units that are counted."""
    phones = phonemize(text, language)
    if language == "en":
        return tuple(letter for letter in phones.normalised_text.casefold() if letter.isalnum())
    if language == "zh" and phones.word2ph is not None:
        return tuple(_syllables(phones, phones.word2ph))
    return tuple(symbol.lower() for symbol in phones.symbols if symbol not in _SILENT)


def words_of(text: str, language: Language) -> tuple[str, ...]:
    """A text as its front end reads it, in words; in characters where it writes no spaces."""
    normalised = phonemize(text, language).normalised_text
    if language in ("zh", "ja"):
        return tuple(character for character in normalised if character.isalnum())
    return tuple(re.findall(r"[^\W_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}][^\W_]+)*", normalised))


def _syllables(phones: Phones, counts: Sequence[int]) -> list[str]:
    """Initial and final of every character that sounds, without its tone."""
    syllables, at = [], 0
    for count in counts:
        spelled = [symbol for symbol in phones.symbols[at : at + count] if symbol not in _SILENT]
        if spelled:
            syllables.append("".join(spelled).rstrip("0123456789"))
        at += count
    return syllables


def _missing_end(wanted: Sequence[str], found: Sequence[str]) -> int:
    """The longest end that may be dropped along the least changes."""
    costs = edit_costs(found, wanted)
    left = len(wanted) - np.arange(len(wanted) + 1)
    return int(left[np.argmax(costs + left == costs[-1])])


def _run(flags: Sequence[bool]) -> int:
    """How many are true before the first that is not."""
    return next((count for count, flag in enumerate(flags) if not flag), len(flags))


def _repeated(units: Sequence[str]) -> int:
    """The longest stretch that comes twice in a row, in units; 0 below two syllables."""
    for length in range(len(units) // 2, _SHORTEST_REPEAT - 1, -1):
        for start in range(len(units) - 2 * length + 1):
            if units[start : start + length] == units[start + length : start + 2 * length]:
                return length
    return 0
