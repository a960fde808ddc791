"""Which script a text is written in, and from that the language of each stretch of it. No model, only code points."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Literal, NamedTuple

from pipeline.records.phones import Language

Script = Literal["han", "kana", "hangul", "latin", "letter", "digit", "other"]


@lru_cache(maxsize=8192)
def script_of(character: str) -> Script:
    """The script of one character; ``letter`` is a letter of any script without a front end, ``other`` has no sound."""
    if character.isascii():
        return "latin" if character.isalpha() else "digit" if character.isdigit() else "other"
    if "\u3400" <= character <= "\u4dbf" or "\u4e00" <= character <= "\u9fff" or character in "々〇〆":
        return "han"
    if "\uf900" <= character <= "\ufaff" or "\U00020000" <= character <= "\U0003ffff":
        return "han"
    if "\u3041" <= character <= "\u30ff" or "\uff66" <= character <= "\uff9f":
        return "other" if character in "・･\u30a0" else "kana"
    if "\u1100" <= character <= "\u11ff" or "\u3131" <= character <= "\u318e" or "\uac00" <= character <= "\ud7a3":
        return "hangul"
    if character.isdecimal():
        return "digit"
    if unicodedata.category(character)[0] != "L":
        return "other"
    return "latin" if "LATIN" in unicodedata.name(character, "") else "letter"


class Stretch(NamedTuple):
    """A stretch of text in one language."""

    language: Language
    text: str


_UNIT = re.compile(
    r"(?:km/h|m/s|km²|km2|mm²|cm²|cm2|m²|m2|m³|km|cm|mm|nm|kg|mg|ml|mL|min|ms|kHz|MHz|GHz|Hz|kW|dB|db|°C|℃|m|g|t|L|s|h"
    r"|W|V)"
    r"(?![A-Za-z0-9])"
)
"""Units behind a number are read in the language around them: 5km is 五千米 in a Chinese sentence."""


def split_languages(text: str, language: Language) -> list[Stretch]:
    """Cut a text where its language changes.

    Latin letters are English, kana Japanese, Hangul Korean; Chinese characters belong to the language of the sentence;
    in an English one to Japanese if there is kana, else to Chinese. Digits and everything without a sound follow their
    neighbours; a number between two languages is read in the language of the sentence.
    """
    owners = _owners(text, language)
    stretches: list[Stretch] = []
    for character, owner in zip(text, owners, strict=True):
        if stretches and stretches[-1].language == owner:
            stretches[-1] = Stretch(owner, stretches[-1].text + character)
        else:
            stretches.append(Stretch(owner, character))
    return stretches


def _owners(text: str, language: Language) -> list[Language]:
    """The language of every character."""
    scripts = [script_of(character) for character in text]
    chinese: Language = "ja" if language == "en" and "kana" in scripts else "zh" if language == "en" else language
    by_script: dict[Script, Language] = {
        "han": chinese, "kana": "ja", "hangul": "ko", "latin": "en", "letter": language,
    }  # fmt: skip
    owners: list[Language | None] = [by_script.get(script) for script in scripts]
    for match in _UNIT.finditer(text):
        if match.start() and scripts[match.start() - 1] == "digit":
            owners[match.start() : match.end()] = [None] * (match.end() - match.start())
    return _fill_gaps(text, scripts, owners, language)


def _fill_gaps(text: str, scripts: list[Script], owners: list[Language | None], language: Language) -> list[Language]:
    """Give digits and silent characters to a neighbour."""
    filled: list[Language] = []
    place = 0
    while place < len(owners):
        owner = owners[place]
        if owner is not None:
            filled.append(owner)
            place += 1
            continue
        end = next((i for i in range(place, len(owners)) if owners[i] is not None), len(owners))
        before, after = (filled[-1] if filled else None), (owners[end] if end < len(owners) else None)
        filled.extend(_gap_owner(text[place:end], scripts[place:end], before, after, language))
        place = end
    return filled


def _gap_owner(
    gap: str, scripts: list[Script], before: Language | None, after: Language | None, language: Language
) -> list[Language]:
    if before == after and before is not None:
        return [before] * len(gap)
    if "digit" not in scripts:  # punctuation stays with what it ends
        return [before or after or language] * len(gap)
    first = scripts.index("digit")
    last = len(gap) - scripts[::-1].index("digit")
    if before == "en" and first == 0:  # GPT4, T60
        return [before] * len(gap)
    if after == "en" and last == len(gap):  # 3D, 4K
        return [before or after] * first + [after] * (len(gap) - first)
    return [before or language] * first + [language] * (len(gap) - first)
