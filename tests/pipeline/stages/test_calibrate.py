"""Limits of a base by data: between good voices and wrong speakers, and never nearer than what is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from pipeline.cli.gate import card_of
from pipeline.jobs.calibrate import calibrate
from pipeline.records.calibration import suggest
from pipeline.records.metrics import METRICS, floored
from pipeline.records.settings import EvaluateSettings


@pytest.mark.parametrize(
    ("good", "wrong", "limit"),
    [
        ([0.1, 0.2], [0.4, 0.6], 0.3),  # half-way
        ([0.1, 0.2], [0.15, 0.6], 0.2),  # they overlap: no good voice is given up
        ([0.1, 0.3], [], 0.4),  # nobody to keep out: half their spread beyond the worst
        ([0.2], [], 0.25),
    ],
)
def test_a_limit_lies_half_way_to_the_nearest_wrong_speaker_or_just_beyond_the_good_voices(good, wrong, limit):
    assert suggest(good, wrong, least=0.05) == pytest.approx(limit)


@pytest.mark.slow
def test_voices_are_heard_in_their_own_place_and_in_every_other_s(walked, tmp_path):
    """Two names for one voice: a wrong speaker who cannot be told apart, so the distance is nothing."""
    job = walked.job(tmp_path, ("validate", "extract", "finetune"), EvaluateSettings(sentences=2), language="en")
    found = calibrate([job, replace(job, voice="twin")])
    likeness = next(limit for limit in found.limits if limit.metric == "free_speech.similarity")
    assert {(one.spoken_by, one.judged_as) for one in likeness.wrong} == {(job.voice, "twin"), ("twin", job.voice)}
    assert likeness.distance == pytest.approx(0.0, abs=1e-6) and likeness.held_out == 2
    assert likeness.suggested == pytest.approx(max(one.behind for one in likeness.good), abs=1e-3)
    opinion = next(limit for limit in found.limits if limit.metric == "free_speech.dnsmos_ovr")
    assert opinion.wrong == () and opinion.distance is None  # a wrong speaker is none of its business
    assert {*found.not_measured, *(limit.floor for limit in found.limits), *(copy.floor for copy in found.copies)} == {
        metric.floor for metric in floored()
    }
    assert METRICS["free_speech.likeness"].absent == found.not_measured["likeness"]
    card = yaml.safe_load(card_of(found))["gate"]
    assert card["similarity_loss"] == likeness.suggested and card["evidence"]["similarity_loss"] == likeness.told
    assert "recordings" in card["speech"]
