"""WaveNet stacks: the posterior encoder and the inside of the flow (docs/networks/synthesizer.md).

Letters: B batch, C channels, T frames, G width of the global condition.
"""

import torch
from torch import Tensor, nn

from models.blocks.weight_norm import NormedConv1d
from models.configs.synthesizer import SynthesizerConfig


class WaveNet(nn.Module):
    """Gated convolutions with residual and skip sums: (B, C, T) -> (B, C, T)."""

    def __init__(self, channels: int, kernel_size: int, layers: int, gin_channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.cond_layer = NormedConv1d(gin_channels, 2 * channels * layers, 1)
        self.in_layers = nn.ModuleList(
            [NormedConv1d(channels, 2 * channels, kernel_size, padding=kernel_size // 2) for _ in range(layers)]
        )
        self.res_skip_layers = nn.ModuleList(
            [NormedConv1d(channels, channels * (1 if i == layers - 1 else 2), 1) for i in range(layers)]
        )

    def forward(self, x: Tensor, mask: Tensor, g: Tensor) -> Tensor:
        """mask (B, 1, T); g (B, G, 1), or (B, G, T) for a condition that moves."""
        conditions = self.cond_layer(g).chunk(len(self.in_layers), dim=1)
        out = torch.zeros_like(x)
        for in_layer, res_skip, condition in zip(self.in_layers, self.res_skip_layers, conditions, strict=True):
            a, b = (in_layer(x) + condition).chunk(2, dim=1)
            skip = res_skip(torch.tanh(a) * torch.sigmoid(b))
            if skip.shape[1] > self.channels:  # every layer but the last
                residual, skip = skip.chunk(2, dim=1)
                x = (x + residual) * mask
            out = out + skip
        return out * mask


class WaveNetEncoder(nn.Module):
    """Into a WaveNet and out of it again: (B, C_in, T) -> (B, C_out, T)."""

    def __init__(
        self, in_channels: int, hidden: int, out_channels: int, layers: int, gin_channels: int, kernel_size: int = 5
    ) -> None:
        super().__init__()
        self.pre = nn.Conv1d(in_channels, hidden, 1)
        self.enc = WaveNet(hidden, kernel_size, layers, gin_channels)
        self.proj = nn.Conv1d(hidden, out_channels, 1)

    def forward(self, x: Tensor, mask: Tensor, g: Tensor) -> Tensor:
        return self.proj(self.enc(self.pre(x) * mask, mask, g)) * mask


class PosteriorEncoder(WaveNetEncoder):
    """Spectrogram -> mean and log standard deviation of the latent: (B, F, T) -> twice (B, inter, T), float32."""

    def __init__(self, config: SynthesizerConfig) -> None:
        bins, inter = config.spectrogram.bins, config.inter_channels
        super().__init__(bins, config.hidden_channels, 2 * inter, config.posterior_layers, config.gin_channels)

    def stats(self, spec: Tensor, mask: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """m and logs of z; spec is the linear magnitude (B, F, T)."""
        m, logs = self(spec, mask, g).float().chunk(2, dim=1)
        return m, logs
