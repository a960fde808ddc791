"""What extraction leaves: the features of every clip that is trained on or judged by."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from pipeline.records.base import Record
from pipeline.records.clip import Split

FEATURES_FILE = "features.safetensors"


class ClipFeatures(Record):
    """One clip. Its tensors lie at the same place in ``features.safetensors``, see ``models.clip_tensors``.

    Attributes:
        clip: what people call it, as in ``PreparedClip.name``.
        file: the prepared clip, a path inside the folder of the validate stage.
        frames: length of its spectrogram, T50.
        symbols: the phones by name; ``phones`` holds their ids.
        content_sha256: of the wave as it goes into training; the held-out split is drawn by it.
        split: as metadata.csv asks: ``test`` clips are held out.
        unknown_characters: of its text, that no rule could read.
    """

    clip: str
    file: str
    text: str
    language: str
    duration_s: float = Field(gt=0)
    frames: int = Field(ge=1)
    tokens: int = Field(ge=1)
    symbols: tuple[str, ...]
    content_sha256: str
    split: Split | None = None
    unknown_characters: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _called_by_its_file(cls, told: Any) -> Any:
        """As it was written while a clip had no other name: results in ``work/`` still say so."""
        return (
            {**told, "file": told["clip"]} if isinstance(told, dict) and "clip" in told and "file" not in told else told
        )


class LeftOutClip(Record):
    """A clip that validation accepted and extraction could not use."""

    clip: str
    code: str
    detail: str


class FeatureRecord(Record):
    """All clips of a voice, at the base's rate, with the digest of the base whose tokens they are."""

    base: str
    base_digest: str
    sample_rate_hz: int
    hop_samples: int
    clips: tuple[ClipFeatures, ...]
    left_out: tuple[LeftOutClip, ...] = ()
    unknown_characters: tuple[str, ...] = ()
    duration_s: float

    def index_of(self, clip: str) -> int:
        """Position of a clip, in the record and among the tensors; by its file, too, as earlier versions called it."""
        return next(index for index, one in enumerate(self.clips) if clip in (one.clip, one.file))
