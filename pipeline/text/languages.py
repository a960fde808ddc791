"""Names of languages as records, settings and command lines carry them."""

from __future__ import annotations

from typing import get_args

from pipeline.errors import SettingsError
from pipeline.records.phones import Language

LANGUAGES: tuple[Language, ...] = get_args(Language)


def known_language(name: str) -> Language:
    """The language of that name. Raises SettingsError for one that no front end reads."""
    for language in LANGUAGES:
        if language == name:
            return language
    raise SettingsError(f"language {name!r} has no front end", hint=f"one of {', '.join(LANGUAGES)}")
