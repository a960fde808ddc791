"""v3 and v4 against upstream's numbers: condition, losses, gradients, sampling, the bare estimator, a LoRA file."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.configs.cfm import CfmSynthesizerConfig, DiTConfig
from models.configs.synthesizer import MelConfig, SynthesizerConfig
from models.loading.bases import list_bases, load_base
from models.synthesizer.cfm import FlowDraws, FlowPath
from models.synthesizer.cfm_synthesizer import CfmSynthesizer
from models.synthesizer.dit import ConditionEmbedding, RotaryEmbedding
from models.synthesizer.tokens import TrainingBatch
from models.weights import load_weights

SMALL_TOLERANCE, FULL_TOLERANCE, RELATIVE_TOLERANCE = 2e-5, 2e-4, 1e-3
DIT_NAMES = {
    "mel_dim": "mel_channels",
    "text_dim": "condition_channels",
    "dim_head": "head_dim",
    "conv_layers": "condition_layers",
}
RATES = {
    "v3": {"frames_ratio": 1.875, "mask_frames_per_token": 3.875},
    "v4": {"frames_ratio": 2.0, "mask_frames_per_token": 4.0},
}


def cfm_config(meta: dict[str, Any]) -> CfmSynthesizerConfig:
    """Our config of the sizes a fixture was made with."""
    built, swapped = meta["config"]["constructor"], meta["config"]["swapped_constants"]
    same = {key: built[key] for key in SynthesizerConfig.model_fields if key in built}
    constants = {key: swapped[key] for key in ("ssl_dim", "codebook_size", "mrte_hidden", "style_hidden")}
    return CfmSynthesizerConfig(
        encoder=SynthesizerConfig(**{**same, **constants}),
        mel=MelConfig(n_mels=swapped["n_mels"]),
        bridge_channels=swapped["bridge_channels"],
        dit=DiTConfig(**{DIT_NAMES.get(key, key): value for key, value in swapped["dit"].items()}),
        **RATES[built["version"]],
    )


def stored_weights(fixture: Any) -> dict[str, Tensor]:
    """The fixture's weights, or those of another fixture it names; empty when the recipe makes them."""
    other = re.search(r"(\S+\.safetensors)", fixture.meta["weights"])
    if fixture.weights or other is None:
        return fixture.weights
    tensors = load_file(fixture.path.with_name(other.group(1)))
    return {name[2:]: value for name, value in tensors.items() if name.startswith("w.")}


class Networks:
    """The network of a fixture. v3 and v4 hold the same names, so one full-size filling serves both."""

    def __init__(self) -> None:
        self.key: str = ""
        self.state: dict[str, Tensor] = {}

    def of(self, fixture: Any) -> CfmSynthesizer:
        config, weights = cfm_config(fixture.meta), stored_weights(fixture)
        if weights:
            network = CfmSynthesizer(config)
            load_weights(network, weights, fixture.name)
            return network.eval()
        key = json.dumps([config.model_dump(mode="json", exclude=set(RATES["v3"])), fixture.seed])
        if key != self.key:
            self.state = {}
            self.key, self.state = key, fixture.made_weights(without_initial_values(config))
        network = without_initial_values(config)
        network.load_state_dict(self.state, assign=True)
        return network.eval()


def without_initial_values(config: CfmSynthesizerConfig) -> CfmSynthesizer:
    """A network that skips drawing 383 M random numbers which are overwritten anyway."""
    with torch.device("meta"):
        network = CfmSynthesizer(config)
    network.to_empty(device="cpu")
    network.cfm.estimator.text_embed = ConditionEmbedding(config.dit)  # what the constructor computes
    network.cfm.estimator.rotary_embed = RotaryEmbedding(config.dit.head_dim)
    return network


@pytest.fixture(scope="module")
def networks() -> Iterator[Networks]:
    made = Networks()
    yield made
    made.state = {}
    gc.collect()


def batch(fixture: Any, network: CfmSynthesizer) -> TrainingBatch:
    """The fixture's training batch."""
    codes = network.extract_tokens(fixture["ssl"])
    return TrainingBatch(fixture["spec"], fixture["spec_lengths"], fixture["text"], fixture["text_lengths"], codes)


def draws(fixture: Any, *, is_shortcut: bool) -> FlowDraws:
    return FlowDraws(fixture["u_t"], fixture["x0"], is_shortcut, fixture["base"])


def tolerance_of(fixture: Any) -> float:
    return FULL_TOLERANCE if fixture.meta["weights"] == "recipe" else SMALL_TOLERANCE


@pytest.mark.state_dict("s2-v[34]")
def test_names_and_shapes_are_those_of_the_files(described: Any) -> None:
    version = described.meta["constructor"]["version"]
    base = next(base for base in map(load_base, list_bases()) if base.upstream_version == version)
    assert base.cfm is not None
    with torch.device("meta"):
        described.check(CfmSynthesizer(base.cfm))


