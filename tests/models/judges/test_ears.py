"""ECAPA-TDNN and DistillMOS: the numbers of their authors' packages, and what they are for, on real speech."""

import csv
import json
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from make_golden_ears import signals

from models.errors import WeightsError
from models.judges.distillmos import DistillMos, load_distillmos, windows
from models.judges.ecapa import EMBEDDING_SIZE, Ecapa, load_ecapa
from pipeline.io.audio import read_audio, resample

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ecapa(artifacts) -> Ecapa:
    return load_ecapa(artifacts("ecapa-voxceleb") / "ecapa.safetensors")


@pytest.fixture(scope="module")
def distillmos(artifacts) -> DistillMos:
    return load_distillmos(artifacts("distillmos") / "distillmos.safetensors")


@pytest.fixture(scope="module")
def golden(repository) -> dict:
    return json.loads((repository / "tests/golden/ears.json").read_text())


def clip(path, seconds):
    audio = read_audio(path)
    return torch.from_numpy(resample(audio.mono, audio.sample_rate_hz, 16_000)[: round(16_000 * seconds)])


@pytest.fixture(scope="module")
def corpus(shared) -> dict:
    """Speaker -> paths of clips longer than three seconds."""
    files: dict = {}
    for path in sorted((shared / "data" / "corpus").glob("*/manifest.csv")):
        for row in csv.DictReader(path.open(encoding="utf-8"), delimiter="|"):
            if float(row["seconds"]) > 3:
                files.setdefault(row["speaker"], []).append(path.parent / row["file"])
    return files


def test_vectors_of_voices_are_those_of_speechbrain(ecapa, golden):
    for name, samples in signals().items():
        found = ecapa(torch.from_numpy(samples)).numpy()
        assert np.abs(found - golden[name]["ecapa"]).max() < 1e-4, name


def test_naturalness_is_what_the_package_distillmos_says(distillmos, golden):
    for name, samples in signals().items():
        assert float(distillmos(torch.from_numpy(samples))) == pytest.approx(golden[name]["distillmos"], abs=1e-4), name


def test_clips_of_one_speaker_are_nearer_than_those_of_others(ecapa, corpus):
    speakers = ("26", "27", "slt", "S0150", "LJ")
    vectors = {name: [ecapa(clip(path, 3.0)) for path in corpus[name][:2]] for name in speakers}
    own = min(float(first @ second) for first, second in vectors.values())
    others = max(float(vectors[a][0] @ vectors[b][0]) for a, b in combinations(speakers, 2))
    assert own > 0.55
    assert others < 0.40


def test_a_level_says_nothing_about_a_voice(ecapa, corpus):
    speech = clip(corpus["slt"][0], 3.0)
    assert float(ecapa(speech) @ ecapa(speech * 0.1)) > 0.999


def test_noise_and_holes_cost_naturalness(distillmos, corpus):
    speech = clip(corpus["slt"][0], 4.0)
    holes = speech * (torch.arange(len(speech)) // 800 % 4 > 0)
    noise = torch.randn(len(speech), generator=torch.Generator().manual_seed(0)) * speech.std() * 0.5
    clean = float(distillmos(speech))
    assert clean > 3.5
    assert float(distillmos(speech + noise)) < clean - 1.0
    assert float(distillmos(holes)) < clean - 1.0


@pytest.mark.parametrize("samples", [0, 1, 400, 16_000])
def test_ears_answer_clips_without_speech_and_of_no_length(ecapa, samples):
    vector = ecapa(torch.zeros(samples))
    assert vector.shape == (EMBEDDING_SIZE,)
    assert torch.isfinite(vector).all()


def test_windows_of_naturalness_cover_a_clip_of_any_length():
    assert [len(window) for window in windows(torch.zeros(10))] == [122_880]
    pieces = windows(torch.arange(400_000.0))
    assert pieces[0][0] == 0
    assert pieces[-1][-1] == 399_999
    assert all(int(b[0] - a[0]) <= 16_000 for a, b in pairwise(pieces))
    assert len(windows(torch.zeros(16_000 * 600))) == 24


@pytest.mark.parametrize("load", [load_ecapa, load_distillmos])
def test_a_file_of_something_else_is_refused(load, repository, tmp_path):
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"empty\.safetensors: not a safetensors file"):
        load(tmp_path / "empty.safetensors")
    with pytest.raises(WeightsError, match="not weights of this network"):
        load(repository / "models/ge2e/ge2e.safetensors")
