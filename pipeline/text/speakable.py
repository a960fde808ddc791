"""Whether a text can be said at all, and by a base that speaks certain languages. No model, only code points."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import TextRefused, UsageError
from pipeline.records.phones import Language
from pipeline.text.languages import LANGUAGES
from pipeline.text.scripts import script_of, split_languages

MAX_CHARACTERS = 20_000
LANGUAGE_NAMES: dict[str, str] = {
    "zh": "Chinese",
    "en": "English",
    "ja": "Japanese",
    "ko": "Korean",
    "yue": "Cantonese",
}


def check_text(text: str) -> None:
    """Raises UsageError for a text that is empty, too long or without a letter or digit. Loads nothing."""
    if not text.strip():
        raise UsageError("the text is empty", hint="give words to say")
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"{len(text)} characters, at most {MAX_CHARACTERS} at once", hint="say it in parts")
    if all(script_of(letter) == "other" for letter in text):
        raise UsageError(f"nothing to pronounce in {text[:40]!r}", hint="give words or numbers to say")


def choose_language(given: str | None, own: str, spoken: Sequence[str], base: str) -> Language:
    """The language to read a text in: the one asked for, else the voice's own.

    Raises:
        UsageError: the base does not speak it.
    """
    for language in LANGUAGES:
        if language == (given or own) and language in spoken:
            return language
    asked = f"--language {given}" if given else f"the voice's language is {own}"
    raise UsageError(f"{asked}: base {base} speaks {name_languages(spoken)}", hint=_options(spoken))


def check_scripts(text: str, language: Language, spoken: Sequence[str], base: str) -> None:
    """Refuse what the base would read with sounds it never learned.

    Languages may be mixed as the base speaks them: kana is Japanese, hangul Korean, Latin letters are English, and
    Chinese characters belong to the language of the text. One word in another language refuses the whole text. Letters
    of other scripts are left out, and told; a text that has more of them than of others is refused.

    Raises:
        TextRefused: naming the words and the languages of the base.
    """
    for stretch in split_languages(text, language):
        letters = [one for one in stretch.text if script_of(one) not in ("other", "digit", "letter")]
        if letters and stretch.language not in spoken:
            raise TextRefused(
                f"{_quote(stretch.text)} is {LANGUAGE_NAMES[stretch.language]}; base {base} speaks"
                f" {name_languages(spoken)}",
                hint="leave it out, or take a voice on a base that speaks it: voxline bases list",
            )
    unread = [one for one in text if script_of(one) == "letter"]
    if len(unread) > sum(script_of(one) not in ("other", "letter") for one in text):
        raise TextRefused(
            f"{_quote(''.join(unread))}: letters that nobody here can read; base {base} speaks"
            f" {name_languages(spoken)}",
            hint="write the text in one of these",
        )


def name_languages(languages: Sequence[str]) -> str:
    """``English (en) and Chinese (zh)``."""
    named = [f"{LANGUAGE_NAMES.get(one, one)} ({one})" for one in languages]
    return " and ".join(named) if len(named) < 3 else f"{', '.join(named[:-1])} and {named[-1]}"


def _options(languages: Sequence[str]) -> str:
    return " or ".join(f"--language {one}" for one in languages)


def _quote(text: str) -> str:
    stripped = text.strip()
    return repr(stripped if len(stripped) <= 40 else stripped[:40] + "…")
