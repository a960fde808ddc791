"""The gate before voices whose verdict is known, on a voice that only tries the line: all of it is blocked."""

from __future__ import annotations

import pytest

from pipeline.jobs.selftest import selftest
from pipeline.records.settings import EvaluateSettings
from pipeline.signal.mutants import SOUND_MUTANTS

pytestmark = pytest.mark.slow


def test_every_mutant_is_tried_and_a_voice_that_should_pass_and_does_not_is_told(walked, tmp_path):
    reads = ("validate", "extract", "finetune")
    job = walked.job(tmp_path, reads, EvaluateSettings(sentences=3), language="en", floors={}, waived=[])
    found = selftest(job)
    trials = {trial.name: trial for trial in found.trials}
    assert set(SOUND_MUTANTS) < set(trials) and "20 % of the words swapped" in trials
    assert [trial.name for trial in found.trials if trial.is_good] == [
        "as it is",
        "sentences 1, 3, ...",
        "sentences 2, 4, ...",
    ]
    assert "free_speech.complete" in trials["silence"].blocked_by
    assert trials["as it is"] in found.wrong  # random weights
    assert all(not trials[name].passed and trials[name].is_right for name in SOUND_MUTANTS)
