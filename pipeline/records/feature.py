"""What extraction leaves: the features of every clip that is trained on or judged by."""

from __future__ import annotations

from pydantic import Field

from pipeline.records.base import Record
from pipeline.records.clip import Split

FEATURES_FILE = "features.safetensors"


class ClipFeatures(Record):
    """One clip. Its tensors lie at the same place in ``features.safetensors``, see ``models.clip_tensors``.

    Attributes:
        clip: the prepared clip, a path inside the folder of the validate stage.
        frames: length of its spectrogram, T50.
        symbols: the phones by name; ``phones`` holds their ids.
        content_sha256: of the wave as it goes into training; the held-out split is drawn by it.
        split: as metadata.csv asks: ``test`` clips are held out.
        unknown_characters: of its text, that no rule could read.
    """

    clip: str
    text: str
    language: str
    duration_s: float = Field(gt=0)
    frames: int = Field(ge=1)
    tokens: int = Field(ge=1)
    symbols: tuple[str, ...]
    content_sha256: str
    split: Split | None = None
    unknown_characters: tuple[str, ...] = ()


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
        """Position of a clip, in the record and among the tensors."""
        return next(index for index, one in enumerate(self.clips) if one.clip == clip)
