"""ERes2NetV2, the speaker encoder behind v2Pro and v2ProPlus (docs/networks/signals.md; arXiv:2406.02167).

Shapes: B batch, C channels, F frequency rows, T frames. Inputs are fbank features (B, T, mel_bins).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.configs.speaker import SpeakerEncoderConfig


class SpeakerEncoder(nn.Module):
    """Turns fbank features into the speaker vector that conditions v2Pro (``forward``)."""

    def __init__(self, config: SpeakerEncoderConfig) -> None:
        super().__init__()
        self.config = config
        channels, wide = config.channels, config.channels * 8 * config.expansion
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        stages = []
        in_channels = channels
        for index, blocks in enumerate(config.blocks):
            planes = channels * 2**index
            stages.append(_stage(config, in_channels, planes, blocks, stride=1 if index == 0 else 2, fused=index >= 2))
            in_channels = planes * config.expansion
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.layer3_ds = nn.Conv2d(wide // 2, wide, 3, stride=2, padding=1, bias=False)
        self.fuse34 = AttentiveFusion(wide)
        # The embedding head is in the published file; v2Pro does not use it.
        self.seg_1 = nn.Linear(2 * config.feature_channels, config.embedding_channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, mel_bins) -> (B, feature_channels): channels x frequency rows, averaged over time."""
        return self._frames(features).mean(dim=-1)

    def embed(self, features: Tensor) -> Tensor:
        """(B, T, mel_bins) -> (B, embedding_channels): the usual speaker-verification embedding."""
        frames = self._frames(features)
        deviation = torch.sqrt(frames.var(dim=-1) + 1e-7)
        return self.seg_1(torch.cat([frames.mean(dim=-1), deviation], dim=1))

    def _frames(self, features: Tensor) -> Tensor:
        x = features.transpose(1, 2).unsqueeze(1)  # (B, T, F) -> (B, 1, F, T)
        x = F.relu(self.bn1(self.conv1(x)))
        third = self.layer3(self.layer2(self.layer1(x)))
        fused = self.fuse34(self.layer4(third), self.layer3_ds(third))
        return fused.flatten(1, 2)  # (B, C, F, T) -> (B, C * F, T)


class AttentiveFusion(nn.Module):
    """Weighs two equal maps against each other: x a + y (2 - a), a in (0, 2) computed from both."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        hidden = channels // reduction
        self.local_att = nn.Sequential(
            nn.Conv2d(2 * channels, hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.SiLU(),
            nn.Conv2d(hidden, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        weight = 1.0 + torch.tanh(self.local_att(torch.cat([x, y], dim=1)))
        return x * weight + y * (2.0 - weight)


class Res2Block(nn.Module):
    """Bottleneck whose middle convolution runs over ``scale`` groups in turn, each seeing the one before it.

    ``fused`` joins a group to its predecessor by attention instead of a sum.
    """

    def __init__(self, config: SpeakerEncoderConfig, in_channels: int, planes: int, stride: int, fused: bool) -> None:
        super().__init__()
        width, scale, out_channels = planes * config.base_width // 64, config.scale, planes * config.expansion
        self.width = width
        self.conv1 = nn.Conv2d(in_channels, width * scale, 1, stride=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(width * scale)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(scale))
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(scale))
        if fused:
            self.fuse_models = nn.ModuleList(AttentiveFusion(width) for _ in range(scale - 1))
        self.fused = fused
        self.conv3 = nn.Conv2d(width * scale, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        groups = _clipped(self.bn1(self.conv1(x))).split(self.width, dim=1)
        outputs: list[Tensor] = []
        for index, group in enumerate(groups):
            joined = group if index == 0 else self._join(index - 1, outputs[-1], group)
            outputs.append(_clipped(self.bns[index](self.convs[index](joined))))
        y = self.bn3(self.conv3(torch.cat(outputs, dim=1)))
        return _clipped(y + self.shortcut(x))

    def _join(self, index: int, previous: Tensor, group: Tensor) -> Tensor:
        return self.fuse_models[index](previous, group) if self.fused else previous + group


def _stage(
    config: SpeakerEncoderConfig, in_channels: int, planes: int, blocks: int, *, stride: int, fused: bool
) -> nn.Sequential:
    layers = [Res2Block(config, in_channels, planes, stride, fused)]
    layers += [Res2Block(config, planes * config.expansion, planes, 1, fused) for _ in range(blocks - 1)]
    return nn.Sequential(*layers)


def _clipped(x: Tensor) -> Tensor:
    return F.hardtanh(x, 0.0, 20.0)
