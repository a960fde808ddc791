"""Losses of v2-family training (docs/networks/synthesizer.md), in float32 whatever the networks ran in.

Letters: B batch, C channels, T frames, N samples.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.configs.synthesizer import MelConfig
from models.sound.spectrogram import MelSpectrogram, float32_region


def discriminator_loss(real: Sequence[Tensor], generated: Sequence[Tensor]) -> Tensor:
    """sum over discriminators of mean((1 - D(y))^2) + mean(D(y_hat)^2)."""
    pairs = zip(real, generated, strict=True)
    return torch.stack([(1 - r.float()).square().mean() + g.float().square().mean() for r, g in pairs]).sum()


def generator_loss(generated: Sequence[Tensor]) -> Tensor:
    """sum over discriminators of mean((1 - D(y_hat))^2)."""
    return torch.stack([(1 - g.float()).square().mean() for g in generated]).sum()


def feature_loss(real: Sequence[Sequence[Tensor]], generated: Sequence[Sequence[Tensor]]) -> Tensor:
    """2 * sum over all maps of mean|fmap(y) - fmap(y_hat)|; the real side is detached."""
    pairs = [(r, g) for rs, gs in zip(real, generated, strict=True) for r, g in zip(rs, gs, strict=True)]
    return 2 * torch.stack([F.l1_loss(g.float(), r.detach().float()) for r, g in pairs]).sum()


def kl_loss(z_p: Tensor, logs_q: Tensor, m_p: Tensor, logs_p: Tensor, mask: Tensor) -> Tensor:
    """KL of posterior sample against prior: summed over channels, mean over real frames; mask (B, 1, T)."""
    z_p, logs_q, m_p, logs_p = z_p.float(), logs_q.float(), m_p.float(), logs_p.float()
    kl = logs_p - logs_q - 0.5 + 0.5 * (z_p - m_p).square() * torch.exp(-2 * logs_p)
    return (kl * mask).sum() / mask.sum()


class MelLoss(nn.Module):
    """L1 of log mels between a decoded slice and its target."""

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        self.mel = MelSpectrogram(config)

    def forward(self, wave: Tensor, target_wave: Tensor) -> Tensor:
        """Both (B, N), both edges padded alike."""
        return F.l1_loss(self.mel(wave), self.mel(target_wave))


class StftLoss(nn.Module):
    """Multi-resolution STFT loss on waves (B, N): spectral convergence and L1 of log magnitude, mean over sizes."""

    def __init__(self, sizes: Sequence[int] = (256, 512, 1024)) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        for size in self.sizes:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)

    def forward(self, wave: Tensor, target: Tensor) -> Tensor:
        with float32_region(wave):
            return torch.stack([self._at(wave.float(), target.float(), size) for size in self.sizes]).mean()

    def _at(self, wave: Tensor, target: Tensor, size: int) -> Tensor:
        window = self.get_buffer(f"window_{size}")
        generated, real = (
            torch.stft(x, size, hop_length=size // 4, window=window, return_complex=True) for x in (wave, target)
        )
        generated, real = (torch.sqrt(x.real.square() + x.imag.square() + 1e-7) for x in (generated, real))
        convergence = torch.linalg.vector_norm(real - generated) / torch.linalg.vector_norm(real).clamp(min=1e-3)
        return convergence + F.l1_loss(generated.log(), real.log())
