"""What attention remembers while tokens are decoded one after another.

Letters: B rows, H heads, d width of a head, T columns of the prefill, C columns so far, L capacity in columns.
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

CAPACITY_STEP = 64  # columns by which a memory grows
VALUE_STEP = 512  # the same for values that are read by index, where unused columns cost nothing


class Memory(Protocol):
    """Keys and values of all layers. A token opens a column, then every layer fills it."""

    columns: int  # filled or being filled

    def add_layer(self, keys: Tensor, values: Tensor) -> None:
        """The keys and values of the prefill, both (B, H, T, d), of the next layer."""
        ...

    def open_column(self) -> None:
        """Make room for one more token per row."""
        ...

    def attend(self, layer: int, qkv: Tensor) -> Tensor:
        """Keep keys and values of the open column and return what its queries attend to: (B, 3 H d) -> (B, H d)."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with the rows of this index (B') only."""
        ...


def build_memory(used: Tensor, dtype: torch.dtype = torch.float32) -> Memory:
    """used: (B, T), false where a row of the prefill is padded. dtype: how a CPU keeps keys and values."""
    bias = None if used.all() else torch.zeros(used.shape, device=used.device).masked_fill_(~used, -torch.inf)
    columns = used.shape[1]
    if used.device.type == "cpu":
        return WeightedSumMemory(columns, bias, dtype)
    return DenseMemory(columns, bias)


def _room(columns: int, step: int = CAPACITY_STEP) -> int:
    """Free columns behind those: at least one, up to the next multiple of the step."""
    return step - columns % step


class DenseMemory:
    """For an accelerator: torch's own attention."""

    def __init__(self, columns: int, bias: Tensor | None) -> None:
        self.columns = columns
        self.bias = bias  # (B, C)
        self.layers: list[Tensor] = []  # each (2, B, H, L, d): keys, values

    def add_layer(self, keys: Tensor, values: Tensor) -> None:
        self.layers.append(F.pad(torch.stack([keys, values]), (0, 0, 0, _room(self.columns))))

    def open_column(self) -> None:
        self.columns += 1
        if self.columns > self.layers[0].shape[3]:
            self.layers = [F.pad(layer, (0, 0, 0, CAPACITY_STEP)) for layer in self.layers]
        if self.bias is not None:
            self.bias = F.pad(self.bias, (0, 1))

    def attend(self, layer: int, qkv: Tensor) -> Tensor:
        memory = self.layers[layer]
        split = qkv.unflatten(-1, (3, memory.shape[2], -1)).transpose(0, 1)  # (3, B, H, d)
        memory[:, :, :, self.columns - 1] = split[1:]
        keys, values = memory[:, :, :, : self.columns]
        bias = None if self.bias is None else self.bias[:, None, None]
        return F.scaled_dot_product_attention(split[0][:, :, None], keys, values, bias).flatten(1)

    def keep(self, rows: Tensor) -> None:
        self.layers = [layer[:, rows] for layer in self.layers]
        self.bias = None if self.bias is None else self.bias[rows]


class WeightedSumMemory:
    """For a CPU, where torch's attention of single queries reads at half the memory's speed.

    Both halves of attention are weighted sums of rows, which `embedding_bag` computes at full speed on all cores. The
    scores of a head are its d rows of keys, each over all columns, weighted by the query; what it attends to is its C
    rows of values, weighted by the softmax of the scores. So keys lie as (B H d, L) and values as (B H L, d), each with
    a capacity L of its own.
    """

    def __init__(self, columns: int, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.columns, self.dtype = columns, dtype
        self.bias = None if bias is None else bias[:, None]  # (B, 1, T)
        self.layers: list[tuple[Tensor, Tensor]] = []  # keys (B, H, d, L), values (B, H, L, d)

    def add_layer(self, keys: Tensor, values: Tensor) -> None:
        keys = F.pad(keys.to(self.dtype).transpose(2, 3), (0, _room(self.columns)))
        values = F.pad(values.to(self.dtype), (0, 0, 0, _room(self.columns, VALUE_STEP)))
        self.layers.append((keys, values))

    def open_column(self) -> None:
        self.columns += 1
        keys, values = self.layers[0]
        if self.columns > keys.shape[3]:
            self.layers = [(F.pad(keys, (0, CAPACITY_STEP)), values) for keys, values in self.layers]
        if self.columns > values.shape[2]:
            self.layers = [(keys, F.pad(values, (0, 0, 0, VALUE_STEP))) for keys, values in self.layers]
        rows, heads, capacity, width = self.layers[0][1].shape
        self.key_rows, self.key_bags = _bags(rows * heads, width, width)
        self.value_rows, self.value_bags = _bags(rows * heads, self.columns, capacity)

    def attend(self, layer: int, qkv: Tensor) -> Tensor:
        keys, values = self.layers[layer]
        rows, heads, width, capacity = keys.shape
        query, key, value = qkv.view(rows, 3, heads, width).unbind(1)
        keys[..., self.columns - 1] = key
        values[:, :, self.columns - 1] = value
        weights = (query / math.sqrt(width)).view(-1)
        scores = self._sums(keys.view(-1, capacity), self.key_rows, self.key_bags, weights)  # (B H, L)
        scores = scores.view(rows, heads, capacity)[..., : self.columns]
        if self.bias is not None:
            scores[..., : self.bias.shape[-1]] += self.bias
        weights = scores.softmax(-1, dtype=torch.float32).view(-1)  # (B H C,)
        attended = self._sums(values.view(-1, width), self.value_rows, self.value_bags, weights)  # (B H, d)
        return attended.view(rows, -1).float()

    def _sums(self, table: Tensor, rows: Tensor, bags: Tensor, weights: Tensor) -> Tensor:
        """Weighted sums of rows of the table (R, W), one per bag: (bags, W). They are summed in float32."""
        return torch.embedding_bag(table, rows, bags, False, 0, False, weights.to(self.dtype))[0]

    def keep(self, rows: Tensor) -> None:
        self.layers = [(keys[rows], values[rows]) for keys, values in self.layers]
        self.bias = None if self.bias is None else self.bias[rows]


def _bags(bags: int, used: int, stride: int) -> tuple[Tensor, Tensor]:
    """The rows of every bag, the first `used` of each `stride`, and where its part of them starts."""
    starts = torch.arange(0, bags * stride, stride, dtype=torch.int32)
    rows = (starts[:, None] + torch.arange(used, dtype=torch.int32)).view(-1)
    return rows, torch.arange(0, bags * used, used, dtype=torch.int32)
