"""The pitch tracker and the harmonics drawn from it, on signals whose pitch is known."""

import math

import numpy as np
import pytest
import torch

from models.configs.synthesizer import SpectrogramConfig
from models.sound.harmonics import Harmonics, pitch_latent
from models.sound.pitch import PitchTracker
from models.sound.spectrogram import Spectrogram

FRAMES = SpectrogramConfig(sample_rate_hz=16000, n_fft=1024, win_samples=1024, hop_samples=320)


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


def test_the_comb_stands_where_the_harmonics_of_a_sound_stand():
    wave = voiced_sound(np.full(16000, 180.0))
    spec = Spectrogram(FRAMES)(wave)
    z = pitch_latent(PitchTracker(FRAMES).track(spec))
    comb, log_spec = Harmonics(FRAMES).comb(z)[0], spec[0].log()
    low = slice(8, 110)  # up to the tenth harmonic
    together = torch.corrcoef(torch.stack([comb[low, 20], log_spec[low, 20]]))[0, 1]
    assert together > 0.8
    other = Harmonics(FRAMES).comb(z + torch.tensor([0.9, 0.0])[:, None])[0]  # a pitch a third higher
    assert torch.corrcoef(torch.stack([other[low, 20], log_spec[low, 20]]))[0, 1] < together - 0.4


def test_phases_of_a_steady_pitch_advance_by_its_turns_per_frame():
    z = torch.zeros(1, 2, 30)
    z[:, 1] = 1.0
    harmonics = Harmonics(FRAMES)
    f0 = float(harmonics.split(z)[0][0, 0, 0])
    phase = harmonics.phase(z)[0]
    bin_ = round(f0 / 15.625)  # the first harmonic, fully voiced
    advance = torch.angle(phase[bin_, 11] / phase[bin_, 10])
    wanted = 2 * math.pi * f0 * 0.02
    assert abs(math.remainder(float(advance) - wanted, 2 * math.pi)) < 0.05


def test_pitch_passes_no_gradient_to_the_latent():
    z = torch.zeros(1, 6, 8, requires_grad=True)
    assert not Harmonics(FRAMES).comb(z).requires_grad
