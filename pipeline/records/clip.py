"""One recording of a voice, before and after validation."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

from pydantic import Field

from pipeline.records.base import Record

Split = Literal["train", "test"]


class Clip(Record):
    """What a folder says about one recording: a line of metadata.csv, or a file without one.

    Attributes:
        file_name: path inside the voice's folder, as metadata.csv writes it.
        text: None where there is no transcript.
        language: empty where the line names none and nobody has said yet which it is then.
        line: line of metadata.csv, None for a file that no line names.
    """

    file_name: str
    text: str | None = None
    language: str = ""
    split: Split | None = None
    line: int | None = None


class PreparedClip(Record):
    """A sentence ready for training: mono, trimmed, levelled, at its original sample rate.

    Attributes:
        file: FLAC inside the folder of the validate stage; a slice of a long recording has a number behind a ``-``.
        source: the recording it was cut from, a path inside the voice's folder as its owner wrote it.
        start_s, end_s: where in the recording; pauses inside may have been shortened.
        speech_s: its speech with natural pauses; what the 60-second rule counts.
        gain_db, limited_db: what levelling added, and what the limiter took off the highest peak.
        noise_reduced: DeepFilterNet was applied.
    """

    file: str
    source: str
    start_s: float = Field(ge=0)
    end_s: float = Field(gt=0)
    text: str | None
    language: str
    split: Split | None = None
    sample_rate_hz: int
    duration_s: float = Field(gt=0)
    speech_s: float = Field(ge=0)
    gain_db: float
    limited_db: float = 0.0
    noise_reduced: bool = False
    sha256: str

    @property
    def is_slice(self) -> bool:
        """One of several that a long recording was cut into."""
        return "-" in PurePosixPath(self.file).stem

    @property
    def name(self) -> str:
        """What people call it: the path that its owner wrote, and of a slice where in the recording it lies."""
        return f"{self.source} [{self.start_s:.1f}-{self.end_s:.1f} s]" if self.is_slice else self.source
