"""A HiFi-GAN type decoder made ready for a CPU: the same weights in a memory layout that its convolutions run fast in.

Letters: B batch, C channels, T frames. Tensors are (B, C, 1, T) in channels-last memory, that is (B, T, C): oneDNN then
multiplies without rearranging, and a transposed convolution becomes a plain one whose output only has to be read
differently. On two cores float32 gains a little and bfloat16 as much as its arithmetic promises.
bfloat16 is an option with a small loss (`benchmarks/models.py` prints it), never chosen silently.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks.weight_norm import fold_weight_norm
from models.synthesizer.wave_heads import HifiGanDecoder


class ChannelsLastDecoder(nn.Module):
    """(B, C, T), (B, G, 1) -> (B, 1, N), float32. Takes the decoder over: no other use or training of it."""

    def __init__(self, decoder: HifiGanDecoder, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        fold_weight_norm(decoder)
        self.decoder = decoder.eval().requires_grad_(False)
        for parent in list(decoder.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Conv1d | nn.ConvTranspose1d):
                    # The last layer decides the rounding of every sample, so it stays in float32.
                    precision = torch.float32 if child is decoder.conv_post else dtype
                    setattr(parent, name, _converted(child, precision))

    def forward(self, z: Tensor, g: Tensor | None = None) -> Tensor:
        condition = None if g is None else _flat(g)
        return self.decoder(_flat(z), condition)[:, :, 0]

    def decode(self, z: Tensor, g: Tensor) -> tuple[Tensor, None]:
        """As `HifiGanDecoder.decode`."""
        return self(z, g), None


def _flat(x: Tensor) -> Tensor:
    return x[:, :, None].contiguous(memory_format=torch.channels_last)  # (B, C, T) -> (B, C, 1, T)


def _converted(conv: nn.Conv1d | nn.ConvTranspose1d, dtype: torch.dtype) -> nn.Module:
    return _Transposed(conv, dtype) if isinstance(conv, nn.ConvTranspose1d) else _Plain(conv, dtype)


class _Plain(nn.Module):
    """Conv1d of stride 1 on (B, C, 1, T)."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv1d, dtype: torch.dtype) -> None:
        super().__init__()
        weight = conv.weight.detach()[:, :, None].to(dtype)  # (C_out, C_in, K) -> (C_out, C_in, 1, K)
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().to(dtype))
        assert not isinstance(conv.padding, str)
        self.padding, self.dilation = (0, conv.padding[0]), (1, conv.dilation[0])

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x.to(self.weight.dtype), self.weight, self.bias, padding=self.padding, dilation=self.dilation)


class _Transposed(nn.Module):
    """ConvTranspose1d(kernel K, stride s, padding p) on (B, C, 1, T) -> (B, C_out, 1, T * s), for K - s = 2 p.

    Output frame i * s + j gathers taps j, j + s, j + 2 s ... of the kernel, so a convolution with ceil(K / s) taps
    makes all s of them as s * C_out channels; in channels-last memory these lie one after another, as frames should.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.ConvTranspose1d, dtype: torch.dtype) -> None:
        super().__init__()
        (self.stride,), (kernel_size,) = conv.stride, conv.kernel_size
        assert not isinstance(conv.padding, str)
        self.cut = conv.padding[0]
        self.taps = math.ceil(kernel_size / self.stride)
        weight = F.pad(conv.weight.detach(), (0, self.taps * self.stride - kernel_size))  # (C_in, C_out, taps * s)
        weight = weight.unflatten(2, (self.taps, self.stride)).flip(2)  # (C_in, C_out, taps, s), last tap first
        weight = weight.permute(3, 1, 0, 2).flatten(0, 1)[:, :, None].to(dtype)  # (s * C_out, C_in, 1, taps)
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        bias = None if conv.bias is None else conv.bias.detach().repeat(self.stride).to(dtype)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.shape[-1]
        y = F.conv2d(x.to(self.weight.dtype), self.weight, self.bias, padding=(0, self.taps - 1))
        rows = y[:, :, 0].transpose(1, 2)  # (B, T + taps - 1, s * C_out)
        rows = rows.unflatten(2, (self.stride, -1)).flatten(1, 2)  # (B, (T + taps - 1) * s, C_out), no copy
        rows = rows[:, self.cut : self.cut + frames * self.stride]
        return rows.transpose(1, 2)[:, :, None]  # (B, C_out, 1, T * s)
