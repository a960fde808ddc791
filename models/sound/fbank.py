"""Kaldi-compatible log mel filter bank, the input of the speaker encoder (docs/networks/signals.md)."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from models.configs.speaker import FbankConfig


def fbank(wave: Tensor, config: FbankConfig) -> Tensor:
    """Log mel energies.

    Args:
        wave: samples in [-1, 1] at ``config.sample_rate_hz``, (T,) or (B, T).

    Returns:
        (frames, mel_bins) or (B, frames, mel_bins), frames = 1 + (T - frame) // hop.

    Raises:
        ValueError: the wave is shorter than one frame.
    """
    if wave.shape[-1] < config.frame_samples:
        raise ValueError(f"{wave.shape[-1]} samples are fewer than one frame of {config.frame_samples}")
    frames = wave.unfold(-1, config.frame_samples, config.hop_samples)  # (..., T) -> (..., frames, frame)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)  # the first sample stands before itself
    frames = (frames - config.preemphasis * previous) * _povey_window(config.frame_samples).to(frames)
    power = torch.fft.rfft(frames, n=config.fft_samples).abs().square()[..., :-1]  # Kaldi leaves the Nyquist bin out
    energies = power @ _mel_triangles(config).to(power).T
    return energies.clamp_min(config.log_floor).log()


@lru_cache(maxsize=4)
def _povey_window(length: int) -> Tensor:
    """A symmetric Hann window to the power 0.85."""
    return torch.hann_window(length, periodic=False, dtype=torch.float64).pow(0.85).float()


@lru_cache(maxsize=4)
def _mel_triangles(config: FbankConfig) -> Tensor:
    """(mel_bins, fft_samples / 2) weights of triangles that are straight on the mel axis."""
    high_hz = config.high_hz or config.sample_rate_hz / 2
    low, high = _mel(config.low_hz), _mel(high_hz)
    corners = torch.linspace(low, high, config.mel_bins + 2, dtype=torch.float64)
    left, center, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    bins_hz = torch.arange(config.fft_samples // 2, dtype=torch.float64) * config.sample_rate_hz / config.fft_samples
    bins = 1127.0 * torch.log1p(bins_hz / 700.0)
    rising, falling = (bins - left) / (center - left), (right - bins) / (right - center)
    return torch.minimum(rising, falling).clamp_min(0.0).float()


def _mel(frequency_hz: float) -> float:
    return 1127.0 * math.log1p(frequency_hz / 700.0)
