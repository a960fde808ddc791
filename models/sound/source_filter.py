"""Phases for a spectrum that was predicted: those of harmonics and noise which the spectrum's own envelope has shaped.

What a prior predicts is the spectrum of no real sound. Griffin-Lim rounds then settle on phases that flutter from frame
to frame, which is heard as roughness and noise. Pulses of a gliding pitch through a filter cannot flutter.
Letters: B batch, F bins, T frames, N = T * hop samples.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.configs.synthesizer import SpectrogramConfig
from models.sound.harmonics import Harmonics
from models.sound.spectrogram import InverseSpectrogram

DOMINANCE = 8.0  # of harmonics over noise, as amplitudes: the sum of both would be as rough as their mixture is
DECISION = 2.0  # how much steeper voicing is taken than it was predicted: means are undecided
SHARE_EXPONENT = 0.25  # of the depth of harmonics: also shallow ones lead
FINER = 4  # times as many frames, of half the window, for the filter
SHARPENING = 0.3  # of an envelope's distance from its mean over NEIGHBOURS bins, in log magnitude
NEIGHBOURS = 41
FAINT = 0.02  # magnitude below which nothing is sharpened
NYQUIST_SHARE = 0.99  # of half the sample rate, up to which there are harmonics


class SourceFilter(nn.Module):
    """Pitch channels of z and an envelope (B, F, T) -> magnitude and unit phases (B, F, T)."""

    def __init__(self, frames: SpectrogramConfig) -> None:
        super().__init__()
        self.coarse = InverseSpectrogram(frames)
        half = {"n_fft": frames.n_fft // 2, "win_samples": frames.win_samples // 2}
        self.fine = InverseSpectrogram(frames.model_copy(update=half | {"hop_samples": frames.hop_samples // FINER}))

    def forward(self, harmonics: Harmonics, z: Tensor, envelope: Tensor) -> tuple[Tensor, Tensor]:
        envelope = sharpen(envelope)
        f0, voicing = harmonics.split(z)
        decided = ((voicing - 0.5) * DECISION + 0.5).clamp(0, 1)
        depth = harmonics.depth[:, None] / harmonics.depth.max().clamp(min=1e-3)
        share = (decided * depth).clamp(0, 1) ** SHARE_EXPONENT  # (B, F, T), of harmonics
        wave = self._filtered(self._pulses(f0), envelope * share.sqrt() * DOMINANCE)
        wave = wave + self._filtered(_noise(wave), envelope * (1 - share).sqrt())
        spectrum = self.coarse.analyse(self._padded(wave, self.coarse))
        return envelope * harmonics.comb(z).exp(), spectrum / spectrum.abs().clamp(min=1e-6)

    def _pulses(self, f0: Tensor) -> Tensor:
        """All harmonics of a gliding pitch (B, 1, T) in phase, of unit power: (B, N), the sum in closed form."""
        config = self.coarse.config
        samples = f0.shape[2] * config.hop_samples
        hz = F.interpolate(f0.log(), size=samples, mode="linear", align_corners=False)[:, 0].double().exp()
        half = torch.cumsum(hz / config.sample_rate_hz, dim=1) * math.pi  # half of the phase of the first harmonic
        count = torch.floor(NYQUIST_SHARE * config.sample_rate_hz / 2 / hz)
        below = torch.sin(half)
        at_pulse = below.abs() < 1e-6
        total = torch.sin((2 * count + 1) * half) / (2 * below.where(~at_pulse, torch.ones_like(below))) - 0.5
        return (total.where(~at_pulse, count) * 2 * (hz / config.sample_rate_hz).sqrt()).float()

    def _filtered(self, wave: Tensor, gain: Tensor) -> Tensor:
        """A wave (B, N) through a filter that changes: magnitudes (B, F, T), no phase of its own."""
        spectrum = self.fine.analyse(self._padded(wave, self.fine))
        gains = F.interpolate(gain[:, ::2], size=spectrum.shape[2], mode="linear", align_corners=False)
        padding = _padding(self.fine)
        return self.fine.overlap_add(spectrum * gains)[:, padding : padding + wave.shape[1]]

    @staticmethod
    def _padded(wave: Tensor, frames: InverseSpectrogram) -> Tensor:
        padding = _padding(frames)
        return F.pad(wave[:, None], (padding, padding), mode="reflect")[:, 0]


def sharpen(envelope: Tensor) -> Tensor:
    """Raise what stands above its neighbours in magnitudes (B, F, T), lower the rest: means have flat formants."""
    loud = (envelope + FAINT).log()
    edges = F.pad(loud.transpose(1, 2), (NEIGHBOURS // 2, NEIGHBOURS // 2), mode="replicate")
    around = F.avg_pool1d(edges, NEIGHBOURS, 1).transpose(1, 2)
    return ((loud + SHARPENING * (loud - around)).exp() - FAINT).clamp(min=0)


def _noise(like: Tensor) -> Tensor:
    """Noise of unit power, the same for every sentence: (B, N)."""
    noise = torch.randn(like.shape[1], generator=torch.Generator().manual_seed(1))
    return noise.to(like.device).expand_as(like)


def _padding(frames: InverseSpectrogram) -> int:
    return (frames.config.n_fft - frames.config.hop_samples) // 2
