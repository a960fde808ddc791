"""The gate before voices whose verdict is known, on a voice that only tries the line: all of it is blocked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.jobs.broken_adapters import ADAPTER_MUTANTS
from pipeline.jobs.selftest import Stand, judged, offers, selftest, variant_flags
from pipeline.records.settings import EvaluateSettings, FinetuneSettings
from pipeline.signal.mutants import SOUND_MUTANTS
from pipeline.stages.evaluate.studio import Casting, EvaluateJob

pytestmark = pytest.mark.slow


@pytest.fixture
def job(walked, tmp_path) -> EvaluateJob:
    reads = ("validate", "extract", "finetune")
    return walked.job(tmp_path, reads, EvaluateSettings(sentences=3), language="en", floors={}, waived=[])


def test_every_mutant_is_tried_and_a_voice_that_should_pass_and_does_not_is_told(job):
    found = selftest(job, [replace(job, voice="ben")])
    trials = {trial.name: trial for trial in found.trials}
    assert list(trials) == ["as it is", *SOUND_MUTANTS, "20 % of the words swapped", "speech of ben"]
    assert [trial.name for trial in found.trials if trial.is_good] == ["as it is"]
    assert "free_speech.complete" in trials["silence"].blocked_by
    assert "free_speech.tempo" in trials["8 % faster"].blocked_by
    assert "free_speech.tempo" not in trials["as it is"].blocked_by
    assert trials["as it is"] in found.wrong  # random weights
    assert all(not trials[name].passed and trials[name].is_right for name in SOUND_MUTANTS)


def test_broken_adapters_other_references_and_shuffled_tokens_are_other_speech(job):
    stand, other = Stand(job), Stand(replace(job, voice="ben"))
    offered = {offer.name: offer for offer in offers(stand, [other], {"longer": lambda: job}, whole=True)}
    assert {*ADAPTER_MUTANTS, "adapter of ben", "reference of ben", "tokens shuffled", "longer"} < set(offered)
    assert [name for name, offer in offered.items() if offer.is_good] == [
        "as it is",
        "other seeds, 100",
        "other seeds, 200",
        "longer",
    ]
    plain = stand.numbers["free_speech.similarity"].new
    assert offered["longer"].measure()["free_speech.similarity"].new == plain, "nothing differs here but the name"
    for name in ("adapter x 10", "tokens shuffled", "other seeds, 100"):
        assert offered[name].measure()["free_speech.similarity"].new != plain, name
    shuffled = judged("tokens shuffled", offered["tokens shuffled"].measure(), stand.floors, is_good=False)
    assert "resynthesis.tokens_matter" in shuffled.blocked_by


def test_the_same_trial_is_the_same_whatever_was_tried_before(job):
    alone = {offer.name: offer for offer in offers(Stand(job))}["noise 10 dB below"].measure()
    after = [offer.measure() for offer in offers(Stand(job)) if offer.name in ("clipped", "noise 10 dB below")]
    assert alone["free_speech.dnsmos_ovr"] in [one["free_speech.dnsmos_ovr"] for one in after]


def test_another_reference_is_spoken_with(job):
    stand = Stand(job)
    own = stand.studio.reference_sound()
    strange = replace(own, wave=own.wave.flip(0))
    said = [stand.spoken_as(Casting(reference=one)) for one in (None, strange)]
    assert any((said[0][name].wave.shape, said[0][name].wave.sum()) != (one.wave.shape, one.wave.sum())
               for name, one in said[1].items())  # fmt: skip


def test_good_variants_differ_in_training_alone():
    settings = FinetuneSettings(epochs=1)
    flags = variant_flags(settings)
    assert flags["one epoch more"] == {"finetune.epochs": 2}
    assert flags["other held-out clips"] == {"finetune.heldout_clips": settings.heldout_clips + 1}
    assert flags["one epoch less"] == {"finetune.epochs": 1}, "at least one"
