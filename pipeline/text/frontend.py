"""Text to phones in any of the five languages, several in one sentence if need be."""

from __future__ import annotations

import re
from typing import NamedTuple

from pipeline.records.phones import Language, LanguageSpan, Phones
from pipeline.text.cantonese import read_cantonese
from pipeline.text.english import read_english
from pipeline.text.japanese import read_japanese
from pipeline.text.korean import read_korean
from pipeline.text.mandarin import read_mandarin
from pipeline.text.scripts import Stretch, split_languages
from pipeline.text.symbols import PAUSES

FEWEST_PHONES = 6
"""Shorter input makes the official text-to-semantic network repeat or leak the reference
(docs/networks/speaking.md)."""


class Reading(NamedTuple):
    """What a front end makes of a text in its language; ``word2ph`` only where it writes one character per syllable."""

    normalised: str
    phones: list[str]
    word2ph: list[int] | None
    unknown: tuple[str, ...]


def phonemize(text: str, language: Language, *, mixed: bool = True, as_upstream: bool = False) -> Phones:
    """Phones of one sentence.

    Args:
        text: one sentence, or a few; see ``pipeline.text.splitting`` for longer texts.
        language: the language of the speaker.
        mixed: read words in another script in their own language; otherwise they are reported as unknown characters.
        as_upstream: follow GPT-SoVITS to the letter, defects included, with ``mixed=False``; docs/text.md lists the
            differences.

    Raises:
        MissingExtraError: the libraries of a language that occurs are not installed.
    """
    text = re.sub(
        "[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n")
    )  # no library takes surrogates
    stretches = split_languages(text, language) if mixed else [Stretch(language, text)]
    symbols: list[str] = []
    spans: list[LanguageSpan] = []
    unknown: dict[str, None] = {}
    for stretch in stretches:
        reading = _read(stretch, as_upstream=as_upstream)
        phones = reading.phones
        if stretch.language == "en" and len(stretches) == 1 and len(phones) < 4:
            phones = [",", *phones]  # upstream's rule for very short English
        spans.append(
            LanguageSpan(
                language=stretch.language,
                text=stretch.text,
                normalised_text=reading.normalised,
                first_symbol=len(symbols),
                last_symbol=len(symbols) + len(phones),
                word2ph=None if reading.word2ph is None else tuple(reading.word2ph),
            )
        )
        symbols += phones
        unknown.update(dict.fromkeys(reading.unknown))
    counts = [span.word2ph for span in spans]
    return Phones(
        symbols=tuple(symbols),
        word2ph=None if None in counts else tuple(count for span in counts for count in span or ()),
        normalised_text="".join(span.normalised_text for span in spans),
        unknown=tuple(unknown),
        spans=tuple(spans),
    )


def phonemize_for_synthesis(text: str, language: Language, *, fewest: int = FEWEST_PHONES) -> Phones:
    """As ``phonemize``; text that gives too few phones is read once more behind a full stop."""
    phones = phonemize(text, language)
    return phonemize("." + text, language) if len(phones.symbols) < fewest else phones


def is_silent(phones: Phones) -> bool:
    """Whether there is nothing to say: no phones, or pauses alone."""
    return all(symbol in PAUSES or symbol in {"SP", "SP2", "SP3", "_", "空", "停"} for symbol in phones.symbols)


def _read(stretch: Stretch, *, as_upstream: bool) -> Reading:
    language, text = stretch
    if language == "zh":
        return Reading(*read_mandarin(text, as_upstream=as_upstream))
    if language == "yue":
        return Reading(*read_cantonese(text, as_upstream=as_upstream))
    readers = {"en": read_english, "ja": read_japanese, "ko": read_korean}
    normalised, phones, unknown = readers[language](text, as_upstream=as_upstream)
    return Reading(normalised, phones, None, unknown)
