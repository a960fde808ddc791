"""The clip that a voice speaks like: published with it, and what evaluation already used."""

from __future__ import annotations

from pipeline.records.base import Record

REFERENCE_FOLDER = "reference"
REFERENCE_AUDIO = "reference.flac"
REFERENCE_RECORD = "reference.json"


class ReferenceClip(Record):
    """``reference/reference.json`` beside ``reference.flac``.

    Attributes:
        symbols: phones of the text by name.
        speaker: vector of who speaks, as the base's synthesizer takes it; None where it takes none.
    """

    clip: str
    text: str
    language: str
    symbols: tuple[str, ...]
    sample_rate_hz: int
    duration_s: float
    speaker: tuple[float, ...] | None = None
