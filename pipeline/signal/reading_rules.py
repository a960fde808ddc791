"""Whether each recording says its own text rather than that of another: an acoustic model is asked to choose.

A weak recogniser still hears its own sentence best. So the phones it heard in a recording are compared with the text of
the recording and with the texts of others of like length. That needs no limit for how well a language is recognised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.records.clip_report import Finding
from pipeline.text.transcripts import phone_error_rate

READINGS_MIN = 4
_OTHERS = 8  # texts of like length that a recording may choose from
_GAP_MIN = 0.085  # mean of (errors with other texts - with the own); right texts 0.12 and more, others up to 0.07
_BETTER_MIN = 0.12  # by which another text fits better; right texts 0.08 in 99 %
_SWAPPED_MIN = 0.12  # the sum of both, where two recordings choose each other's text


@dataclass(frozen=True)
class Reading:
    """`expected`: phones of the text; `heard`: what the acoustic model heard; classes of one model."""

    expected: tuple[str, ...]
    heard: tuple[str, ...]


@dataclass(frozen=True)
class _Choice:
    own: float
    others: dict[int, float]  # errors by the index of the recording whose text it is

    @property
    def best(self) -> int:
        return min(self.others, key=self.others.__getitem__)

    @property
    def better_by(self) -> float:
        return self.own - self.others[self.best]


def judge_readings(readings: Mapping[int, Reading]) -> tuple[Finding | None, dict[int, tuple[float, int]]]:
    """A finding of the voice where texts fit no better than strangers', else (how much better, whose text) by index."""
    choices = _choices(readings)
    if len(choices) < READINGS_MIN:
        return None, {}
    gaps = [float(np.median(list(one.others.values()))) - one.own for one in choices.values()]
    gap = float(np.mean(gaps))
    if gap < _GAP_MIN:
        shown = {"value": round(gap, 3), "limit": _GAP_MIN, "unit": "phone errors fewer than with other texts"}
        detail = "the texts fit their recordings no better than those of other recordings"
        return Finding(code="text_audio_mismatch", severity="reject", detail=detail, **shown), {}
    return None, {i: (one.better_by, one.best) for i, one in choices.items() if _is_of_another(i, one, choices)}


def _choices(readings: Mapping[int, Reading]) -> dict[int, _Choice]:
    ordered = sorted(readings, key=lambda i: len(readings[i].expected))
    choices = {}
    for place, index in enumerate(ordered):
        nearby = ordered[max(0, place - _OTHERS) : place + _OTHERS + 1]
        reading = readings[index]
        candidates = [i for i in nearby if readings[i].expected != reading.expected]
        candidates.sort(key=lambda i: abs(len(readings[i].expected) - len(reading.expected)))
        if len(candidates) >= READINGS_MIN - 1:
            errors = {i: phone_error_rate(readings[i].expected, reading.heard) for i in candidates[:_OTHERS]}
            choices[index] = _Choice(phone_error_rate(reading.expected, reading.heard), errors)
    return choices


def _is_of_another(index: int, one: _Choice, choices: Mapping[int, _Choice]) -> bool:
    other = choices.get(one.best)
    is_mutual = other is not None and other.best == index and min(one.better_by, other.better_by) > 0
    return one.better_by > _BETTER_MIN or (
        is_mutual and other is not None and one.better_by + other.better_by > _SWAPPED_MIN
    )


def reading_findings(names: Sequence[str], found: Mapping[int, tuple[float, int]]) -> dict[int, Finding]:
    """What `judge_readings` found about single recordings, in words."""
    return {
        index: Finding(
            code="text_audio_mismatch",
            severity="reject",
            value=round(better_by, 3),
            limit=_BETTER_MIN,
            unit="phone errors fewer with another text",
            detail=f"the text of {names[other]} fits better",
        )
        for index, (better_by, other) in found.items()
    }
