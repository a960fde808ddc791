"""Spectrograms and mels against upstream's."""

from __future__ import annotations

from typing import Any

import pytest

from models.configs.synthesizer import MelConfig, SpectrogramConfig
from models.sound.spectrogram import MelSpectrogram, Spectrogram, scale_mel, unscale_mel

MEL_TOLERANCE, SPEC_TOLERANCE = 1e-5, 1e-4


def mel_config(fixture: Any, which: str) -> MelConfig:
    keys = ("n_fft", "n_mels", "sample_rate_hz", "hop_samples", "win_samples", "f_min_hz", "f_max_hz")
    return MelConfig(**dict(zip(keys, fixture.meta["config"][which], strict=True)))


@pytest.mark.reference("mel_spec")
def test_linear_spectrogram(fixture: Any) -> None:
    mel = mel_config(fixture, "v2")
    config = SpectrogramConfig(**{key: getattr(mel, key) for key in SpectrogramConfig.model_fields})
    fixture.check("spec_32k", Spectrogram(config)(fixture["w32"][None]), SPEC_TOLERANCE)


@pytest.mark.reference("mel_spec")
def test_mel_of_a_linear_spectrogram(fixture: Any) -> None:
    mel = MelSpectrogram(mel_config(fixture, "v2"))
    fixture.check("mel_from_spec_v2", mel.from_magnitude(fixture.tensors["o.spec_32k"]), MEL_TOLERANCE)


@pytest.mark.parametrize("which", ["v2", "v3", "v4"])
@pytest.mark.reference("mel_spec")
def test_mel_of_a_wave(fixture: Any, which: str) -> None:
    config = mel_config(fixture, which)
    wave = fixture[f"w{config.sample_rate_hz // 1000}"][None]
    log_mel = MelSpectrogram(config)(wave)
    fixture.check(f"mel_{which}", log_mel, MEL_TOLERANCE)
    if which != "v2":
        fixture.check(f"mel_{which}_normed", scale_mel(log_mel), MEL_TOLERANCE)
        fixture.check(f"mel_{which}", unscale_mel(scale_mel(log_mel)), MEL_TOLERANCE)
