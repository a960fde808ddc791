"""What the gate says of voices that are known to be good or broken."""

from __future__ import annotations

from pipeline.records.base import Record


class Trial(Record):
    """One voice before the gate.

    Attributes:
        is_good: whether it should pass.
        blocked_by: the checks that stopped it. ``review``: those that asked for a person.
    """

    name: str
    is_good: bool
    blocked_by: tuple[str, ...]
    review: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.blocked_by

    @property
    def is_right(self) -> bool:
        return self.passed == self.is_good


class Selftest(Record):
    """``voxline gate selftest``: every trial of one voice.

    Attributes:
        ears: who listened.
    """

    voice: str
    base: str
    ears: tuple[str, ...]
    trials: tuple[Trial, ...]

    @property
    def wrong(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if not trial.is_right)
