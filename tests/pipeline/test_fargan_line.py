"""A voice on a base that speaks through FARGAN, from recordings to speech.

The base is small and holds random numbers, so the gate must stop the voice; all stages before and after it are real.
"""

from __future__ import annotations

import json

import pytest
import torch
from stopped import Stopped, describe_base, walk

from models.loading.voices import load_resynthesizer, load_voice
from models.sound.fargan import FEATURES
from models.speaking.voice import Manner, Reference, Sentence

pytestmark = pytest.mark.slow

SYNTHESIZER = {
    "acoustic": {
        "n_tokens": 32, "channels": 32, "hidden_channels": 64, "n_blocks": 2, "condition_channels": 16,
        "prosody_channels": 16, "prosody_blocks": 1,
    }
}  # fmt: skip


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, walked_once, write_tiny_base, write_tiny_voice) -> Stopped:
    root = tmp_path_factory.mktemp("fargan")
    folder = write_tiny_base(root)
    describe_base(folder, {"family": "fargan", "networks": {"synthesizer": SYNTHESIZER}})
    write_tiny_voice(root)
    return walk(root, walked_once)


def test_the_gate_stops_random_numbers(stopped: Stopped) -> None:
    assert stopped.exit_code == 11
    checks = {check["id"]: check for check in stopped.record("evaluate")["checks"]}
    assert checks["base.trained"]["status"] == "failed"


def test_every_clip_has_features_of_the_vocoder_and_no_speaker_vector(stopped: Stopped) -> None:
    for index, clip in enumerate(stopped.record("extract")["clips"]):
        said = stopped.clip(index)
        assert said.acoustic_features.shape == (FEATURES, 2 * clip["frames"])
        assert len(said.tokens) == clip["frames"] // 2
        assert said.speaker is None


def test_only_the_predictor_is_adapted_and_it_learns(stopped: Stopped) -> None:
    (part,) = [one for one in stopped.record("finetune")["parts"] if one["part"] == "synthesizer"]
    (group,) = part["groups"]
    assert group["heldout_loss"] < group["heldout_loss_before"]
    config = json.loads((stopped.folder("finetune") / "adapter/synthesizer/adapter_config.json").read_text())
    assert config["target_modules"]
    assert all(name.startswith("acoustic.stack.blocks.") for name in config["target_modules"])


def test_it_speaks_the_same_again_at_any_speed_whole_or_in_pieces(stopped: Stopped) -> None:
    voice = load_voice(stopped.base, stopped.work, torch.device("cpu"), stopped.adapters)
    reference = Reference(stopped.clip(0).wave, 16000)
    said = [Sentence(stopped.clip(1).phones[:12].long()), Sentence(stopped.clip(2).phones[:9].long())]
    first, again = (voice.speak(said, reference, Manner(seed=3)) for _ in range(2))
    assert first.sample_rate_hz == 16000
    assert torch.equal(first.wave, again.wave)
    assert torch.equal(first.wave[-len(alone := voice.speak(said[1:], reference, Manner(seed=3)).wave) :], alone)
    faster = voice.speak(said, reference, Manner(seed=3, speed=1.5))
    lengths = [sum(one.duration_s for one in speech.sentences) for speech in (first, faster)]
    assert lengths[1] == pytest.approx(lengths[0] / 1.5, abs=0.05)
    streamed = torch.cat([chunk.wave for chunk in voice.stream(said[:1], reference, Manner(seed=3))])
    whole = voice.speak(said[:1], reference, Manner(seed=3)).wave
    assert len(streamed) == len(whole)
    assert torch.nn.functional.cosine_similarity(streamed, whole, dim=0) > 0.9


def test_a_recording_is_copied_in_time_and_spoken_again_with_the_pitch_of_the_reference(stopped: Stopped) -> None:
    again = load_resynthesizer(stopped.base, stopped.work, torch.device("cpu"), stopped.adapters.synthesizer)
    clip = stopped.clip(0)
    copy, wave = again.copy(clip), clip.wave
    assert len(copy) == len(wave) // 320 * 320
    levels = [one[: len(copy)].reshape(-1, 160).square().mean(1).add(1e-6).log() for one in (copy, wave)]
    alike = [
        float(torch.corrcoef(torch.stack([levels[0][3 + lag : lag - 3], levels[1][3:-3]]))[0, 1]) for lag in (-2, 0, 2)
    ]
    assert alike[1] > 0.9 and alike[1] == max(alike)
    spoken = again.speak(clip.tokens, clip, clip, seed=1)
    assert len(spoken) == 640 * len(clip.tokens)
    assert spoken.isfinite().all() and 0.001 < spoken.square().mean().sqrt() < 0.5
