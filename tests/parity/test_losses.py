"""Discriminators and losses against upstream's."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from models.configs.synthesizer import DiscriminatorConfig, MelConfig
from models.learners.discriminator import Discriminator
from models.learners.losses import MelLoss, discriminator_loss, feature_loss, generator_loss
from models.loading.bases import list_bases, load_base

RELATIVE = 1e-4


def discriminator_config(version: str) -> DiscriminatorConfig:
    for name in list_bases():
        base = load_base(name)
        if base.upstream_version == version and base.discriminator is not None:
            return base.discriminator
    raise AssertionError(f"no base declares the discriminator of {version}")


@pytest.fixture(scope="module")
def network_of() -> Callable[[Any], Discriminator]:
    """The network of a fixture, filled once: neither of its tests changes it. One at a time is held."""
    made: dict[str, Discriminator] = {}

    def filled(fixture: Any) -> Discriminator:
        if str(fixture) not in made:
            made.clear()
            made[str(fixture)] = fixture.load(Discriminator(discriminator_config(fixture.meta["config"]["version"])))
        return made[str(fixture)]

    return filled


def mel_call(fixture: Any) -> tuple[float, MelConfig]:
    """Weight and numbers of the mel loss, as the json's `calls` say."""
    told = fixture.meta["calls"]["*"]
    match = re.search(r"\*(\d+) with mel (\d+)/(\d+)/(\d+)/(\d+)/(\d+)/(\d+)/(None|\d+)", told)
    assert match is not None, told
    weight, *numbers, highest = match.groups()
    keys = ("n_fft", "n_mels", "sample_rate_hz", "hop_samples", "win_samples", "f_min_hz")
    given = dict(zip(keys, map(int, numbers), strict=True))
    return float(weight), MelConfig(**given, f_max_hz=None if highest == "None" else float(highest))


@pytest.mark.state_dict("s2-discriminator-")
def test_names_and_shapes_are_those_of_the_files(described: Any) -> None:
    config = discriminator_config(described.meta["constructor"]["version"])
    with torch.device("meta"):
        described.check(Discriminator(config))


@pytest.mark.reference("s2_losses_")
def test_logits_losses_and_gradient(fixture: Any, network_of: Callable[[Any], Discriminator]) -> None:
    """The generator's side is checked by the norm of its gradient to the generated wave."""
    network = network_of(fixture)
    scalars = fixture.meta["scalars"]
    wave, generated = fixture["y"], fixture["y_hat"].clone().requires_grad_()

    (real_logits, real_maps), (logits, maps) = network.compare(wave, generated)
    for index, expected in fixture.outputs("logits_fake.").items():
        difference = (logits[int(index)] - expected).abs().max()
        assert difference <= RELATIVE * max(1.0, expected.abs().max().item())
    assert discriminator_loss(real_logits, logits).item() == pytest.approx(scalars["discriminator_loss"], rel=RELATIVE)
    for index, (real, fake) in enumerate(zip(real_logits, logits, strict=True)):
        assert (1 - real).square().mean().item() == pytest.approx(scalars["disc_real"][index], rel=RELATIVE)
        assert fake.square().mean().item() == pytest.approx(scalars["disc_fake"][index], rel=RELATIVE)

    adversarial, features = generator_loss(logits), feature_loss(real_maps, maps)
    weight, config = mel_call(fixture)
    mel = weight * MelLoss(config)(generated[:, 0], wave[:, 0])
    assert adversarial.item() == pytest.approx(scalars["generator_loss"], rel=RELATIVE)
    assert features.item() == pytest.approx(scalars["feature_loss"], rel=RELATIVE)
    assert mel.item() == pytest.approx(scalars["mel_loss_x45"], rel=RELATIVE)
    (gradient,) = torch.autograd.grad(adversarial + features + mel, generated)
    assert gradient.norm().item() == pytest.approx(scalars["grad_y_hat_norm_of(gen+fm+mel)"], rel=RELATIVE)


@pytest.mark.reference("s2_losses_")
def test_judging_two_batches_at_once_changes_nothing(fixture: Any, network_of: Callable[[Any], Discriminator]) -> None:
    network = network_of(fixture)
    with torch.no_grad():
        alone, _ = network(fixture["y_hat"])
        (_, _), (together, _) = network.compare(fixture["y"], fixture["y_hat"])
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
