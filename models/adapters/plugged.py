"""Adapters beside the weights instead of in them: one network in memory, and many voices that speak through it.

`merge_adapter` gives every voice a network of its own. Here the network stays as it is, an adapter is a few small
tensors, and each row of a batch carries its own: y = W x + B A x, where B holds the scale of the adapter.

Letters: R rows, T columns, r rank.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.adapters.lora import fitting_adapter

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class LowRank:
    """One adapter: module -> A and B, scale included, as products take them.

    Of a linear layer (in, r) and (r, out); of a convolution (r, in, k) and (out, r, 1).
    """

    pairs: Mapping[str, Pair]

    @property
    def size_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for pair in self.pairs.values() for tensor in pair)


EMPTY = LowRank({})  # of a slot that nobody speaks in


def read_low_rank(network: nn.Module, folder: Path | None) -> LowRank:
    """The adapter in a folder, for this network; None: the base as it is.

    Raises `models.errors.WeightsError` where it is missing, damaged or made for another network.
    """
    if folder is None:
        return LowRank({})
    targets, state, scale = fitting_adapter(network, folder)
    device = next(network.parameters()).device
    pairs = {}
    for name in targets:
        a, b = state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"] * scale
        if a.dim() == 2:
            a, b = a.T, b.T
        # Copied: what is read lies in the file's own pages, and who changes the file would change the voice.
        pairs[name] = (a.contiguous().to(device, copy=True), b.contiguous().to(device, copy=True))
    return LowRank(pairs)


def low_rank_change(x: Tensor, pair: Pair) -> Tensor:
    """What one adapter adds to a linear layer's (..., out) for x (..., in)."""
    return x @ pair[0] @ pair[1]


@dataclass(eq=False)
class Slots:
    """The adapters of up to R rows of linear layers, stacked, so that one product serves rows of different voices.

    A row is put into a slot and stays there; a slot without one adds nothing.
    """

    rows: list[LowRank]
    _stacks: dict[str, Pair] = field(default_factory=dict)  # (R, in, r), (R, r, out)
    _same: LowRank | None = None  # the one that all slots carry; what an empty one computes is not read

    def __post_init__(self) -> None:
        self._arrange(range(len(self.rows)))

    def put(self, slot: int, adapter: LowRank) -> None:
        self.rows[slot] = adapter
        self._arrange([slot] if self._same is None else range(len(self.rows)))

    def change(self, name: str, x: Tensor) -> Tensor | None:
        """What the rows' adapters add for x (R T, in), row by row; None where none of them adapts the module."""
        if self._same is not None:
            pair = self._same.pairs.get(name)
            return None if pair is None else low_rank_change(x, pair)
        stack = self._stacks.get(name)
        if stack is None:
            return None
        a, b = stack
        return torch.bmm(torch.bmm(x.reshape(len(a), -1, x.shape[-1]), a), b).flatten(0, 1)

    def _arrange(self, changed: Sequence[int]) -> None:
        carried = {id(row): row for row in self.rows if row is not EMPTY}
        if len(carried) > 1:
            self._same = None
            self._fill(changed)
        else:
            self._same, self._stacks = next(iter(carried.values()), EMPTY), {}

    def _fill(self, slots: Sequence[int]) -> None:
        for slot in slots:
            for name, (a, b) in self._stacks.items():
                if name not in self.rows[slot].pairs:
                    a[slot], b[slot] = 0.0, 0.0
            for name, pair in self.rows[slot].pairs.items():
                stack_a, stack_b = self._stack(name, pair)
                rank = pair[0].shape[1]
                stack_a[slot], stack_b[slot] = 0.0, 0.0
                stack_a[slot, :, :rank], stack_b[slot, :rank] = pair

    def _stack(self, name: str, pair: Pair) -> Pair:
        (n_in, rank), n_out, count = pair[0].shape, pair[1].shape[1], len(self.rows)
        present = self._stacks.get(name)
        if present is None:
            present = (pair[0].new_zeros(count, n_in, rank), pair[0].new_zeros(count, rank, n_out))
        elif present[0].shape[2] < rank:
            more = rank - present[0].shape[2]
            present = (F.pad(present[0], (0, more)), F.pad(present[1], (0, 0, 0, more)))
        self._stacks[name] = present
        return present


class Plug:
    """Lets a network speak with one adapter after another, each thread with its own."""

    def __init__(self, network: nn.Module) -> None:
        self._now = threading.local()
        self._modules, self._covered = dict(network.named_modules()), set[str]()

    def cover(self, adapter: LowRank) -> None:
        """Make ready for an adapter. One thread at a time."""
        for name in adapter.pairs.keys() - self._covered:
            self._modules[name].register_forward_hook(self._hook(name))
            self._covered.add(name)

    @contextmanager
    def carrying(self, adapter: LowRank) -> Iterator[None]:
        """Inside, in this thread, the network acts as if the adapter were merged."""
        before = getattr(self._now, "adapter", None)
        self._now.adapter = adapter
        try:
            yield
        finally:
            self._now.adapter = before

    def _hook(self, name: str) -> Any:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            adapter = getattr(self._now, "adapter", None)
            pair = None if adapter is None else adapter.pairs.get(name)
            if pair is None:
                return None
            if isinstance(module, nn.Conv1d):
                inner = F.conv1d(inputs[0], pair[0], None, module.stride, module.padding)
                return output + F.conv1d(inner, pair[1])
            return output + low_rank_change(inputs[0], pair)

        return add
