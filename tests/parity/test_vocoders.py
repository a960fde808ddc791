"""Both vocoders against upstream's numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.blocks.weight_norm import fold_weight_norm
from models.configs.synthesizer import HifiGanDecoderConfig
from models.configs.vocoder import BigVGANConfig, VocoderConfig
from models.loading.bases import list_bases, load_base
from models.synthesizer.bigvgan import BigVGAN
from models.synthesizer.vocoder import MelVocoder, build_vocoder

SMALL_TOLERANCE, FULL_TOLERANCE = 1e-5, 1e-4


def numbers(config_class: type, meta: dict[str, Any]) -> dict[str, Any]:
    """The fixture's numbers that our config has under the same names."""
    built = meta["config"]
    same = {key: built[key] for key in config_class.model_fields if key in built}
    kernels = len(same["resblock_kernel_sizes"])
    return {**same, "resblock_dilation_sizes": same["resblock_dilation_sizes"][:kernels]}  # upstream ignores the rest


def tolerance_of(fixture: Any) -> float:
    return SMALL_TOLERANCE if fixture.weights else FULL_TOLERANCE


def mel_vocoder(fixture: Any) -> MelVocoder:
    built = fixture.meta["config"]
    decoder = HifiGanDecoderConfig(
        **numbers(HifiGanDecoderConfig, fixture.meta), conv_post_bias=built.get("is_bias", False)
    )
    has_norm = any(name.endswith("weight_g") for name in fixture.weights)
    config = VocoderConfig(mel_channels=built["initial_channel"], decoder=decoder, weight_norm=has_norm)
    return fixture.load(MelVocoder(config))


def big_vocoder(fixture: Any) -> BigVGAN:
    config = BigVGANConfig(mel_channels=fixture.meta["config"]["num_mels"], **numbers(BigVGANConfig, fixture.meta))
    return fixture.load(BigVGAN(config))


@pytest.mark.state_dict("vocoder")
def test_names_and_shapes_are_those_of_the_files(described: Any) -> None:
    version = described.name.removeprefix("vocoder-").split("-")[0]
    base = next(base for base in map(load_base, list_bases()) if base.upstream_version == version)
    assert base.vocoder is not None
    with torch.device("meta"):
        described.check(build_vocoder(base.vocoder))


@pytest.mark.reference("vocoder_v4")
@torch.no_grad()
def test_the_v4_vocoder_makes_the_wave_of_upstream(fixture: Any) -> None:
    fixture.check("wav", mel_vocoder(fixture)(fixture["mel"]), tolerance_of(fixture))


@pytest.mark.reference("bigvgan")
@torch.no_grad()
def test_bigvgan_makes_the_wave_of_upstream(fixture: Any) -> None:
    vocoder = big_vocoder(fixture)
    fixture.check("wav", vocoder(fixture["mel"]), tolerance_of(fixture))
    assert vocoder.config.hop_samples * fixture["mel"].shape[-1] == fixture.outputs()["wav"].shape[-1]


@pytest.mark.reference("bigvgan", suffix="_small")
@torch.no_grad()
def test_folding_weight_norm_into_bigvgan_changes_nothing(fixture: Any) -> None:
    vocoder = big_vocoder(fixture)
    assert fold_weight_norm(vocoder) > 0
    fixture.check("wav", vocoder(fixture["mel"]), SMALL_TOLERANCE)
