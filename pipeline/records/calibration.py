"""What a base's voices measure, and the limits that follow from it."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from pipeline.records.base import Record


class Loss(Record):
    """How far behind: of a voice, or of another voice's speech in its place.

    Attributes:
        spoken_by: the voice that speaks. ``judged_as``: the voice whose recordings it is held against.
        behind: its recordings, where the limit is relative to them; else a perfect system.
    """

    spoken_by: str
    judged_as: str
    behind: float
    spoken: float
    recorded: float

    @property
    def is_own(self) -> bool:
        return self.spoken_by == self.judged_as


class Limit(Record):
    """One limit of a base's card, with what it rests on.

    Attributes:
        present: what the card states now, or the gate's default.
        suggested: between the good voices and the wrong speakers, where they lie apart; else just beyond the good ones.
        distance: from the worst good voice to the nearest wrong speaker; negative where they overlap. None: a wrong
            speaker is not this metric's business.
        held_out: of the good voices, how many pass a limit that was set without them.
    """

    floor: str
    metric: str
    present: float
    suggested: float
    distance: float | None
    good: tuple[Loss, ...]
    wrong: tuple[Loss, ...] = ()
    held_out: int
    told: str


class CopyFloor(Record):
    """What copies of held-out recordings score, drawn as speech is drawn."""

    floor: str
    metric: str
    present: float
    official: float
    clips: int
    mean: float
    low: float = Field(description="Fifth percentile over clips.")
    worst: float


class Calibration(Record):
    """``voxline gate calibrate``: a base's limits by data."""

    base: str
    base_digest: str
    voices: tuple[str, ...]
    limits: tuple[Limit, ...]
    copies: tuple[CopyFloor, ...]
    not_measured: dict[str, str] = Field(default_factory=dict)
    speech: str


def suggest(good: Sequence[float], wrong: Sequence[float], least: float) -> float:
    """A limit for losses: half-way to the nearest wrong speaker, else beyond the good ones by half their spread.

    ``least``: never nearer to the worst good voice than this, where nothing stands in the way.
    """
    worst = max(good)
    if wrong and min(wrong) > worst:
        return (worst + min(wrong)) / 2
    if wrong:
        return worst
    return worst + max((worst - min(good)) / 2, least)
