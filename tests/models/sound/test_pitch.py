"""The pitch tracker, on signals whose pitch is known."""

import math

import numpy as np
import pytest
import torch

from models.sound.pitch import PitchTracker


def voiced_sound(pitch_hz: np.ndarray) -> torch.Tensor:
    """Ten falling harmonics of a pitch that is given for every sample."""
    phase = 2 * np.pi * np.cumsum(pitch_hz) / 16000
    wave = sum(np.cos(k * phase) / k for k in range(1, 11)) * 0.1
    return torch.from_numpy(wave.astype(np.float32))[None]


@pytest.mark.parametrize("pitch_hz", [75.0, 118.0, 205.0, 390.0])
def test_a_steady_tone_has_its_pitch(pitch_hz):
    track = PitchTracker()(voiced_sound(np.full(16000, pitch_hz)))
    inside = slice(4, -4)
    assert torch.allclose(track.log_f0[0, inside], torch.tensor(math.log(pitch_hz)), atol=0.01)
    assert (track.voicing[0, inside] > 0.9).all()


def test_a_glide_is_followed_without_octave_jumps():
    pitch = np.linspace(110.0, 190.0, 24000)
    track = PitchTracker()(voiced_sound(pitch))
    wanted = torch.from_numpy(np.log(pitch[160::320])).float()[: track.log_f0.shape[1]]
    assert (track.log_f0[0, 4:-4] - wanted[4:-4]).abs().max() < 0.04


def test_noise_and_silence_are_not_voiced():
    noise = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    assert (PitchTracker()(noise).voicing > 0.5).float().mean() < 0.1
    silence = PitchTracker()(torch.zeros(1, 16000))
    assert (silence.voicing == 0).all() and silence.log_f0.isfinite().all()
