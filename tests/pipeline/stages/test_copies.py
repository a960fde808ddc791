"""How well a base draws recordings, told before training; it is advice and blocks nobody."""

from __future__ import annotations

import pytest

from pipeline.jobs.copies import judge_copies
from pipeline.records.copies import Copies, CopyScore
from pipeline.records.job import Machine


def a_score(value: float | None, limit: float) -> CopyScore:
    clips = {"a.wav": value, "b.wav": None if value is None else value - 1, "c.wav": None}
    return CopyScore(
        id="copy_synthesis.pesq_wb", title="PESQ-WB", value=value, limit=limit, official=3.5, per_clip=clips
    )


def test_a_base_that_does_not_draw_a_voice_is_named_with_the_worst_clip_and_what_to_do() -> None:
    told = Copies(voice="ana", base="nano", scores=(a_score(2.1, 2.4),)).lines
    assert told[0] == "copies: PESQ-WB 2.10, asked for 2.4, official bases 3.5"
    assert "b.wav least of all" in told[1] and "another --base" in told[1] and "blocks nothing" in told[1]
    assert "as well as its card says" in Copies(voice="ana", base="nano", scores=(a_score(2.5, 2.4),)).lines[-1]
    assert "could not be measured" in Copies(voice="ana", base="nano", scores=(a_score(None, 2.4),)).lines[0]


@pytest.mark.slow
def test_copies_are_measured_as_the_gate_measures_them(walked) -> None:
    from models.loading.bases import find_base

    base = find_base("tiny", walked.root / "bases")
    machine = Machine(bases=walked.root / "bases")
    found = judge_copies("ana", base, walked.input("extract"), walked.input("validate").folder, machine)
    assert [score.id for score in found.scores] == ["copy_synthesis.pesq_wb", "copy_synthesis.stoi"]
    for score in found.scores:
        assert len(score.per_clip) == 3 and score.limit == base.gate.floors.get(score.id.split(".")[1], score.official)
    assert found.scores[1].value < 0.8, "random weights draw badly"
