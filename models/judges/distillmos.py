"""DistillMOS (Stahl and Gamper, ICASSP 2025): how natural speech sounds, 1 to 5, distilled from XLS-R 2B.

A second opinion beside DNSMOS: that one listens for noise, this one for what a voice sounds like. The numbers are those
of the package `distillmos` (`tests/golden/make_golden_ears.py`). Letters: N samples, W windows, T frames of 20 ms.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.weights import load_weights, read_weights

SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 122_880  # 7.68 s, what its transformer counts places for
LONGEST_HOP_SAMPLES = 16_000
MOST_WINDOWS = 24  # of a clip of half a minute; longer ones are heard in windows further apart
_FFT, _HOP, _COMPRESSION = 320, 160, 0.3
_CHANNELS = (2, 64, 64, 128, 256, 256, 256)
_FRAMES, _WIDTH, _HEADS, _LAYERS = 384, 200, 8, 7
_ROWS = 4  # frequencies that are left of 161
_PREFIXES = (("cnn.cnn.", "cnn."), ("transformer_pool_attn.transformer.", ""), ("transformer_pool_attn.", ""))


class DistillMos(nn.Module):
    """Mono 16 kHz samples (N,) -> score (), about 1 to 5, whatever their level."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        last = len(_CHANNELS) - 2
        for i, (before, after) in enumerate(pairwise(_CHANNELS)):
            stride = (1 if i == 0 else 2, 2 if i == last else 1)
            layers += [nn.Conv2d(before, after, 3, stride, padding=(0, 1)), nn.LeakyReLU(0.1)]
        self.cnn = nn.Sequential(*layers)
        self.norm_input = nn.BatchNorm1d(_CHANNELS[-1] * _ROWS)
        self.norm = nn.BatchNorm1d(_CHANNELS[-1] * _ROWS)
        self.linear_proj = nn.Linear(_CHANNELS[-1] * _ROWS, _WIDTH)
        self.position_encoding = nn.ParameterDict({"pe": nn.Parameter(torch.zeros(1, _FRAMES, _WIDTH))})
        layer = nn.TransformerEncoderLayer(_WIDTH, _HEADS, 2 * _WIDTH, dropout=0.0, batch_first=True)
        self.transformer_encoder = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)
        self.norm_trans = nn.BatchNorm1d(_WIDTH)
        sizes = {"linear1": (_WIDTH, 2 * _WIDTH), "linear2": (2 * _WIDTH, 1), "linear3": (_WIDTH, 1)}
        self.pool = nn.ModuleDict({name: nn.Linear(*size) for name, size in sizes.items()})

    @torch.inference_mode()
    def forward(self, samples: Tensor) -> Tensor:
        return torch.stack([self._score(window) for window in windows(samples)]).mean()

    def _score(self, window: Tensor) -> Tensor:
        """One window (122880,): several at once are no quicker, and cost 60 MB each."""
        x = self.cnn(_compressed(window / (window.abs().max() + 1e-8)))  # (1, 256, 4, T)
        x = self.norm(self.norm_input(x.flatten(1, 2))).transpose(1, 2)  # (1, 1024, T) -> (1, T, 1024)
        x = self.transformer_encoder(self.linear_proj(x) + self.position_encoding["pe"])
        x = self.norm_trans(x.transpose(1, 2)).transpose(1, 2)
        weight = F.softmax(self.pool["linear2"](F.relu(self.pool["linear1"](x))), dim=1)  # (1, T, 1)
        return 1 + 4 * torch.sigmoid(self.pool["linear3"]((weight * x).sum(dim=1)))[0, 0]


def windows(samples: Tensor) -> list[Tensor]:
    """(N,) -> pieces of 7.68 s at most a second apart, the last one at the end; a short clip is filled with silence."""
    over = len(samples) - WINDOW_SAMPLES
    if over <= 0:
        return [F.pad(samples, (0, -over))]
    count = min(MOST_WINDOWS, math.ceil(over / LONGEST_HOP_SAMPLES) + 1)
    starts = [int(share * over) for share in torch.linspace(0, 1, count, dtype=torch.float64).tolist()]
    return [samples[start : start + WINDOW_SAMPLES] for start in starts]


def _compressed(window: Tensor) -> Tensor:
    """(122880,) -> the spectrum with its magnitudes to the power 0.3, (1, 2, 161, 768)."""
    side = (_FFT - _HOP) // 2
    padded = F.pad(window[None], (side, side), mode="reflect")
    spectrum = torch.stft(padded, _FFT, _HOP, window=torch.hann_window(_FFT), center=False, return_complex=True)
    parts = torch.view_as_real(spectrum).permute(0, 3, 1, 2)  # (1, 161, 768, 2) -> (1, 2, 161, 768)
    magnitude = parts.square().sum(dim=1, keepdim=True).sqrt().clamp_min(1e-12)
    return magnitude**_COMPRESSION * parts / magnitude


@cache
def load_distillmos(path: Path) -> DistillMos:
    """The network of `distillmos.safetensors`. Raises WeightsError where the file holds another one."""
    network = DistillMos()
    load_weights(network, {_renamed(name): value for name, value in read_weights(path).items()}, path.name)
    return network.eval()


def _renamed(name: str) -> str:
    return next((new + name.removeprefix(old) for old, new in _PREFIXES if name.startswith(old)), name)
