"""Weight norm: the same function as torch's, folded and unfolded without a trace."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from models.blocks.weight_norm import (
    NORMED,
    NormedConv1d,
    NormedConv2d,
    NormedConvTranspose1d,
    fold_weight_norm,
    unfold_state_dict,
)

KINDS = [
    (NormedConv1d(4, 6, 3, padding=2, dilation=2, groups=2), nn.Conv1d(4, 6, 3, padding=2, dilation=2, groups=2), 3),
    (NormedConv2d(3, 5, (5, 1), stride=(3, 1), padding=(2, 0)), nn.Conv2d(3, 5, (5, 1), (3, 1), (2, 0)), 4),
    (NormedConvTranspose1d(4, 2, 6, stride=2, padding=2), nn.ConvTranspose1d(4, 2, 6, 2, 2), 3),
]


def shaken(network: nn.Module) -> nn.Module:
    """Weights away from their start, where the norm is not that of the direction."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize(("normed", "plain", "dims"), KINDS, ids=["conv1d", "conv2d", "transposed"])
def test_it_is_the_weight_norm_of_torch(normed: nn.Module, plain: nn.Module, dims: int) -> None:
    theirs = torch.nn.utils.weight_norm(copy.deepcopy(plain))
    ours = shaken(copy.deepcopy(normed))
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, normed.in_channels, *[11] * (dims - 2))
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("normed", "plain", "dims"), KINDS, ids=["conv1d", "conv2d", "transposed"])
def test_folding_changes_neither_output_nor_flags(normed: nn.Module, plain: nn.Module, dims: int) -> None:
    network = nn.Sequential(nn.ReLU(), shaken(copy.deepcopy(normed))).eval()
    network.requires_grad_(False)
    x = torch.randn(2, normed.in_channels, *[11] * (dims - 2))
    before = network(x)
    assert fold_weight_norm(network) == 1
    folded = network[1]
    assert type(folded) is type(plain) and not folded.training and not folded.weight.requires_grad
    torch.testing.assert_close(network(x), before, atol=1e-6, rtol=1e-5)


def test_unfolding_gives_back_a_pair_that_stands_for_the_same_weight() -> None:
    network = nn.Sequential(shaken(NormedConv1d(3, 4, 3)), nn.Conv1d(4, 2, 1))
    names = list(network.state_dict())
    folded = copy.deepcopy(network)
    fold_weight_norm(folded)
    unfolded = unfold_state_dict(folded.state_dict(), names)
    assert sorted(unfolded) == sorted(names)
    again = nn.Sequential(NormedConv1d(3, 4, 3), nn.Conv1d(4, 2, 1))
    again.load_state_dict(unfolded)
    x = torch.randn(1, 3, 9)
    torch.testing.assert_close(again(x), network(x), atol=1e-6, rtol=1e-5)


def test_there_is_no_weight_to_merge_an_adapter_into_by_mistake() -> None:
    for module in (NormedConv1d(2, 2, 1), NormedConvTranspose1d(2, 2, 2)):
        assert isinstance(module, NORMED)
        assert not hasattr(module, "weight")
