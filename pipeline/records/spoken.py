"""What `voxline say` tells about a file it wrote."""

from __future__ import annotations

from pipeline.records.base import Record


class SpokenPart(Record):
    """How one sentence came out.

    Attributes:
        attempts: how often it was generated.
        problems: what is still wrong with it: `no_end`, `too_short`, `too_long`, `loop`, `dropped`, `added`, `unclear`.
        phone_error_rate: edits between what its tokens say and the text, per phone; None for a base whose tokens tell
            no phone.
        longest_gap: most phones of the text in a row that no token says.
    """

    start_s: float
    duration_s: float
    attempts: int
    problems: tuple[str, ...] = ()
    phone_error_rate: float | None = None
    longest_gap: int | None = None


class Spoken(Record):
    """One utterance, written to a file.

    Attributes:
        is_published: false for what was trained here and has not passed, or waits for, its gate or its review.
        real_time_factor: seconds of computing per second of speech, loading left out.
        notes: what the listener should know: sentences that had to be said again, characters nobody could read.
    """

    voice: str
    version: str
    is_published: bool = True
    path: str
    seed: int
    sample_rate_hz: int
    duration_s: float
    real_time_factor: float
    sentences: tuple[SpokenPart, ...] = ()
    notes: tuple[str, ...] = ()
