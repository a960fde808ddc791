"""The speaker encoder and its filter bank against upstream's numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.configs.speaker import FbankConfig, SpeakerEncoderConfig
from models.encoders.eres2net import SpeakerEncoder
from models.loading.bases import list_bases, load_base
from models.sound.fbank import fbank

SMALL_TOLERANCE, FULL_TOLERANCE = 1e-4, 2e-3
FBANK_TOLERANCE = 1e-3  # logarithms of small energies
NAMES = {
    "feat_dim": "mel_bins",
    "m_channels": "channels",
    "num_blocks": "blocks",
    "baseWidth": "base_width",
    "embedding_size": "embedding_channels",
}


def speaker_config(meta: dict[str, Any]) -> SpeakerEncoderConfig:
    return SpeakerEncoderConfig(**{NAMES.get(key, key): value for key, value in meta["config"].items()})


@pytest.mark.state_dict("eres2netv2")
def test_names_and_shapes_are_those_of_the_file(described: Any) -> None:
    with torch.device("meta"):
        described.check(SpeakerEncoder(SpeakerEncoderConfig()))


@pytest.mark.reference("eres2netv2")
@torch.no_grad()
def test_speaker_vectors_are_those_of_upstream(fixture: Any) -> None:
    encoder = fixture.load(SpeakerEncoder(speaker_config(fixture.meta)))
    tolerance = SMALL_TOLERANCE if fixture.weights else FULL_TOLERANCE
    vector = encoder(fixture["fbank"])
    fixture.check("forward3", vector, tolerance)
    fixture.check("forward", encoder.embed(fixture["fbank"]), tolerance)
    assert vector.shape[1] == encoder.config.feature_channels


@pytest.mark.reference("mel_spec", names="fbank_16k")
def test_the_filter_bank_is_that_of_kaldi(fixture: Any) -> None:
    wave = fixture["w16"]
    fixture.check("fbank_16k", fbank(wave, FbankConfig()), FBANK_TOLERANCE)
    fixture.check("fbank_16k", fbank(wave.repeat(2, 1), FbankConfig())[1], FBANK_TOLERANCE)


def test_the_vector_has_the_width_that_the_synthesizers_of_v2pro_take() -> None:
    widths = {
        base.synthesizer.speaker_dim
        for base in map(load_base, list_bases())
        if base.family == "v2pro" and base.synthesizer is not None and base.is_embedded is False
    }
    assert widths == {SpeakerEncoderConfig().feature_channels}


def test_a_wave_shorter_than_a_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="399 samples"):
        fbank(torch.zeros(399), FbankConfig())
