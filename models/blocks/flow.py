"""The flow between prior and posterior: mean-only residual couplings and channel flips
(docs/networks/synthesizer.md)."""

import torch
from torch import Tensor, nn

from models.blocks.wavenet import WaveNet


class ResidualCoupling(nn.Module):
    """Moves the second half of the channels by a function of the first: (B, C, T) -> (B, C, T)."""

    def __init__(self, channels: int, hidden: int, layers: int, gin_channels: int, kernel_size: int = 5) -> None:
        super().__init__()
        self.pre = nn.Conv1d(channels // 2, hidden, 1)
        self.enc = WaveNet(hidden, kernel_size, layers, gin_channels)
        self.post = nn.Conv1d(hidden, channels // 2, 1)
        nn.init.zeros_(self.post.weight)  # a fresh flow is the identity
        if self.post.bias is not None:
            nn.init.zeros_(self.post.bias)

    def forward(self, x: Tensor, mask: Tensor, g: Tensor, reverse: bool = False) -> Tensor:
        x0, x1 = x.chunk(2, dim=1)
        h = self.post(self.enc(self.pre(x0) * mask, mask, g)).float() * mask
        x1 = (x1 - h) * mask if reverse else h + x1 * mask
        return torch.cat([x0, x1], dim=1)


class Flip(nn.Module):
    """Reverses the order of the channels, so that the next coupling moves the other half."""

    def forward(self, x: Tensor, mask: Tensor, g: Tensor, reverse: bool = False) -> Tensor:
        return x.flip(1)


class Flow(nn.Module):
    """z -> z_p forwards, z_p -> z in reverse; volume-preserving, so there is no log determinant."""

    def __init__(self, channels: int, hidden: int, steps: int, layers: int, gin_channels: int) -> None:
        super().__init__()
        couplings = [ResidualCoupling(channels, hidden, layers, gin_channels) for _ in range(steps)]
        self.flows = nn.ModuleList([part for coupling in couplings for part in (coupling, Flip())])

    def forward(self, x: Tensor, mask: Tensor, g: Tensor, reverse: bool = False) -> Tensor:
        for part in reversed(self.flows) if reverse else self.flows:
            x = part(x, mask, g, reverse=reverse)
        return x
