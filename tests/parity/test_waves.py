"""Upstream's resampling and its preparation of recordings for the content encoder."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from models.sound.upstream_audio import CONTENT_SCALE, mix_levels, resample_sinc
from pipeline.io.audio import resample

TOLERANCE = 1e-5


@pytest.mark.reference("mel_spec", names="resample_")
def test_sinc_resampling_is_that_of_upstream(fixture: Any) -> None:
    for name in fixture.outputs("resample_"):
        told = re.fullmatch(r"(\d+)k_(\d+)k", name)
        assert told, name
        before, after = (1000 * int(number) for number in told.groups())
        wave = fixture[f"w{before // 1000}"]
        expected = fixture.outputs()[f"resample_{name}"]
        fixture.check(f"resample_{name}", resample_sinc(wave, before, after).view(expected.shape), TOLERANCE)


@pytest.mark.reference("mel_spec", names="prep.")
def test_levels_are_mixed_as_upstream_mixes_them(fixture: Any) -> None:
    recording = fixture["prep.in32"]
    assert recording.abs().max().item() == pytest.approx(fixture.meta["scalars"]["prep.max"], rel=1e-6)
    mixed, expected = mix_levels(recording), fixture.outputs("prep.")
    fixture.check("prep.mixed_float", mixed * CONTENT_SCALE, TOLERANCE * CONTENT_SCALE)
    assert ((mixed * 32768).clamp(-32768, 32767).int() - expected["wav32k_int16"]).abs().max() <= 1


@pytest.mark.reference("mel_spec", names="prep.")
def test_the_content_encoder_is_fed_what_upstream_feeds_it(fixture: Any) -> None:
    mixed = mix_levels(fixture["prep.in32"]) * CONTENT_SCALE
    speech = torch.from_numpy(resample(mixed.numpy(), 32_000, 16_000))
    fixture.check("prep.hubert_in_16k", speech, TOLERANCE * CONTENT_SCALE)
