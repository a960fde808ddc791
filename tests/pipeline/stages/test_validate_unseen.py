"""Faults made from recordings that no limit was chosen on; `python -m benchmarks.detection` has all kinds and strengths."""

import importlib.util
import sys
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[3]


@cache
def detection():
    """The benchmark as a module: it is no part of the installed packages."""
    specification = importlib.util.spec_from_file_location("detection", REPOSITORY / "benchmarks" / "detection.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["detection"] = module
    specification.loader.exec_module(module)
    return module


@cache
def tools():
    return detection().load_tools(detection().SETTINGS, Path("nowhere"))


FOUND = [
    ("noisy", 1),
    ("noisy_babble", 1),
    ("music", 2),
    ("two_speakers_folder", 2),
    ("two_speakers_one_file", 3),
    ("clipped_then_lowered", 1),
    ("fake_rate", 1),
    ("antiphase", 2),
    ("hum", 1),
    ("reverberant", 1),
    ("dropouts", 0),
    ("wrong_transcripts", 1),  # Mandarin
    ("two_swapped", 0),
    ("two_swapped", 1),  # Mandarin
    ("whispered", 1),
    ("text_tags", 2),
]


@pytest.mark.parametrize(("kind", "strength"), FOUND, ids=lambda value: str(value))
def test_a_fault_in_unseen_recordings_is_found_for_its_reason(shared, tmp_path, kind, strength):
    outcome = detection().judge(kind, 50, strength, tools(), tmp_path / kind)
    assert outcome.found, (outcome.report.verdict, outcome.report.reasons)


@pytest.mark.parametrize("seed", [60, 61, 62])
def test_good_unseen_recordings_are_left_alone(shared, tmp_path, seed):
    outcome = detection().judge("none", seed, seed, tools(), tmp_path / "none")
    assert outcome.found, [(result.clip.file_name, result.reasons) for result in outcome.report.clips]
