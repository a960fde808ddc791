"""Dropout that costs little on a CPU.

`torch.nn.Dropout` draws one Bernoulli number per element, a quarter of a training step of the text-to-semantic
network on two cores; here every 64-bit random word yields four 16-bit numbers. Dropout on attention weights moreover
writes several (B, H, T, T) tensors to memory; here a few heads at a time stay in the cache, and the backward pass
computes their weights again. Accelerators keep torch's own kernels.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 1 << 16
CACHE_BYTES = 2 << 20  # about the second-level cache of two cores


def keep_mask(shape: torch.Size, p: float) -> Tensor:
    """A boolean mask that is false with probability round(p * 65536) / 65536, from torch's default CPU generator.

    To be multiplied with: filling by a mask takes twice the time.
    """
    count = shape.numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
    return (words.view(torch.int16)[:count] >= round(p * LEVELS) - LEVELS // 2).view(shape)


def kept_scale(p: float) -> float:
    """What kept elements are multiplied by, so that the mean stays."""
    return 1 / (1 - round(p * LEVELS) / LEVELS)


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        kept = keep_mask(x.shape, p)
        ctx.save_for_backward(kept)
        ctx.scale = kept_scale(p)
        return (x * ctx.scale).mul_(kept)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (grads[0] * ctx.scale).mul_(kept), None


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout with the cheap mask on the CPU and torch's own kernel elsewhere."""
    if not training or p == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    return _Drop.apply(x, p)


class Dropout(nn.Module):
    """Module form of `dropout`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _DropAttention(torch.autograd.Function):
    """softmax(q k^T / sqrt(d) + bias), dropped, times v, for q, k, v (B, H, T, d) and bias (B, 1, T, T).

    With weights P, dropped and scaled A = P * M, output O = A v and its gradient dO:
    dv = A^T dO, dP = M * (dO v^T), dS = P * (dP - rowsum(dO * O)), dq = dS k / sqrt(d), dk = dS^T q / sqrt(d).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, p: float) -> Tensor:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        out, factor, scale = torch.empty_like(q), 1 / math.sqrt(q.shape[-1]), kept_scale(p)
        kept = []
        with torch.autocast("cpu", enabled=False):
            for row, heads in _chunks(q):
                weights = _weights(q[row, heads], k[row, heads], bias[row], factor)
                kept.append(keep_mask(weights.shape, p))
                torch.bmm(weights.mul_(kept[-1]), v[row, heads], out=out[row, heads])
        out *= scale
        ctx.save_for_backward(q, k, v, bias, out, *kept)
        ctx.factor, ctx.scale = factor, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, out, *kept = ctx.saved_tensors
        grad = grads[0].contiguous()
        shares = (grad * out).sum(-1, keepdim=True)  # (B, H, T, 1)
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        with torch.autocast("cpu", enabled=False):
            for (row, heads), mask in zip(_chunks(q), kept, strict=True):
                weights = _weights(q[row, heads], k[row, heads], bias[row], ctx.factor)
                d_weights = torch.bmm(grad[row, heads], v[row, heads].transpose(1, 2)).mul_(ctx.scale).mul_(mask)
                d_scores = d_weights.sub_(shares[row, heads]).mul_(weights).mul_(ctx.factor)
                torch.bmm(d_scores, k[row, heads], out=dq[row, heads])
                torch.bmm(d_scores.transpose(1, 2), q[row, heads], out=dk[row, heads])
                weights.mul_(ctx.scale).mul_(mask)
                torch.bmm(weights.transpose(1, 2), grad[row, heads], out=dv[row, heads])
        return dq, dk, dv, None, None


def _chunks(q: Tensor) -> Iterator[tuple[int, slice]]:
    """A row and a few of its heads at a time, as many as keep their weights in the cache."""
    rows, heads, length = q.shape[:3]
    size = max(1, CACHE_BYTES // (4 * length * length))
    return ((row, slice(start, start + size)) for row in range(rows) for start in range(0, heads, size))


def _weights(q: Tensor, k: Tensor, bias: Tensor, factor: float) -> Tensor:
    """Attention weights (h, T, T) of a few heads."""
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=factor)
    return torch.softmax(scores, dim=-1, out=scores)


def drop_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, p: float) -> Tensor:
    """Attention with dropout on its weights, on a CPU in training. q, k, v: (B, H, T, d); mask: (B or 1, 1, T, T),
    true where a query may look; no query may be left without a key."""
    bias = torch.zeros(mask.shape, dtype=torch.float32).masked_fill_(~mask, -torch.inf).expand(len(q), -1, -1, -1)
    return _DropAttention.apply(q.float(), k.float(), v.float(), bias, p).to(q.dtype)
