"""LoRA files of v3 and v4: peft names for the flow's attention, whole layers and buffers
(docs/networks/flow-matching.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.errors import WeightsError
from models.upstream.files import UpstreamFile

TARGETS = ("to_k", "to_q", "to_v", "to_out.0")
WHOLE_LAYERS = (
    "bridge.",
    "wns1.",
    "linear_mel.",
    "ref_enc.",
)  # upstream leaves them trainable, so they are in its files
_PAIR = re.compile(r"cfm\.base_model\.model\.(estimator\..+)\.lora_([AB])\.default\.weight")
_BUFFER = re.compile(r"quantizer\.|cfm\.base_model\.model\.estimator\.rotary_embed\.inv_freq$")


@dataclass(frozen=True)
class UpstreamLora:
    """A LoRA file taken apart, under the names of `CfmSynthesizer`."""

    pairs: dict[str, tuple[Tensor, Tensor]]
    """Module name -> (A of shape (rank, inputs), B of shape (outputs, rank)); the module gains B A, with scale 1."""
    layers: dict[str, Tensor]
    """Layers that were trained whole: they take the place of the base's."""
    buffers: dict[str, Tensor]
    """The base's own buffers, rounded to half precision by upstream. The base has them exactly."""
    rank: int


def upstream_lora_split(file: UpstreamFile) -> UpstreamLora:
    """Take a LoRA file apart; an entry that belongs to no part, or half a pair, raises `WeightsError`."""
    halves: dict[str, dict[str, Tensor]] = {}
    layers: dict[str, Tensor] = {}
    buffers: dict[str, Tensor] = {}
    unknown = []
    for name, value in file.weights.items():
        if pair := _PAIR.fullmatch(name):
            halves.setdefault("cfm." + pair[1], {})[pair[2]] = value
        elif _BUFFER.match(name):
            buffers[name.replace("cfm.base_model.model.", "cfm.")] = value
        elif name.startswith(WHOLE_LAYERS):
            layers[name] = value
        else:
            unknown.append(name)
    lone = [f"{module}.lora_{'B' if 'A' in half else 'A'}" for module, half in halves.items() if len(half) < 2]
    if unknown or lone or not halves or file.lora_rank is None:
        raise WeightsError.keys_differ(f"{file.path} as a LoRA file", lone or ([] if halves else ["lora_A"]), unknown)
    pairs = {module: (half["A"], half["B"]) for module, half in halves.items()}
    wrong = [module for module, (a, b) in pairs.items() if a.shape[0] != file.lora_rank or b.shape[1] != file.lora_rank]
    if wrong:
        raise WeightsError(
            f"{file.path}: says rank {file.lora_rank}, but {wrong[0]} has rank {pairs[wrong[0]][0].shape[0]}"
        )
    return UpstreamLora(pairs, layers, buffers, file.lora_rank)


def upstream_lora_weights(
    pairs: Mapping[str, tuple[Tensor, Tensor]], layers: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The entries of a LoRA file; the reverse of `upstream_lora_split`.

    Args:
        pairs: A and B by module name, with any scale other than 1 already multiplied into B.
        layers: whole layers that were trained; they may be left out, upstream then keeps the base's.
        buffers: the network's buffers; upstream writes them, and accepts a file without them.
    """
    foreign = [name for name in pairs if not (name.startswith("cfm.estimator.") and name.endswith(TARGETS))]
    foreign += [name for name in layers if not name.startswith(WHOLE_LAYERS)]
    if foreign:
        raise WeightsError(f"a GPT-SoVITS LoRA file cannot hold an adapter of {foreign[0]}")
    weights = dict(layers)
    for module, (a, b) in pairs.items():
        stem = module.replace("cfm.", "cfm.base_model.model.", 1)
        weights[f"{stem}.lora_A.default.weight"] = a
        weights[f"{stem}.lora_B.default.weight"] = b
    for name, value in buffers.items():
        weights[name.replace("cfm.", "cfm.base_model.model.", 1) if name.startswith("cfm.") else name] = value
    return weights


def upstream_lora_merge(
    state: Mapping[str, Tensor], lora: UpstreamLora, *, rounded_buffers: bool = False
) -> dict[str, Tensor]:
    """The state dict of a `CfmSynthesizer` with a LoRA file merged into it.

    Args:
        rounded_buffers: take the file's half-precision codebook too, as upstream does when it loads one.

    Raises:
        WeightsError: the adapter fits another network.
    """
    merged = dict(state)
    replaced = {**lora.layers, **(lora.buffers if rounded_buffers else {})}
    _check_names(state, [f"{module}.weight" for module in lora.pairs] + list(replaced))
    for name, value in replaced.items():
        _check_shape(name, state[name], value.shape)
        merged[name] = value.to(state[name])
    for module, (a, b) in lora.pairs.items():
        name = f"{module}.weight"
        _check_shape(name, state[name], torch.Size((b.shape[0], a.shape[1])))
        merged[name] = state[name] + (b.float() @ a.float()).to(state[name])
    return merged


def _check_names(state: Mapping[str, Tensor], names: Iterable[str]) -> None:
    foreign = [name for name in names if name not in state]
    if foreign:
        raise WeightsError.keys_differ("a LoRA adapter for another base", [], foreign)


def _check_shape(name: str, ours: Tensor, theirs: torch.Size) -> None:
    if ours.shape != theirs:
        raise WeightsError(f"a LoRA adapter for another base: {name} is {list(theirs)}, not {list(ours.shape)}")
