"""ECAPA-TDNN (Desplanques et al. 2020) as SpeechBrain trained it on VoxCeleb: whose voice is this?

It conditions no base, so a voice cannot be trained to please it. Its vectors are SpeechBrain's to six digits
(`tests/golden/make_golden_ears.py`). Letters: N samples, T frames of 10 ms, B clips, C channels.
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.weights import load_weights, read_weights

SAMPLE_RATE_HZ = 16_000
EMBEDDING_SIZE = 192
SHORTEST_SAMPLES = 3_200  # less is filled up with silence: reflections at the ends need some frames
_FFT, _HOP, _MELS = 400, 160, 80
_CHANNELS, _WIDE, _SCALE = 1024, 3072, 8
_FLOOR_POWER, _RANGE_DB = 1e-10, 80.0


class Ecapa(nn.Module):
    """Mono 16 kHz samples (N,) in [-1, 1] -> a unit vector (192,), whatever their level."""

    def __init__(self) -> None:
        super().__init__()
        first = _Tdnn(_MELS, _CHANNELS, 5)
        self.blocks = nn.ModuleList([first, *(_SeRes2Net(_CHANNELS, dilation) for dilation in (2, 3, 4))])
        self.mfa = _Tdnn(3 * _CHANNELS, _WIDE)
        self.asp = _AttentiveStatistics(_WIDE)
        self.asp_bn = nn.BatchNorm1d(2 * _WIDE)
        self.fc = nn.Conv1d(2 * _WIDE, EMBEDDING_SIZE, 1)

    @torch.inference_mode()
    def forward(self, samples: Tensor) -> Tensor:
        x = log_mels(F.pad(samples, (0, max(0, SHORTEST_SAMPLES - len(samples))))).T[None]  # (1, 80, T)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        x = self.mfa(torch.cat(outputs[1:], dim=1))
        vector = self.fc(self.asp_bn(self.asp(x)))[0, :, 0]
        return vector / vector.norm().clamp_min(1e-9)


class _Tdnn(nn.Module):
    """Convolution over time, reflected at the ends, then ReLU, then batch normalisation: in that order."""

    def __init__(self, before: int, after: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.conv = nn.Conv1d(before, after, kernel, dilation=dilation, padding=padding, padding_mode="reflect")
        self.norm = nn.BatchNorm1d(after)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.relu(self.conv(x)))


class _SeRes2Net(nn.Module):
    """Channels in eight parts, each but the first hearing the one before it; then all weighed by their means."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        width = channels // _SCALE
        self.tdnn1 = _Tdnn(channels, channels)
        self.parts = nn.ModuleList(_Tdnn(width, width, 3, dilation) for _ in range(_SCALE - 1))
        self.tdnn2 = _Tdnn(channels, channels)
        self.se_block = nn.ModuleDict({"conv1": nn.Conv1d(channels, 128, 1), "conv2": nn.Conv1d(128, channels, 1)})

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.tdnn1(x).chunk(_SCALE, dim=1))
        for i, block in enumerate(self.parts, 1):
            parts[i] = block(parts[i] if i == 1 else parts[i] + parts[i - 1])
        y = self.tdnn2(torch.cat(parts, dim=1))
        weight = F.relu(self.se_block["conv1"](y.mean(dim=2, keepdim=True)))
        return x + y * torch.sigmoid(self.se_block["conv2"](weight))


class _AttentiveStatistics(nn.Module):
    """(B, C, T) -> (B, 2 C, 1): mean and deviation over time, by weights that have seen the whole clip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.tdnn = _Tdnn(3 * channels, 128)
        self.conv = nn.Conv1d(128, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean, deviation = _statistics(x, torch.full_like(x[:1, :1], 1 / x.shape[2]))
        # Mean and deviation are the same for every frame: the convolution meets them once.
        conv = self.tdnn.conv
        own, whole = conv.weight.split([x.shape[1], 2 * x.shape[1]], dim=1)
        seen = F.conv1d(x, own) + F.conv1d(torch.cat([mean, deviation], dim=1)[:, :, None], whole, conv.bias)
        weight = F.softmax(self.conv(torch.tanh(self.tdnn.norm(F.relu(seen)))), dim=2)
        return torch.cat(_statistics(x, weight), dim=1)[:, :, None]


def _statistics(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    mean = (weight * x).sum(dim=2)
    variance = (weight * (x - mean[:, :, None]).square()).sum(dim=2)
    return mean, variance.clamp_min(1e-12).sqrt()


def log_mels(samples: Tensor) -> Tensor:
    """Mono 16 kHz (N,) -> dB of 80 mel bands without their mean over the clip, (T, 80), T = N // 160 + 1."""
    window = torch.hamming_window(_FFT)
    spectrum = torch.stft(samples, _FFT, _HOP, window=window, pad_mode="constant", return_complex=True)  # (201, T)
    power = (spectrum.real.square() + spectrum.imag.square()).T @ _mel_filters()
    level = 10.0 * power.clamp_min(_FLOOR_POWER).log10()
    level = level.clamp_min(float(level.max()) - _RANGE_DB)
    return level - level.mean(dim=0)


@lru_cache(maxsize=1)
def _mel_filters() -> Tensor:
    """(201, 80): SpeechBrain's triangles, as wide to the right as to the left in Hz."""
    top = 2595.0 * torch.log10(torch.tensor(1 + SAMPLE_RATE_HZ / 2 / 700)).item()
    hz = 700.0 * (10.0 ** (torch.linspace(0.0, top, _MELS + 2) / 2595.0) - 1.0)
    slope = (torch.linspace(0, SAMPLE_RATE_HZ / 2, _FFT // 2 + 1)[:, None] - hz[1:-1]) / (hz[1:] - hz[:-1])[:-1]
    return torch.minimum(slope + 1.0, 1.0 - slope).clamp_min(0.0)


@cache
def load_ecapa(path: Path) -> Ecapa:
    """The network of `ecapa.safetensors`. Raises WeightsError where the file holds another one."""
    network = Ecapa()
    load_weights(network, {_unwrapped(name): value for name, value in read_weights(path).items()}, path.name)
    return network.eval()


def _unwrapped(name: str) -> str:
    """SpeechBrain wraps every convolution and norm once more: blocks.0.conv.conv.weight."""
    *path, _, kind = name.replace("res2net_block.blocks", "parts").split(".")
    return ".".join((*path, kind))
