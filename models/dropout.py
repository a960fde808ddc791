"""Dropout whose random numbers cost little on a CPU.

`torch.nn.Dropout` draws one Bernoulli number per element, which takes a quarter of a training step of the
text-to-semantic network on two cores. Here every 64-bit random word yields four 16-bit numbers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 1 << 16


def keep_mask(shape: torch.Size, p: float) -> Tensor:
    """A boolean mask that is false with probability round(p * 65536) / 65536, from torch's default CPU generator."""
    count = shape.numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
    threshold = round(p * LEVELS) - LEVELS // 2
    return (words.view(torch.int16)[:count] >= threshold).view(shape)


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, p: float) -> Tensor:
        keep = keep_mask(x.shape, p)
        ctx.save_for_backward(keep)
        ctx.scale = 1 / (1 - round(p * LEVELS) / LEVELS)  # type: ignore[attr-defined]
        return (x * ctx.scale).mul_(keep)  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return (grads[0] * ctx.scale).mul_(keep), None  # type: ignore[attr-defined]


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout with the fast mask on the CPU and torch's own kernel elsewhere."""
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
