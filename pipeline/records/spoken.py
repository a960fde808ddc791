"""What `voxline say` tells about a file it wrote."""

from __future__ import annotations

from pipeline.records.base import Record


class Spoken(Record):
    """One utterance, written to a file.

    Attributes:
        real_time_factor: seconds of computing per second of speech, loading left out.
        notes: what the listener should know: sentences that had to be said again, characters nobody could read.
    """

    voice: str
    version: str
    path: str
    seed: int
    sample_rate_hz: int
    duration_s: float
    real_time_factor: float
    notes: tuple[str, ...] = ()