def check_conditions(fixture: Any, network: CfmSynthesizer) -> Tensor:
    """Tokens, ge and the condition in training and at synthesis; returns what inference is conditioned on."""
    tolerance = tolerance_of(fixture)
    given = batch(fixture, network)
    text = given.text
    assert torch.equal(given.codes, fixture.outputs()["extract_latent"])
    if "fea" in fixture.outputs():
        made = network.training_features(given, fixture["mel_lengths"])
        fixture.check("fea", made, tolerance)
    ge = network.condition(fixture["refer"])
    fixture.check("decode_encp.ge", ge, tolerance)
    for name in fixture.outputs("decode_encp.speed"):
        features = network.features(fixture["codes"], text[:1], ge, float(name))
        fixture.check(f"decode_encp.speed{name}", features, tolerance)
    features = network.features(fixture["codes"], text[:1], ge)
    fixture.check("decode_encp.fea", features, tolerance)
    return features


def check_losses(fixture: Any, network: CfmSynthesizer) -> None:
    """Both branches of the loss, and the gradient norm of every parameter for the plain one."""
    for name in ("plain", "shortcut"):
        loss = network(
            batch(fixture, network),
            fixture["mel"],
            fixture["mel_lengths"],
            prompt_draw=fixture["u_prompt"],
            flow_draws=draws(fixture, is_shortcut=name == "shortcut"),
        )
        expected = fixture.meta["scalars"][f"cfm_loss.{name}"]
        assert loss.item() == pytest.approx(expected, abs=tolerance_of(fixture))
        if name == "plain":
            loss.backward()
            check_gradients(fixture, network)


def check_gradients(fixture: Any, network: CfmSynthesizer) -> None:
    norms = {name: value.grad.norm().item() if value.grad is not None else None for name, value in named(network)}
    expected = fixture.meta["grad_norms"]
    assert norms.keys() == expected.keys()
    wrong = [name for name, norm in expected.items() if (norm is None) != (norms[name] is None)]
    assert not wrong, f"gradient where upstream has none, or the reverse: {wrong[:5]}"
    assert {name: norm for name, norm in norms.items() if norm is not None} == pytest.approx(
        {name: norm for name, norm in expected.items() if norm is not None}, rel=RELATIVE_TOLERANCE, abs=1e-6
    )
    network.zero_grad(set_to_none=True)


def named(network: CfmSynthesizer) -> list[tuple[str, torch.nn.Parameter]]:
    return list(network.named_parameters())


def check_sampling(fixture: Any, network: CfmSynthesizer, features: Tensor) -> None:
    """Every `infer.s<steps>[_cfg<strength>][_temp<temperature>]` the fixture holds.

    Of full networks one: how steps and guidance are counted does not depend on their sizes.
    """
    lengths = torch.tensor([features.shape[-1]])
    names = sorted(fixture.outputs("infer."))
    for name in names[:1] if fixture.meta["weights"] == "recipe" else names:
        found = re.fullmatch(r"s(\d+)(?:_cfg([\d.]+))?(?:_temp([\d.]+))?", name)
        assert found, f"unknown kind of inference {name}"
        steps, guidance, temperature = found.groups()
        mel = network.cfm.sample(
            features.transpose(1, 2),
            lengths,
            fixture["prompt_mel"],
            FlowPath(int(steps), float(temperature or 1), float(guidance or 0)),
            fixture["z0"],
        )
        fixture.check(f"infer.{name}", mel, tolerance_of(fixture))


def check_estimator(fixture: Any, network: CfmSynthesizer) -> None:
    """The bare estimator on a padded batch, at the times and steps that the fixture's `calls` name."""
    time, step = (
        torch.tensor(json.loads(text)) for text in re.findall(r"=(\[[\d., ]+\])", fixture.meta["calls"]["dit.out"])
    )
    with torch.no_grad():
        velocity = network.cfm.estimator(
            fixture["xt"].transpose(1, 2),
            fixture["mel"].transpose(1, 2),
            fixture["mel_lengths"],
            time,
            step,
            fixture.outputs()["fea"].transpose(1, 2),
        )
    fixture.check("dit.out", velocity, tolerance_of(fixture))


# One test a fixture for the full sizes too: a worker makes the 383 M network once and holds it only meanwhile.
@pytest.mark.reference("s2_v[34]_", names="decode_encp")
def test_a_whole_synthesizer_gives_the_numbers_of_upstream(fixture: Any, networks: Networks) -> None:
    network = networks.of(fixture)
    features = check_conditions(fixture, network)
    check_losses(fixture, network)
    check_sampling(fixture, network, features)
    if "dit.out" in fixture.outputs():
        check_estimator(fixture, network)
