"""ScaledAdam against thirty steps of upstream's optimizer on a toy model."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.text2semantic.scaled_adam import AdamNumbers, ScaledAdam


def loud_step(fixture) -> tuple[int, float]:
    """At which step the loss is how many times as large, to set off the clipping; in the words of the json."""
    told = re.search(r"times ([\d.]+) at step (\d+)", fixture.meta["calls"]["*"])
    assert told, fixture.meta["calls"]["*"]
    return int(told[2]), float(told[1])


def toy_loss(w: dict[str, nn.Parameter], x: Tensor, target: Tensor) -> Tensor:
    hidden = F.linear(torch.tanh(F.linear(x, w["a.weight"], w["a.bias"])), w["b.weight"], w["b.bias"])
    y = F.layer_norm(hidden, hidden.shape[-1:], w["n.weight"], w["n.bias"]) * w["c"]
    return ((y - target) ** 2).sum()


@pytest.mark.reference("scaled_adam")
def test_parameters_and_losses_follow_upstream(fixture):
    weights = {name: nn.Parameter(value.clone()) for name, value in fixture.weights.items()}
    settings = {key: value for key, value in fixture.meta["config"].items() if key != "others"}
    optimizer = ScaledAdam(weights.values(), AdamNumbers(**settings))
    (loud, loudness), compared = loud_step(fixture), 0
    for step, (x, target) in enumerate(zip(fixture["x"], fixture["t"], strict=True)):
        loss = toy_loss(weights, x, target) * (loudness if step == loud - 1 else 1)
        assert loss.item() == pytest.approx(fixture.meta["scalars"]["losses"][step], rel=1e-5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for name, expected in fixture.outputs(f"step{step + 1}.").items():
            torch.testing.assert_close(weights[name].data, expected, atol=1e-5, rtol=0)
            compared += 1
    assert compared == len(fixture.outputs("step"))


@pytest.mark.reference("scaled_adam")
def test_a_saved_state_goes_on_as_if_never_stopped(fixture):
    def steps(weights: dict[str, nn.Parameter], optimizer: ScaledAdam, which: range) -> None:
        for step in which:
            optimizer.zero_grad()
            toy_loss(weights, fixture["x"][step], fixture["t"][step]).backward()
            optimizer.step()

    straight = {name: nn.Parameter(value.clone()) for name, value in fixture.weights.items()}
    optimizer = ScaledAdam(straight.values(), AdamNumbers(clipping_update_period=4))
    steps(straight, optimizer, range(7))
    resumed = {name: nn.Parameter(value.data.clone()) for name, value in straight.items()}
    second = ScaledAdam(resumed.values(), AdamNumbers(clipping_update_period=4))
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(straight, optimizer, range(7, 14))
    steps(resumed, second, range(7, 14))
    for name, value in straight.items():
        assert torch.equal(value, resumed[name]), name
