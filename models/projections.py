"""Weight matrices made ready for decoding, where each is read once for one to a few rows (memory-bound).

Every kind is a callable (M, in) -> (M, out) in float32. `f32` computes the numbers of the network; `bf16` and `int8`
read a half and a quarter of the bytes and lose a little, which `models.decoding.compare_weights` measures.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.errors import ModelsError

WeightKind = Literal["f32", "bf16", "int8"]
Projection = Callable[[Tensor], Tensor]
FEW_ROWS = 32  # up to here a packed or quantized product beats the ordinary one


def build_projection(kind: WeightKind, weight: Tensor, bias: Tensor | None) -> Projection:
    """weight: (out, in) float32; bias: (out,) or None."""
    if weight.device.type != "cpu":
        if kind == "int8":
            raise ModelsError("int8 weights are for decoding on a CPU; use bf16 on this device")
        return DeviceProjection(weight, bias, torch.float32 if kind == "f32" else torch.bfloat16)
    if kind == "int8":
        return Int8Projection(weight, bias)
    return FloatProjection(weight, bias) if kind == "f32" else Bfloat16Projection(weight, bias)


class DeviceProjection:
    """The ordinary product of an accelerator, in float32 or bfloat16."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.weight, self.bias, self.dtype = weight.to(dtype), None if bias is None else bias.to(dtype), dtype

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.dtype), self.weight, self.bias).float()


class FloatProjection:
    """float32 on a CPU. One row goes to BLAS through numpy: `F.linear` reads the weights at half that speed there."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight.contiguous(), bias
        self.matrix = self.weight.numpy()  # shares the memory
        self.packed: Tensor | None = None  # made when a small batch first comes: it doubles the memory

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            y = torch.from_numpy(self.matrix @ x[0].numpy())[None]
            return y if self.bias is None else y.add_(self.bias)
        if x.shape[0] > FEW_ROWS or not torch.backends.mkldnn.is_available():
            return F.linear(x, self.weight, self.bias)
        if self.packed is None:
            self.packed = _pack(self.weight)
        return _packed_linear(x, self.packed, self.bias)


class Bfloat16Projection:
    """bfloat16 weights and inputs, float32 accumulation."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.packed = _pack(weight.to(torch.bfloat16))
        self.bias = None if bias is None else bias.to(torch.bfloat16)

    def __call__(self, x: Tensor) -> Tensor:
        return _packed_linear(x.to(torch.bfloat16), self.packed, self.bias).float()


class Int8Projection:
    """int8 weights with one scale per output, bfloat16 inputs; many rows (the prefill) go through bfloat16."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        self.weight = (weight / scale[:, None]).round().to(torch.int8)
        self.scale, self.bias = scale.to(torch.bfloat16), bias
        self.many = Bfloat16Projection(weight, bias)

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[0] > FEW_ROWS:
            return self.many(x)
        y = torch._weight_int8pack_mm(x.to(torch.bfloat16), self.weight, self.scale).float()
        return y if self.bias is None else y.add_(self.bias)


def _pack(weight: Tensor) -> Tensor:
    """oneDNN's own layout, chosen for 8 rows; correct for any number."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, 8)


def _packed_linear(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
