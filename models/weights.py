"""Putting a state dict into a network: strictly, and with words when it does not fit."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.errors import WeightsError, shorten


def read_weights(path: Path) -> dict[str, Tensor]:
    """A safetensors file by name. Raises `WeightsError` where there is none."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: not a safetensors file: {str(error)[:100]}") from None


def require_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Raises `WeightsError` naming the first tensor that holds NaN or infinity: a network of them says nothing."""
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            broken = int((~torch.isfinite(value)).sum())
            raise WeightsError(
                f"{source}: {shorten(name)}: {broken} of {value.numel()} numbers are NaN or infinite; "
                "it was saved from a training that had diverged, or is damaged"
            )


def load_weights(network: nn.Module, state: Mapping[str, Tensor], source: str, absent: tuple[str, ...] = ()) -> None:
    """Load `state` into `network`; any missing, unexpected or misshapen entry raises `WeightsError`.

    `source` is named in the message; names starting with one of `absent` may be missing (GPT-SoVITS leaves the
    posterior encoder `enc_q.` out of its inference files) and then keep what the network has.
    """
    expected = network.state_dict()
    missing = [name for name in expected if name not in state and not name.startswith(absent or ("\0",))]
    unexpected = [name for name in state if name not in expected]
    if missing or unexpected:
        raise WeightsError.keys_differ(source, missing, unexpected)
    for name, value in state.items():
        if value.shape != expected[name].shape:
            raise WeightsError(
                f"{source}: {name} has shape {list(value.shape)}, the network's has {list(expected[name].shape)}"
            )
    with torch.no_grad():
        for name, value in state.items():
            expected[name].copy_(value)
