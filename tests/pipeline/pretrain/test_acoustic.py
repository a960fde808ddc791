"""The stage `acoustic`, on a recording and a small network."""

import math

import numpy as np
import pytest
import soundfile
import torch

from models.configs.acoustic import AcousticConfig, FarganSynthesizerConfig
from models.sound.fargan_analysis import analyse
from models.synthesizer.acoustic import PITCH, prosody_of, statistics
from models.synthesizer.fargan_synthesizer import FarganSynthesizer, Spoken
from pipeline.errors import SettingsError
from pipeline.io.audio import resample
from pipeline.pretrain.acoustic import (
    HeardClip,
    HeardClips,
    Mover,
    Passages,
    fargan_features,
    heard_clip,
    train_acoustic,
)
from pipeline.pretrain.loop import Run
from pipeline.pretrain.prepare import ALL_USES, Clip, Corpus, read_transcripts
from pipeline.pretrain.recipe import Stage

SMALL = AcousticConfig(
    n_tokens=20,
    channels=32,
    hidden_channels=64,
    n_blocks=2,
    condition_channels=16,
    prosody_channels=16,
    prosody_blocks=1,
)
STAGE = Stage(steps=40, batch=4, lr=3e-3, segment_s=1.0, warmup_steps=5)


@pytest.fixture(scope="module")
def features(shared):
    samples, _ = soundfile.read(shared / "data/voices/en_arctic_slt/wavs/slt_arctic_a0001.wav", dtype="float32")
    rows = analyse(torch.from_numpy(samples))
    return rows[: len(rows) // 2 * 2]


def clip_of(features, speaker: str) -> HeardClip:
    frames = len(features) // 2
    loud = (features[::2, 0] * 2).long().clamp(0, 19)  # tokens that tell something
    spoken = Spoken(loud[:frames], loud[:frames], torch.zeros(frames, 2))
    own = statistics(features)
    return HeardClip(speaker, spoken, features, own, prosody_of(features, own))


def test_a_passage_is_a_stretch_of_its_clip_and_its_reference_is_other_speech(features):
    parts = [clip_of(features[at : at + 80], "ana") for at in (0, 80, 160, 240)]
    passages = Passages([*parts, clip_of(features, "bob")], STAGE)
    drawn = passages.of([1, 4], np.random.default_rng(0))
    assert drawn.features.shape == (2, 100, 20) and drawn.said.tokens.shape == (2, 50)
    assert drawn.inside.sum(1).tolist() == [80, 100]
    assert torch.equal(drawn.features[0, :80], parts[1].features)
    others = statistics(torch.cat([parts[index].features for index in (0, 2, 3)]))
    assert torch.allclose(drawn.reference[0], others, atol=1e-4)
    places = [at for at in range(0, 236, 2) if torch.equal(features[at : at + 100], drawn.features[1])]
    rest = torch.cat([features[: max(places[0] - 20, 0)], features[places[0] + 120 :]])
    assert torch.allclose(drawn.reference[1], statistics(rest if len(rest) >= 200 else features), atol=1e-4)


def test_formants_move_with_the_bands_of_a_recording_and_pitch_by_itself(shared, features):
    """A recording played faster has both higher, so moving its features there must come near what is measured."""
    samples, _ = soundfile.read(shared / "data/voices/en_arctic_slt/wavs/slt_arctic_a0001.wav", dtype="float32")
    faster = resample(samples, 16000, 14000)  # heard at 16 kHz: higher and shorter by 8 / 7
    measured = statistics(analyse(torch.from_numpy(faster)))
    moved, same = statistics(Mover(8 / 7, math.log2(8 / 7))(features)), statistics(features)
    assert measured[PITCH] == pytest.approx(moved[PITCH], abs=0.05)
    assert (moved[1:12] - measured[1:12]).abs().mean() < 0.8 * (same[1:12] - measured[1:12]).abs().mean()
    assert torch.allclose(Mover(1.0, 0.1)(features)[:, :18], features[:, :18], atol=1e-4)


def test_a_faster_passage_has_shorter_phones_and_as_much_speech(features):
    clip = clip_of(features, "ana")
    stage = STAGE.model_copy(update={"options": {"tempo": 0.2}})
    drawn = Passages([clip], stage).of([0] * 30, np.random.default_rng(0))
    lengths = drawn.said.places[:, 0, 1]  # of a clip whose phones all have the usual length
    assert lengths.min() < -0.1 and lengths.max() > 0.1 and (lengths.abs() <= 0.2001).all()
    assert drawn.inside.all() and drawn.features.shape == (30, 100, 20)
    loud, token = drawn.features[:, ::2, 0], drawn.said.tokens.float()
    assert torch.corrcoef(torch.stack([loud.flatten(), token.flatten()]))[0, 1] > 0.8


def test_it_learns_and_continues_as_if_it_had_not_been_killed(features, tmp_path):
    clips = HeardClips([clip_of(features, "ana")], [clip_of(features[:160], "bob")])
    networks = []
    for folder, stops in (("whole", (61,)), ("killed", (30, 61))):
        for steps in stops:
            torch.manual_seed(0)
            network = FarganSynthesizer(FarganSynthesizerConfig(acoustic=SMALL))
            # a warm-up throughout: the rate of a step is the same in both
            stage = STAGE.model_copy(update={"steps": steps, "lr": STAGE.lr, "warmup_steps": 61})
            train_acoustic(network.acoustic, clips, Run(stage, tmp_path / folder, 7, torch.device("cpu")))
        networks.append(network.acoustic.state_dict())
    for name, value in networks[0].items():
        assert torch.equal(value, networks[1][name]), name
    rows = [line.split(",") for line in (tmp_path / "whole/log.csv").read_text().splitlines()]
    losses = [float(row[3]) for row in rows if row[2] == "loss"]
    assert losses[-1] < losses[0]
    assert any(row[2] == "held_out/features" for row in rows)


def test_features_of_a_corpus_are_measured_once(shared, tmp_path, features):
    samples, _ = soundfile.read(shared / "data/voices/en_arctic_slt/wavs/slt_arctic_a0001.wav", dtype="int16")
    clip = Clip("a.wav", "slt", "en", "", ALL_USES, 0, len(samples))
    (found,) = fargan_features(Corpus([clip], samples), tmp_path / "fargan.npz")
    assert np.allclose(found[: len(features)], features.numpy(), atol=1e-3)
    silent = Corpus([clip], np.zeros_like(samples))
    assert np.array_equal(fargan_features(silent, tmp_path / "fargan.npz")[0], found)


def test_a_clip_that_does_not_hold_its_text_is_left_out(features):
    network = FarganSynthesizer(FarganSynthesizerConfig(acoustic=SMALL))
    clip = Clip("a.wav", "slt", "en", "", ALL_USES, 0, 100)
    assert heard_clip(network, clip, torch.zeros(4, dtype=torch.long), torch.arange(20, 60), features.numpy()) is None


def test_texts_that_a_manifest_lacks_are_read_as_they_are_spoken(tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text("# heard\nfile|text|cer\na.flac|Chapter 23, at last|0.1\n")
    assert read_transcripts(path) == {"a.flac": "Chapter twenty-three, at last"}
    path.write_text("name|text\n")
    with pytest.raises(SettingsError, match=r"texts\.csv: no header"):
        read_transcripts(path)
