"""Discriminators of v2-family training: one on the wave, one per period (docs/networks/synthesizer.md).

Letters: B batch, N samples, C channels, P period.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks.weight_norm import NormedConv1d, NormedConv2d
from models.configs.synthesizer import DiscriminatorConfig

SLOPE = 0.1


class ScaleDiscriminator(nn.Module):
    """Grouped convolutions over the wave itself."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        channels = 1
        for layer in config.scale_layers:
            options = {"stride": layer.stride, "groups": layer.groups, "padding": layer.kernel_size // 2}
            self.convs.append(NormedConv1d(channels, layer.channels, layer.kernel_size, **options))
            channels = layer.channels
        self.conv_post = NormedConv1d(channels, 1, 3, padding=1)

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        return _judge(self.convs, self.conv_post, wave)


class PeriodDiscriminator(nn.Module):
    """Convolutions over every P-th sample: the wave is folded to rows of P, (B, 1, N) -> (B, 1, N / P, P)."""

    def __init__(self, config: DiscriminatorConfig, period: int) -> None:
        super().__init__()
        self.period = period
        self.convs = nn.ModuleList()
        widths = (1, *config.period_channels)
        for index in range(len(widths) - 1):
            stride = 1 if index == len(widths) - 2 else 3
            options = {"kernel_size": (5, 1), "stride": (stride, 1), "padding": (2, 0)}
            self.convs.append(NormedConv2d(widths[index], widths[index + 1], **options))
        self.conv_post = NormedConv2d(widths[-1], 1, kernel_size=(3, 1), padding=(1, 0))

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        missing = -wave.shape[-1] % self.period
        wave = F.pad(wave, (0, missing), mode="reflect")
        return _judge(self.convs, self.conv_post, wave.unflatten(2, (-1, self.period)))


def _judge(convs: nn.ModuleList, post: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits (B, n), and the map after every activation and after the last convolution."""
    maps = []
    for conv in convs:
        x = F.leaky_relu(conv(x), SLOPE)
        maps.append(x)
    x = post(x)
    return x.flatten(1), [*maps, x]


class Discriminator(nn.Module):
    """All of them: (B, 1, N) -> logits and feature maps, one entry each per discriminator."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        periods = [PeriodDiscriminator(config, period) for period in config.periods]
        self.discriminators = nn.ModuleList([ScaleDiscriminator(config), *periods])

    def forward(self, wave: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        judged = [discriminator(wave) for discriminator in self.discriminators]
        return [logits for logits, _ in judged], [maps for _, maps in judged]

    def compare(self, real: Tensor, generated: Tensor) -> tuple["Judged", "Judged"]:
        """Judge two batches of equal shape in one pass; they do not touch each other."""
        logits, maps = self(torch.cat([real, generated]))
        rows = real.shape[0]
        return (
            ([x[:rows] for x in logits], [[x[:rows] for x in row] for row in maps]),
            ([x[rows:] for x in logits], [[x[rows:] for x in row] for row in maps]),
        )


Judged = tuple[Sequence[Tensor], Sequence[Sequence[Tensor]]]  # logits and feature maps
