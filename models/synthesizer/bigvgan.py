"""BigVGAN-v2, the vocoder of v3: log mel -> 24 kHz wave (docs/networks/flow-matching.md; arXiv:2206.04658).

Shapes: B batch, C channels, T samples at the stage's rate.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks.weight_norm import NormedConv1d, NormedConvTranspose1d
from models.configs.vocoder import BigVGANConfig

FILTER_TAPS = 12
ANTI_ALIAS_FACTOR = 2


class BigVGAN(nn.Module):
    """Transposed convolutions up to the wave, each followed by the mean of anti-aliased residual blocks."""

    def __init__(self, config: BigVGANConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.upsample_initial_channel
        self.conv_pre = NormedConv1d(config.mel_channels, channels, 7, padding=3)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for rate, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            up = NormedConvTranspose1d(channels, channels // 2, kernel, rate, padding=(kernel - rate) // 2)
            self.ups.append(nn.Sequential(up))
            channels //= 2
            for size, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                self.resblocks.append(AntiAliasedBlock(channels, size, dilations))
        self.activation_post = AntiAliasedSnake(channels)
        self.conv_post = NormedConv1d(channels, 1, 7, padding=3, bias=config.use_bias_at_final)

    def forward(self, mel: Tensor) -> Tensor:
        """(B, mel_channels, frames) natural-log mel -> (B, 1, frames * hop_samples) in [-1, 1]."""
        x = self.conv_pre(mel)
        kinds = len(self.config.resblock_kernel_sizes)
        for index, up in enumerate(self.ups):
            x = up(x)
            blocks = self.resblocks[index * kinds : (index + 1) * kinds]
            x = torch.stack([block(x) for block in blocks]).mean(dim=0)
        x = self.conv_post(self.activation_post(x))
        return torch.tanh(x) if self.config.use_tanh_at_final else x.clamp(-1.0, 1.0)


class AntiAliasedBlock(nn.Module):
    """For each dilation: snake, dilated convolution, snake, convolution, added to the input."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()

        def convolution(dilation: int) -> nn.Module:
            padding = (kernel - 1) * dilation // 2
            return NormedConv1d(channels, channels, kernel, dilation=dilation, padding=padding)

        self.convs1 = nn.ModuleList(convolution(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(convolution(1) for _ in dilations)
        self.activations = nn.ModuleList(AntiAliasedSnake(channels) for _ in range(2 * len(dilations)))

    def forward(self, x: Tensor) -> Tensor:
        for index, (dilated, plain) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            before, between = self.activations[2 * index], self.activations[2 * index + 1]
            x = x + plain(between(dilated(before(x))))
        return x


class AntiAliasedSnake(nn.Module):
    """The snake at twice the rate, so that the harmonics it makes are filtered out instead of folded back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.act = SnakeBeta(channels)
        self.upsample = Upsample()
        self.downsample = Downsample()

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.act(self.upsample(x)))


class SnakeBeta(nn.Module):
    """x + sin^2(a x) / b, with a and b stored as logarithms, one of each per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        frequency, amplitude = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return x + torch.sin(x * frequency).square() / (amplitude + 1e-9)


class Upsample(nn.Module):
    """Doubles the rate with the low-pass filter: (B, C, T) -> (B, C, 2 T)."""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", _low_pass().view(1, 1, -1))

    def forward(self, x: Tensor) -> Tensor:
        rate, taps = ANTI_ALIAS_FACTOR, FILTER_TAPS
        edge = taps // rate - 1
        padded = F.pad(x, (edge, edge), mode="replicate")
        kernel = self.filter.expand(x.shape[1], -1, -1)
        y = rate * F.conv_transpose1d(padded, kernel, stride=rate, groups=x.shape[1])
        cut = edge * rate + (taps - rate) // 2
        return y[..., cut:-cut]


class LowPass(nn.Module):
    """Filters and keeps every second sample: (B, C, 2 T) -> (B, C, T)."""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", _low_pass().view(1, 1, -1))

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (FILTER_TAPS // 2 - 1, FILTER_TAPS // 2), mode="replicate")
        kernel = self.filter.expand(x.shape[1], -1, -1)
        return F.conv1d(padded, kernel, stride=ANTI_ALIAS_FACTOR, groups=x.shape[1])


class Downsample(nn.Module):
    """Halves the rate. A module of its own only because the published names have it."""

    def __init__(self) -> None:
        super().__init__()
        self.lowpass = LowPass()

    def forward(self, x: Tensor) -> Tensor:
        return self.lowpass(x)


def _low_pass() -> Tensor:
    """(taps,) Kaiser-windowed sinc that sums to one: cut-off at a quarter of the rate."""
    cutoff, half_width = 0.5 / ANTI_ALIAS_FACTOR, 0.6 / ANTI_ALIAS_FACTOR
    attenuation = 2.285 * (FILTER_TAPS // 2 - 1) * math.pi * 4 * half_width + 7.95
    window = torch.kaiser_window(FILTER_TAPS, periodic=False, beta=_kaiser_beta(attenuation))
    time = torch.arange(-(FILTER_TAPS // 2), FILTER_TAPS // 2) + 0.5
    taps = 2 * cutoff * window * torch.sinc(2 * cutoff * time)
    return taps / taps.sum()


def _kaiser_beta(attenuation_db: float) -> float:
    """Kaiser's rule for the window that reaches an attenuation."""
    if attenuation_db > 50:
        return 0.1102 * (attenuation_db - 8.7)
    if attenuation_db >= 21:
        return 0.5842 * (attenuation_db - 21) ** 0.4 + 0.07886 * (attenuation_db - 21)
    return 0.0
