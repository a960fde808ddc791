"""Weight matrices made ready for decoding, where each is read once for one to a few rows (memory-bound).

Every kind is a callable (M, in) -> (M, out) in float32. `f32` computes the numbers of the network; `bf16` and `int8`
read a half and a quarter of the bytes and lose a little, which `models.text2semantic.decoding.compare_weights`
measures. Not every processor has them: `models/machine/processor.py`.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.machine.kernels import int8_product, pack, product
from models.machine.processor import ProcessorError, require, works

WeightKind = Literal["f32", "bf16", "int8"]
Projection = Callable[[Tensor], Tensor]
FEW_ROWS = 32  # up to here the quantized product beats the one in bfloat16
PARTS, VECTOR = 8, 16  # of a product with a single row: parts that cores share, numbers per instruction


def build_projection(kind: WeightKind, weight: Tensor, bias: Tensor | None) -> Projection:
    """weight: (out, in) float32; bias: (out,) or None. Raises ProcessorError where this processor cannot."""
    if weight.device.type != "cpu":
        if kind == "int8":
            raise ProcessorError(f"int8: its weights are for decoding on a CPU, not on {weight.device.type}")
        return DeviceProjection(weight, bias, torch.float32 if kind == "f32" else torch.bfloat16)
    if kind == "f32":
        return FloatProjection(weight, bias)
    require(kind)
    return Int8Projection(weight, bias) if kind == "int8" else Bfloat16Projection(weight, bias)


class DeviceProjection:
    """The ordinary product of an accelerator, in float32 or bfloat16."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.weight, self.bias, self.dtype = weight.to(dtype), None if bias is None else bias.to(dtype), dtype

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.dtype), self.weight, self.bias).float()


class FloatProjection:
    """float32 on a CPU. Many rows go through oneDNN, which on some processors is far ahead of `F.linear`.

    A single row is bound by memory, and there `embedding_bag` reads fastest: the product is a sum of the columns of the
    matrix, weighted by the row. They are cut into as many parts as several cores can share: (PARTS * in, out / PARTS).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight.contiguous(), bias
        self.outputs, self.inputs = weight.shape
        self.packed: Tensor | None = None  # both layouts are made when first needed: each is a copy of the weights
        self.columns: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            return self._single(x[0])[None]
        if not works("onednn"):
            return F.linear(x, self.weight, self.bias)
        if self.packed is None:
            self.packed = pack(self.weight)
        return product(x, self.packed, self.bias)

    def _single(self, x: Tensor) -> Tensor:
        if self.columns is None:
            padded = F.pad(self.weight, (0, 0, 0, -self.outputs % (PARTS * VECTOR)))
            self.columns = padded.unflatten(0, (PARTS, -1)).transpose(1, 2).flatten(0, 1)  # (PARTS * in, out / PARTS)
            self.rows = torch.arange(PARTS * self.inputs, dtype=torch.int32)
            self.parts = torch.arange(0, PARTS * self.inputs, self.inputs, dtype=torch.int32)
        weights = x.expand(PARTS, -1).reshape(-1)
        y = torch.embedding_bag(self.columns, self.rows, self.parts, False, 0, False, weights)[0].view(-1)
        y = y[: self.outputs]
        return y if self.bias is None else y.add_(self.bias)


class Bfloat16Projection:
    """bfloat16 weights and inputs, float32 accumulation."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.packed = pack(weight.to(torch.bfloat16))
        self.bias = None if bias is None else bias.to(torch.bfloat16)

    def __call__(self, x: Tensor) -> Tensor:
        return product(x.to(torch.bfloat16), self.packed, self.bias).float()


class Int8Projection:
    """int8 weights with one scale per output, bfloat16 inputs; many rows (the prefill) go through another kind.

    That is bfloat16 where the processor multiplies it and float32 elsewhere, which is quicker there than any other.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        self.weight = (weight / scale[:, None]).round().to(torch.int8)
        self.scale, self.bias = scale.to(torch.bfloat16), bias
        self.many: Projection = (Bfloat16Projection if works("bf16") else FloatProjection)(weight, bias)

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[0] > FEW_ROWS:
            return self.many(x)
        y = int8_product(x.to(torch.bfloat16), self.weight, self.scale).float()
        return y if self.bias is None else y.add_(self.bias)
