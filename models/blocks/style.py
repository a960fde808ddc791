"""Reference encoder: who speaks, from a spectrogram (docs/networks/synthesizer.md, of the Meta-StyleSpeech type).

Letters: B batch, T frames, C hidden channels, H heads, K channels per head.
"""

import math

from torch import Tensor, nn

from models.blocks.dropout import Dropout
from models.sound.masks import length_mask
from models.sound.spectrogram import float32_region


class Affine(nn.Module):
    """A linear layer whose parameters are called `fc.*` in the files."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


class Convolution(nn.Module):
    """A convolution whose parameters are called `conv.*` in the files."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class GatedConvolution(nn.Module):
    """x + a * sigmoid(b), where a and b are the halves of one convolution: (B, C, T) -> (B, C, T)."""

    def __init__(self, channels: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = Convolution(channels, 2 * channels, kernel_size)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv1(x).chunk(2, dim=1)
        return x + self.drop(a * b.sigmoid())


class StyleAttention(nn.Module):
    """Self-attention whose scores are divided by sqrt(C), the model's width, not the head's."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.w_qs = nn.Linear(channels, channels)
        self.w_ks = nn.Linear(channels, channels)
        self.w_vs = nn.Linear(channels, channels)
        self.fc = nn.Linear(channels, channels)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """x (B, T, C); padding (B, 1, 1, T), True where a key is padding."""
        q, k, v = self._split(self.w_qs(x)), self._split(self.w_ks(x)), self._split(self.w_vs(x))
        scores = (q @ k.transpose(-1, -2)).float() / math.sqrt(x.shape[-1])  # (B, H, T, T)
        weights = self.drop(scores.masked_fill(padding, -math.inf).softmax(dim=-1).to(v.dtype))
        out = (weights @ v).transpose(1, 2).flatten(2)  # (B, H, T, K) -> (B, T, H, K) -> (B, T, C)
        return self.fc(out) + x

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, T, C) -> (B, T, H, K) -> (B, H, T, K)


class StyleEncoder(nn.Module):
    """Spectrogram -> one vector: (B, bins, T), (B,) -> (B, out, 1), float32."""

    def __init__(self, bins: int, hidden: int, out: int, heads: int, dropout: float, kernel_size: int = 5) -> None:
        super().__init__()
        self.spectral = nn.Sequential(
            Affine(bins, hidden), nn.Mish(), Dropout(dropout), Affine(hidden, hidden), nn.Mish(), Dropout(dropout)
        )
        self.temporal = nn.Sequential(*[GatedConvolution(hidden, kernel_size, dropout) for _ in range(2)])
        self.slf_attn = StyleAttention(hidden, heads, dropout)
        self.fc = Affine(hidden, out)

    def forward(self, spec: Tensor, lengths: Tensor) -> Tensor:
        mask = length_mask(lengths, spec.shape[-1])  # (B, 1, T)
        x = (spec * mask).transpose(1, 2)  # (B, bins, T) -> (B, T, bins)
        x = self.spectral(x)  # padding is not zero here, as in the training of upstream's weights
        x = self.temporal(x.transpose(1, 2)) * mask  # (B, C, T)
        x = self.slf_attn(x.transpose(1, 2), mask[:, None] == 0)  # (B, T, C)
        x = self.fc(x)
        with float32_region(x):  # each frame is divided before the sum: training diverged in half precision otherwise
            frames = (mask / lengths.clamp(min=1)[:, None, None]).transpose(1, 2)  # (B, T, 1)
            return (x.float() * frames).sum(dim=1)[:, :, None]
