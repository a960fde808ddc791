"""Text to phones in any of the five languages."""

from __future__ import annotations

from pipeline.records.phones import Language, Phones
from pipeline.text.english import read_english
from pipeline.text.mandarin import read_mandarin


def phonemize(text: str, language: Language, *, mixed: bool = True, as_upstream: bool = False) -> Phones:
    """Phones of one sentence."""
    counts: list[int] | None = None
    if language == "zh":
        normalised, phones, counts, unknown = read_mandarin(text, as_upstream=as_upstream)
    else:
        normalised, phones, unknown = read_english(text, as_upstream=as_upstream)
    return Phones(
        symbols=tuple(phones),
        word2ph=tuple(counts) if counts is not None else None,
        normalised_text=normalised,
        unknown=unknown,
        spans=(),
    )
