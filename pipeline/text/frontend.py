"""Text to phones in any of the five languages."""

from __future__ import annotations

from pipeline.records.phones import Language, Phones
from pipeline.text.english import read_english


def phonemize(text: str, language: Language, *, mixed: bool = True, as_upstream: bool = False) -> Phones:
    """Phones of one sentence."""
    normalised, phones, unknown = read_english(text, as_upstream=as_upstream)
    return Phones(symbols=tuple(phones), word2ph=None, normalised_text=normalised, unknown=unknown, spans=())
