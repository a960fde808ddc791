"""The diffusion transformer that estimates the flow's velocity in v3 and v4 (docs/networks/flow-matching.md).

Shapes: B batch, T mel frames, D model width, M mel channels, C condition channels.
Everything is laid out (B, T, channels).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.configs.cfm import DiTConfig


class DiT(nn.Module):
    """Velocity of the noisy mel, given the prompt's mel, the time, the length of the step and the condition."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.time_embed = TimestepEmbedding(config)
        self.d_embed = TimestepEmbedding(config)
        self.text_embed = ConditionEmbedding(config)
        self.input_embed = InputEmbedding(config)
        self.rotary_embed = RotaryEmbedding(config.head_dim)
        self.transformer_blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.depth))
        self.norm_out = FinalModulation(config.dim)
        self.proj_out = nn.Linear(config.dim, config.mel_channels)

    def forward(
        self, noisy: Tensor, prompt: Tensor, lengths: Tensor, time: Tensor, step: Tensor, condition: Tensor
    ) -> Tensor:
        """One estimate.

        Args:
            noisy: (B, T, M). prompt: (B, T, M), zero where there is no prompt. lengths: (B,) frames.
            time: (B,) in [0, 1]. step: (B,) length of the step, 0 for plain flow matching.
            condition: (B, T, C), the synthesizer's features.

        Returns:
            (B, T, M).
        """
        return self.velocity(
            noisy, prompt, padding_mask(lengths, noisy.shape[1]), time, self.d_embed(step), self.text_embed(condition)
        )

    def velocity(
        self, noisy: Tensor, prompt: Tensor, mask: Tensor | None, time: Tensor, step: Tensor, condition: Tensor
    ) -> Tensor:
        """The same with the parts that stay equal through a whole inference already embedded.

        Args:
            mask: (B, T), true at frames to attend to; None where no row is padded.
            step: ``d_embed`` of the step's length, (B, D). condition: ``text_embed`` of the features, (B, T, C).
        """
        modulation = F.silu(self.time_embed(time) + step)
        x = self.input_embed(noisy, prompt, condition)
        rotation = self.rotary_embed(x.shape[1])
        for block in self.transformer_blocks:
            x = block(x, modulation, mask, rotation)
        return self.proj_out(self.norm_out(x, modulation))


def padding_mask(lengths: Tensor, frames: int) -> Tensor | None:
    """(B,) -> (B, frames), true inside the row; None if no row is shorter, which lets attention take its fast path."""
    mask = torch.arange(frames, device=lengths.device) < lengths[:, None]
    return None if bool(mask.all()) else mask


class TimestepEmbedding(nn.Module):
    """Sinusoid of a number in [0, 1], then a small network: (B,) -> (B, D)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.channels, self.scale = config.time_channels, config.time_scale
        self.time_mlp = nn.Sequential(
            nn.Linear(config.time_channels, config.dim), nn.SiLU(), nn.Linear(config.dim, config.dim)
        )

    def forward(self, time: Tensor) -> Tensor:
        half = self.channels // 2
        decay = -math.log(10000.0) / (half - 1)
        # Angles reach 1000, where a last-bit difference of the frequency shows: keep upstream's order of operations.
        frequencies = torch.exp(torch.arange(half, device=time.device, dtype=torch.float32) * decay)
        angles = self.scale * time.float()[:, None] * frequencies
        return self.time_mlp(torch.cat([angles.sin(), angles.cos()], dim=-1).to(time.dtype))


class ConditionEmbedding(nn.Module):
    """Positions added to the condition, then ConvNeXt-V2 blocks.

    No mask reaches them: padding takes part in the response normalisation, so a padded row depends on the padded
    length. Batch equal lengths where that matters.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.register_buffer(
            "positions", _position_table(config.max_positions, config.condition_channels), persistent=False
        )
        self.text_blocks = nn.Sequential(
            *(ConvNeXtV2Block(config.condition_channels, config.ff_mult) for _ in range(config.condition_layers))
        )

    def forward(self, condition: Tensor) -> Tensor:
        table: Tensor = self.get_buffer("positions")
        index = torch.arange(condition.shape[1], device=condition.device).clamp_max(table.shape[0] - 1)
        return self.text_blocks(condition + table[index].to(condition.dtype))


class ConvNeXtV2Block(nn.Module):
    """Depthwise convolution and a widened pointwise network with global response normalisation (arXiv:2301.00808)."""

    def __init__(self, channels: int, widening: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, channels * widening)
        self.grn = GlobalResponseNorm(channels * widening)
        self.pwconv2 = nn.Linear(channels * widening, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x.transpose(1, 2)).transpose(1, 2)  # (B, T, C) -> (B, C, T) -> (B, T, C)
        return x + self.pwconv2(self.grn(F.gelu(self.pwconv1(self.norm(y)))))


