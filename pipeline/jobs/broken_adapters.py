"""A trained adapter broken in one way after another, for the gate's own tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS_FILE = "adapter_model.safetensors"

Change = Callable[[str, Tensor, torch.Generator], Tensor]  # name, weight, chance


def _louder(name: str, weight: Tensor, _: torch.Generator) -> Tensor:
    return weight * 10 if ".lora_B." in name else weight


def _random(_: str, weight: Tensor, chance: torch.Generator) -> Tensor:
    return torch.randn(weight.shape, generator=chance) * max(float(weight.float().std()), 0.05)


def _half(name: str, weight: Tensor, chance: torch.Generator) -> Tensor:
    is_gone = ".lora_B." in name and bool(torch.rand(1, generator=chance) < 0.5)
    return torch.zeros_like(weight) if is_gone else weight


def _shaken(_: str, weight: Tensor, chance: torch.Generator) -> Tensor:
    return weight + torch.randn(weight.shape, generator=chance) * 2 * weight.float().std()


ADAPTER_MUTANTS: dict[str, Change] = {
    "adapter x 10": _louder,
    "random adapter": _random,
    "half the adapter's layers zero": _half,
    "adapter with noise": _shaken,
}


def write_broken(source: Path, target: Path, change: Change, seed: int) -> None:
    """Copy a folder of adapters, with every weight changed."""
    chance = torch.Generator().manual_seed(seed)
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.name == WEIGHTS_FILE:
            state = load_file(path)
            save_file({name: change(name, state[name], chance).contiguous() for name in sorted(state)}, copy)
        elif path.is_file():
            copy.write_bytes(path.read_bytes())
