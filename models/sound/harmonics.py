"""What a pitch says about a spectrum: where its harmonics stand and how their phases run. No weights to learn.

A small base cannot learn from minutes of speech to draw harmonics or to keep them in phase. So its latent carries pitch
and voicing in the first two channels, and the comb of harmonics is taken out of the log magnitude before the
posterior sees it and put back by the decoder.
Letters: B batch, F bins, T frames.
"""

import math

import torch
from torch import Tensor, nn

from models.configs.synthesizer import SpectrogramConfig
from models.sound.pitch import PitchTrack
from models.sound.spectrogram import float32_region

PITCH_CHANNELS = 2
LOG_F0_MEAN, LOG_F0_SPREAD = 5.0, 0.35  # of natural log Hz; adult speech is 4.4 to 5.7
COMB_FLOOR = 0.03  # of the main lobe: how deep the valleys between harmonics can be
NOISE_FRAMES = 67  # after which the fixed random phases of unvoiced sound repeat
LOWEST_LOG_F0, HIGHEST_LOG_F0 = math.log(50.0), math.log(500.0)


def pitch_latent(track: PitchTrack) -> Tensor:
    """The first two channels of z: (B, 2, T)."""
    return torch.stack([(track.log_f0 - LOG_F0_MEAN) / LOG_F0_SPREAD, 2 * track.voicing - 1], dim=1)


class Harmonics(nn.Module):
    """From the pitch channels of z to a comb in log magnitude and to phases."""

    depth: Tensor
    bins_hz: Tensor
    noise: Tensor

    def __init__(self, config: SpectrogramConfig) -> None:
        super().__init__()
        self.config = config
        hz = torch.arange(config.bins) * (config.sample_rate_hz / config.n_fft)
        self.register_buffer("bins_hz", hz, persistent=False)
        # How much of the ideal comb real speech shows at each frequency; measured by `Synthesizer.set_pca`.
        self.register_buffer("depth", torch.clamp(1 - hz / 5000.0, min=0.0))
        self.register_buffer("noise", _noise_phases(config), persistent=False)

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """F0 in Hz and voicing in 0..1 from z, each (B, 1, T), without gradient."""
        pitch = z[:, :PITCH_CHANNELS].detach().float()
        log_f0 = (pitch[:, :1] * LOG_F0_SPREAD + LOG_F0_MEAN).clamp(LOWEST_LOG_F0, HIGHEST_LOG_F0)
        return log_f0.exp(), ((pitch[:, 1:] + 1) / 2).clamp(0, 1)

    def comb(self, z: Tensor) -> Tensor:
        """Log magnitude of harmonics around their local mean: (B, F, T), 0 where nothing is voiced."""
        with float32_region(z):
            f0, voicing = self.split(z)
            return self.shape(f0) * voicing * self.depth[:, None]

    def shape(self, f0: Tensor) -> Tensor:
        """The ideal comb: a Hann window's main lobe at every harmonic, less its mean over one period."""
        place = self.bins_hz[:, None] / f0  # (B, F, T), in harmonics
        width = self.config.sample_rate_hz / self.config.win_samples  # Hz of one bin of the window
        offset = (place - place.round()) * f0 / width
        grid = torch.linspace(-0.5, 0.5, 33, device=f0.device)[:, None] * f0 / width  # (B, 33, T): one period
        return _log_lobe(offset) - _log_lobe(grid).mean(1, keepdim=True)

    def phase(self, z: Tensor) -> Tensor:
        """Unit phases (B, F, T), complex64: harmonics of one running phase where voiced, fixed noise elsewhere."""
        with float32_region(z):
            f0, voicing = self.split(z)
            hop_s = self.config.hop_samples / self.config.sample_rate_hz
            turns = torch.cumsum(f0.double(), dim=2) * hop_s - 0.5 * (f0.double() * hop_s)  # (B, 1, T), at mid-frame
            order = (self.bins_hz[:, None] / f0).round()  # harmonic nearest to each bin
            # A window that is symmetric about its middle turns bin m by -pi m against the phase at the middle.
            middle = torch.arange(self.config.bins, device=z.device)[:, None] * math.pi
            angle = (order.double() * (turns % 1.0) * 2 * math.pi).float() - middle
            frames = z.shape[2]
            noise = self.noise.repeat(1, math.ceil(frames / NOISE_FRAMES))[:, :frames]
            share = (voicing * self.depth[:, None] / self.depth.max().clamp(min=1e-3)).clamp(0, 1)
            mixed = torch.polar(share, angle) + torch.polar(1 - share, noise.expand_as(angle))
            return mixed / mixed.abs().clamp(min=1e-3)


def _noise_phases(config: SpectrogramConfig) -> Tensor:
    """Phases of white noise (F, NOISE_FRAMES) in overlapping frames, which fit together."""
    samples = (NOISE_FRAMES - 1) * config.hop_samples + config.n_fft
    wave = torch.randn(samples, generator=torch.Generator().manual_seed(1))
    frames = wave.unfold(0, config.n_fft, config.hop_samples) * torch.hann_window(config.n_fft)
    return torch.fft.rfft(frames).angle().T.contiguous()


def _log_lobe(offset: Tensor) -> Tensor:
    """Log of a Hann window's spectrum `offset` bins from its centre, relative to it, floored."""
    x = offset.abs().clamp(min=1e-4)
    lobe = torch.sin(math.pi * x) / (math.pi * x * (1 - x.square()).where((1 - x).abs() > 1e-3, torch.ones_like(x)))
    lobe = torch.where((x - 1).abs() <= 1e-3, torch.full_like(x, 0.5), lobe)
    return torch.log(lobe.abs() * (x < 2) + COMB_FLOOR)
