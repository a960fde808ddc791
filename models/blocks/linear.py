"""The linear layer, by oneDNN where that is faster.

On a CPU torch gives float32 matrix products to a library that leaves half of the speed of some processors unused (AMD's
with AVX-512: 190 instead of 450 GFLOP/s on two cores). Values differ by rounding alone.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.machine.kernels import product
from models.machine.processor import works

LEAST_ROWS = 16  # for fewer, preparing the weights costs more than it saves


class Linear(nn.Linear):
    """`nn.Linear` with the product below."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x: (..., in); weight: (out, in); bias: (out,) or None -> (..., out). As `F.linear`."""
    is_plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    if not is_plain or torch.is_autocast_enabled("cpu") or x.numel() < LEAST_ROWS * weight.shape[1]:
        return F.linear(x, weight, bias)
    if not works("onednn"):
        return F.linear(x, weight, bias)
    return _Linear.apply(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (grad,) = grads  # (M, out)
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            product(grad, weight.t()) if wants_x else None,
            product(grad.t(), x.t()) if wants_weight else None,
            grad.sum(0) if wants_bias else None,
        )