class GlobalResponseNorm(nn.Module):
    """Each channel's energy over time against the mean of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        energy = x.norm(p=2, dim=1, keepdim=True)  # (B, 1, C)
        return self.gamma * (x * (energy / (energy.mean(dim=-1, keepdim=True) + 1e-6))) + self.beta + x


class InputEmbedding(nn.Module):
    """Noisy mel, prompt and condition side by side -> D, plus positions from two grouped convolutions."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(2 * config.mel_channels + config.condition_channels, config.dim)
        self.conv_pos_embed = ConvolutionalPosition(config)

    def forward(self, noisy: Tensor, prompt: Tensor, condition: Tensor) -> Tensor:
        x = self.proj(torch.cat([noisy, prompt, condition], dim=-1))
        return x + self.conv_pos_embed(x)


class ConvolutionalPosition(nn.Module):
    """Two wide grouped convolutions over time, unmasked."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()

        def convolution() -> nn.Conv1d:
            kernel = config.position_kernel
            return nn.Conv1d(config.dim, config.dim, kernel, padding=kernel // 2, groups=config.position_groups)

        self.conv1d = nn.Sequential(convolution(), nn.Mish(), convolution(), nn.Mish())

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1d(x.transpose(1, 2)).transpose(1, 2)  # (B, T, D) -> (B, D, T) -> (B, T, D)


class RotaryEmbedding(nn.Module):
    """Cosines and sines of the rotary positions, (T, head_dim) each, neighbours in pairs."""

    inv_freq: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        exponents = torch.arange(0, head_dim, 2).float() / head_dim
        self.register_buffer("inv_freq", 1.0 / 10000.0**exponents)

    def forward(self, frames: int) -> tuple[Tensor, Tensor]:
        positions = torch.arange(frames, device=self.inv_freq.device, dtype=torch.float32)
        angles = torch.outer(positions, self.inv_freq.float()).repeat_interleave(2, dim=-1)
        return angles.cos(), angles.sin()


class DiTBlock(nn.Module):
    """Attention and feed-forward, each shifted, scaled and gated by the time (adaLN-Zero, arXiv:2212.09748)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.attn_norm = Modulation(config.dim)
        self.attn = Attention(config)
        self.ff = FeedForward(config)

    def forward(self, x: Tensor, modulation: Tensor, mask: Tensor | None, rotation: tuple[Tensor, Tensor]) -> Tensor:
        shift_attn, scale_attn, gate_attn, shift_ff, scale_ff, gate_ff = self.attn_norm(modulation)
        x = x + gate_attn * self.attn(_normed(x) * (1 + scale_attn) + shift_attn, mask, rotation)
        return x + gate_ff * self.ff(_normed(x) * (1 + scale_ff) + shift_ff)


class Modulation(nn.Module):
    """The six (B, 1, D) factors of a block: shift, scale, gate of the attention, then of the feed-forward."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, 6 * dim)

    def forward(self, modulation: Tensor) -> tuple[Tensor, ...]:
        return self.linear(modulation)[:, None].chunk(6, dim=-1)


class FinalModulation(nn.Module):
    """Last norm. Scale comes before shift here, the other way round than in the blocks."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, 2 * dim)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        scale, shift = self.linear(modulation)[:, None].chunk(2, dim=-1)
        return _normed(x) * (1 + scale) + shift


class Attention(nn.Module):
    """Self-attention with separate projections, so that LoRA reaches each of them."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.to_q = nn.Linear(config.dim, inner)
        self.to_k = nn.Linear(config.dim, inner)
        self.to_v = nn.Linear(config.dim, inner)
        self.to_out = nn.ModuleList([nn.Linear(inner, config.dim), nn.Dropout(config.dropout)])

    def forward(self, x: Tensor, mask: Tensor | None, rotation: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = self._split(self.to_q(x)), self._split(self.to_k(x)), self._split(self.to_v(x))
        q, k = _rotate_first_head(q, rotation), _rotate_first_head(k, rotation)
        keys = None if mask is None else mask[:, None, None, :]  # (B, T) -> (B, 1, 1, T)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=keys)
        y = y.transpose(1, 2).flatten(2)  # (B, heads, T, head) -> (B, T, inner)
        for layer in self.to_out:
            y = layer(y)
        return y if mask is None else y * mask[..., None]

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, T, inner) -> (B, heads, T, head)


def _rotate_first_head(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions on head 0 only.

    F5-TTS applies the rotation before it splits the heads, so only the first ``head_dim`` channels turn. The published
    weights were trained that way.
    """
    cos, sin = (part.to(x.dtype) for part in rotation)
    first = x[:, :1]
    turned = torch.stack([-first[..., 1::2], first[..., ::2]], dim=-1).flatten(-2)
    return torch.cat([first * cos + turned * sin, x[:, 1:]], dim=1)


class FeedForward(nn.Module):
    """Linear, GELU (tanh), dropout, linear. The nesting only reproduces the published names."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        inner = config.dim * config.ff_mult
        widen = nn.Sequential(nn.Linear(config.dim, inner), nn.GELU(approximate="tanh"))
        self.ff = nn.Sequential(widen, nn.Dropout(config.dropout), nn.Linear(inner, config.dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.ff(x)


def _normed(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def _position_table(rows: int, channels: int) -> Tensor:
    """(rows, channels): cosines in the first half, sines in the second."""
    frequencies = 1.0 / 10000.0 ** (torch.arange(0, channels, 2).float() / channels)
    angles = torch.outer(torch.arange(rows).float(), frequencies)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
