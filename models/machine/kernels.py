"""The products that torch has only under names of its own, each called here and nowhere else.

Not every processor and not every build of torch has them; `models/machine/processor.py` says which work.
"""

import torch
from torch import Tensor


def pack(weight: Tensor) -> Tensor:
    """oneDNN's own layout of a matrix (out, in), chosen for 8 rows; correct for any number."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, 8)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (M, in) weight^T + bias by oneDNN, without gradients; `weight` (out, in) may be packed."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def int8_product(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x (M, in) times int8 weights (out, in) with one scale (out,) each; x and scale bfloat16, so is the result."""
    return torch._weight_int8pack_mm(x, weight, scale)
