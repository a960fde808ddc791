"""Fundamental frequency from spectra, in closed form: no weights, so nothing to train and nothing to store.

Letters: B batch, N samples, F bins, K candidates, T frames.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.configs.synthesizer import SpectrogramConfig
from models.sound.spectrogram import Spectrogram, float32_region

LOWEST_HZ, HIGHEST_HZ, CANDIDATES = 60.0, 420.0, 128
COMPRESSION = 1.0  # exponent of the magnitude: between the square, which follows formants, and the logarithm
OCTAVE_COST = 0.06  # per octave below the highest candidate: half the pitch explains the same harmonics
JUMP_COST = 6.0  # per neper and frame of the smoothed path
VOICED_AT, VOICED_SPREAD = 0.22, 0.05


@dataclass(frozen=True)
class PitchTrack:
    """Per frame (B, T): natural log of Hz (through unvoiced stretches too), voicing in 0..1, log level."""

    log_f0: Tensor
    voicing: Tensor
    level: Tensor


class PitchTracker(nn.Module):
    """Autocorrelation of the compressed spectrum on a logarithmic grid, then the best smooth path."""

    cosines: Tensor
    log_candidates: Tensor

    def __init__(self, config: SpectrogramConfig | None = None) -> None:
        super().__init__()
        config = config or SpectrogramConfig(sample_rate_hz=16000, n_fft=1024, win_samples=1024, hop_samples=320)
        self.spectrogram = Spectrogram(config)
        log_candidates = torch.linspace(math.log(LOWEST_HZ), math.log(HIGHEST_HZ), CANDIDATES, dtype=torch.float64)
        bins_hz = torch.linspace(0, config.sample_rate_hz / 2, config.bins, dtype=torch.float64)
        used = (bins_hz > 50) & (bins_hz < 3000)  # above, harmonics of a moving pitch smear
        cosines = torch.cos(2 * math.pi * bins_hz[:, None] / log_candidates.exp()[None]) * used[:, None]
        self.register_buffer("cosines", cosines.float(), persistent=False)
        self.register_buffer("log_candidates", log_candidates.float(), persistent=False)

    def forward(self, wave: Tensor) -> PitchTrack:
        return self.track(self.spectrogram(wave))

    @torch.no_grad()
    def track(self, magnitude: Tensor) -> PitchTrack:
        """(B, F, T) linear magnitude -> the track."""
        with float32_region(magnitude):
            weight = magnitude.float().pow(COMPRESSION).transpose(1, 2)  # (B, F, T) -> (B, T, F)
            used = self.cosines.abs().amax(1) > 0
            score = (weight @ self.cosines) / (weight @ used.float()[:, None] + 1e-3)  # (B, T, K), 1 is periodic
            octave = (self.log_candidates - self.log_candidates[0]) / math.log(2)
            path = self._smooth(score + OCTAVE_COST * octave)
            log_f0, peak = self._refine(score, path)
            level = torch.log(magnitude.float().square().mean(1) + 1e-6)
            voicing = torch.sigmoid((peak - VOICED_AT) / VOICED_SPREAD) * (level > -9.0)
            return PitchTrack(_bridge(log_f0, voicing), voicing, level)

    def _smooth(self, score: Tensor) -> Tensor:
        """Path of candidates (B, T) with the best sum of scores less jumps."""
        jump = (JUMP_COST / 10) * (self.log_candidates[:, None] - self.log_candidates[None]).abs()  # (K, K)
        jump = jump.clamp(max=0.5)
        best, back = score[:, 0], []
        for t in range(1, score.shape[1]):
            arrive = best[:, None, :] - jump  # (B, K to, K from)
            value, origin = arrive.max(dim=2)
            best = value + score[:, t]
            back.append(origin)
        path = [best.argmax(1)]
        for origin in reversed(back):
            path.append(origin.gather(1, path[-1][:, None])[:, 0])
        return torch.stack(path[::-1], dim=1)

    def _refine(self, score: Tensor, path: Tensor) -> tuple[Tensor, Tensor]:
        """Vertex of the parabola through the chosen candidate and its neighbours: log F0 and its score."""
        middle = path.clamp(1, CANDIDATES - 2)[..., None]
        left, centre, right = (score.gather(2, middle + shift)[..., 0] for shift in (-1, 0, 1))
        bend = (left - 2 * centre + right).clamp(max=-1e-4)
        offset = (0.5 * (left - right) / bend).clamp(-0.7, 0.7)
        step = self.log_candidates[1] - self.log_candidates[0]
        return self.log_candidates[middle[..., 0]] + offset * step, centre - 0.25 * (left - right) * offset


def _bridge(log_f0: Tensor, voicing: Tensor, reach: int = 12) -> Tensor:
    """Through unvoiced frames, the pitch of the voiced ones around, by a mean weighted with voicing and nearness."""
    offsets = torch.arange(-reach, reach + 1, dtype=log_f0.dtype, device=log_f0.device)
    kernel = torch.exp(-offsets.abs() / 2.5)[None, None]
    weight = voicing.square() + 1e-5
    total = torch.nn.functional.conv1d((log_f0 * weight)[:, None], kernel, padding=reach)[:, 0]
    around = total / torch.nn.functional.conv1d(weight[:, None], kernel, padding=reach)[:, 0]
    return torch.where(voicing > 0.5, log_f0, around)
