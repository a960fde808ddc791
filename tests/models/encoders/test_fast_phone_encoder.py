"""The listening half of base nano's encoder against the encoder itself."""

import numpy as np
import pytest
import torch

from models.encoders.fast_phone_encoder import PhoneListener
from models.loading.bases import load_base
from models.loading.networks import load_content_encoder
from pipeline.io.audio import read_audio, resample
from pipeline.signal.frames import POWER_SCALE, power_spectrogram
from pipeline.text.edits import edit_distance


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return load_content_encoder(load_base("nano"), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def waves(request):
    found = []
    for path in sorted((request.config.rootpath / "voices" / "sample" / "wavs").glob("*"))[:4]:
        audio = read_audio(path)
        found.append(resample(audio.mono, audio.sample_rate_hz, 16000))
    return [*found, np.concatenate(found * 3)]  # the last is longer than one piece


def spectra(wave):
    return torch.from_numpy(power_spectrogram(wave) / np.float32(POWER_SCALE))


@pytest.mark.slow
def test_it_hears_what_the_encoder_hears(encoder, waves):
    listener = PhoneListener(encoder, torch.float32)
    for wave in waves:
        expected = encoder.recognise(torch.from_numpy(wave))
        assert len(expected) > 10
        assert edit_distance(listener.recognise(spectra(wave)), expected) <= 1 + len(expected) // 100


def test_bfloat16_changes_hardly_a_phone(encoder, waves):
    listener = PhoneListener(encoder, torch.bfloat16)
    exact = PhoneListener(encoder, torch.float32)
    heard = [(listener.recognise(spectra(wave)), exact.recognise(spectra(wave))) for wave in waves]
    wrong = sum(edit_distance(one, other) for one, other in heard)
    assert wrong <= 0.02 * sum(len(other) for _, other in heard)


def test_other_spectra_are_heard_as_other_phones(encoder, waves):
    listener = PhoneListener(encoder, torch.float32)
    one, other = (listener.recognise(spectra(wave)) for wave in waves[:2])
    assert edit_distance(one, other) > len(one) // 2
