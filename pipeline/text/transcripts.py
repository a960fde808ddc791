"""What a transcript shows before anything is pronounced: its script, markup in it, how long it takes to say."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.text.edits import edit_distance
from pipeline.text.scripts import script_of

SUPPORTED_LANGUAGES = ("zh", "en", "ja", "ko", "yue")

# Annotations of corpora, subtitles and speech recognisers: [noise], <VOCNOISE>, {laughs}, ((unclear)), +um+, <|en|>.
_MARKUP = re.compile(
    r"\[[^\[\]]{0,80}\]|<[^<>]{0,80}>|\{[^{}]{0,80}\}|\(\([^()]{0,80}\)\)|【[^【】]{0,80}】|♪|\*[a-z ]{2,30}\*"
)
_WORD = re.compile(r"[^\W\d_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}][^\W\d_]+)?")

# Phones per written unit, from the sentences of CMU ARCTIC, LibriSpeech and AISHELL and their pronunciations.
_PHONES_PER_LATIN_LETTER = 0.8
_PHONES_PER_UNIT = {"han": 2.1, "kana": 1.7, "hangul": 2.5, "digit": 3.2}
_PHONES_PER_KANJI = 3.4

# The commonest words of languages that share the Latin script, without those they share with each other.
_FUNCTION_WORDS = {
    "en": "the and of to is that it was for with as his he you be this are which have from they not had were",
    "de": "der die das und ist nicht ein eine einen zu den mit von auf für sich dem des auch als wird aus nach wurde",
    "fr": "le les et est une des du dans que qui pas pour sur avec il elle au ce sont nous vous été mais ou où",
    "es": "el los y es una por con para del se las su lo como más pero sus le ya fue este porque ha sí",
    "it": "il di che è un una per non con del della si dei sono gli nel alla più anche come ha questo",
    "nl": "het een van is dat op te en zijn met voor niet aan er ook als maar om dan zou wat door hij",
}
_WORDS = {language: frozenset(words.split()) for language, words in _FUNCTION_WORDS.items()}


@dataclass(frozen=True)
class Cleaned:
    """A transcript without markup; `removed` lists what was taken out."""

    text: str
    removed: tuple[str, ...]


def strip_markup(text: str) -> Cleaned:
    """Take annotations out: they are not spoken. Ordinary brackets around words, (like these), stay."""
    removed = tuple(match.group() for match in _MARKUP.finditer(text))
    if not removed:
        return Cleaned(text, ())
    return Cleaned(" ".join(_MARKUP.sub(" ", text).split()), removed)


def count_scripts(text: str) -> Counter[str]:
    """Written units by script: a Han character, a kana, a hangul syllable, a word in letters, a digit."""
    counts: Counter[str] = Counter()
    for letter in text:
        script = _script(letter)
        if script in ("han", "kana", "hangul", "digit"):
            counts[script] += 1
    for word in _WORD.findall(text):
        if _script(word[0]) == "letters":
            counts["latin" if _is_latin(word) else "foreign"] += 1
    return counts


def script_fault(text: str, language: str) -> str | None:
    """Why a text cannot be in its declared language, judged by its script alone; None where it can."""
    counts = count_scripts(text)
    units = sum(counts[name] for name in ("han", "kana", "hangul", "latin", "foreign"))
    if units == 0:
        return "holds nothing that is spoken" if counts["digit"] == 0 else None
    asian = counts["han"] + counts["kana"] + counts["hangul"]
    if language == "en":
        return None if counts["latin"] >= 0.7 * units else "is not written in Latin letters"
    if language in ("zh", "yue"):
        if counts["kana"] > 0.1 * units or counts["hangul"] > 0.1 * units:
            return "holds Japanese or Korean characters"
        return None if counts["han"] >= 0.3 * units else "is not written in Chinese characters"
    if language == "ja":
        if counts["kana"] == 0 and counts["han"] > 12:
            return "holds no kana, which no Japanese sentence does without"
        return None if counts["kana"] + counts["han"] >= 0.3 * units else "is not written in Japanese"
    if language == "ko":
        return None if counts["hangul"] >= 0.3 * units else "is not written in hangul"
    return None if asian == 0 else "is not written in an alphabet"


def guess_latin_language(texts: Iterable[str]) -> str | None:
    """The language whose commonest words are used most, over all texts; None without enough words to tell."""
    found: Counter[str] = Counter()
    words = 0
    for text in texts:
        for word in _WORD.findall(text.lower()):
            words += 1
            found.update(language for language, common in _WORDS.items() if word in common)
    if words < 20 or not found:
        return None
    (best, hits), *others = [*found.most_common(2), ("", 0)]
    return best if hits >= 0.08 * words and hits >= 2 * others[0][1] else None


def estimate_phones(text: str, language: str) -> float:
    """Phones that saying it takes, from its spelling; within about a fifth for a sentence."""
    counts = count_scripts(text)
    han = _PHONES_PER_KANJI if language == "ja" else _PHONES_PER_UNIT["han"]
    letters = sum(len(word) for word in _WORD.findall(text) if _script(word[0]) == "letters")
    phones = counts["han"] * han + counts["kana"] * _PHONES_PER_UNIT["kana"]
    phones += counts["hangul"] * _PHONES_PER_UNIT["hangul"] + counts["digit"] * _PHONES_PER_UNIT["digit"]
    return phones + letters * _PHONES_PER_LATIN_LETTER


def phone_error_rate(expected: Sequence[str], heard: Sequence[str]) -> float:
    """Least number of changes between two rows of phones, per expected phone; stress marks do not count."""
    wanted = [phone.rstrip("0123456789") for phone in expected]
    found = [phone.rstrip("0123456789") for phone in heard]
    return edit_distance(wanted, found) / max(len(wanted), 1)


def _script(letter: str) -> str:
    """The script as this module counts it: letters of every alphabet together, the long vowel mark with none."""
    script = "other" if letter == "ー" else script_of(letter)
    return "letters" if script in ("latin", "letter") else script


def _is_latin(word: str) -> bool:
    return all(
        letter.isascii() or unicodedata.name(letter, "").startswith("LATIN") for letter in word if letter.isalpha()
    )
