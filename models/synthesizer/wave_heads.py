"""The synthesizer's decoder and v4's vocoder: transposed convolutions as HiFi-GAN v1 has them.

Letters: B batch, C channels, T frames, G width of the speaker condition, N = T * hop samples.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks.weight_norm import NormedConv1d, NormedConvTranspose1d
from models.configs.synthesizer import HifiGanDecoderConfig

SLOPE = 0.1
LAST_SLOPE = 0.01  # the default of leaky_relu, which upstream's last activation uses


class ResBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair with a residual: (B, C, T) -> (B, C, T)."""

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...]) -> None:
        super().__init__()

        def conv(dilation: int) -> NormedConv1d:
            padding = dilation * (kernel_size - 1) // 2
            return NormedConv1d(channels, channels, kernel_size, padding=padding, dilation=dilation)

        self.convs1 = nn.ModuleList([conv(dilation) for dilation in dilations])
        self.convs2 = nn.ModuleList([conv(1) for _ in dilations])

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            x = x + plain(F.leaky_relu(dilated(F.leaky_relu(x, SLOPE)), SLOPE))
        return x


class HifiGanDecoder(nn.Module):
    """(B, C, T) and (B, G, 1) -> (B, 1, N); without `gin_channels` it is a plain vocoder."""

    def __init__(self, config: HifiGanDecoderConfig, in_channels: int, gin_channels: int | None = None) -> None:
        super().__init__()
        channels = config.upsample_initial_channel
        self.conv_pre = nn.Conv1d(in_channels, channels, 7, padding=3)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()  # index: stage * kernels + kernel
        for rate, kernel_size in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            padding = (kernel_size - rate) // 2
            self.ups.append(NormedConvTranspose1d(channels, channels // 2, kernel_size, stride=rate, padding=padding))
            channels //= 2
            for size, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                self.resblocks.append(ResBlock(channels, size, dilations))
        self.conv_post = nn.Conv1d(channels, 1, 7, padding=3, bias=config.conv_post_bias)
        self.cond = nn.Conv1d(gin_channels, config.upsample_initial_channel, 1) if gin_channels is not None else None
        self.kernels = len(config.resblock_kernel_sizes)

    def forward(self, z: Tensor, g: Tensor | None = None) -> Tensor:
        x = self.conv_pre(z)
        if self.cond is not None:
            x = x + self.cond(g)
        for stage, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, SLOPE))
            blocks = self.resblocks[stage * self.kernels : (stage + 1) * self.kernels]
            x = sum(block(x) for block in blocks) / self.kernels
        return torch.tanh(self.conv_post(F.leaky_relu(x, LAST_SLOPE)))
