"""The base in the repository speaks: whole, small, and better than its broken controls on speakers it never heard."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.bases import BASES, load_base
from models.decoding import Decoder, Request
from models.ge2e import embed_speaker
from models.networks import load_content_encoder, load_synthesizer, load_text2semantic
from models.spectrogram import Spectrogram
from pipeline.io.audio import read_audio
from pipeline.signal.quality import stoi
from pipeline.signal.speaker import speaker_mel
from pipeline.text.frontend import phonemize
from pipeline.text.symbols import symbol_ids

CACHE = Path("no-cache")  # every weight lies in the repository


@pytest.fixture(scope="module")
def base():
    return load_base("nano")


@pytest.fixture(scope="module")
def synthesizer(base):
    return load_synthesizer(base, CACHE)


def recording(shared, name="en_vctk_p226/wavs/p226_003.wav", seconds=4):
    return read_audio(shared / "data" / "voices" / name).mono[: 16000 * seconds]


def speaker_of(wave):
    return embed_speaker(torch.from_numpy(speaker_mel(wave)))[None]


def test_every_network_has_weights_and_all_fit_in_25_megabytes(base):
    assert base.is_embedded and not base.random_roles
    assert sum(path.stat().st_size for path in (BASES / "nano").glob("*.safetensors")) <= 25e6


@torch.no_grad()
def test_an_unheard_speaker_comes_back_from_the_latent(base, synthesizer, shared):
    wave = recording(shared)
    spec = Spectrogram(base.synthesizer.spectrogram)(torch.from_numpy(wave)[None])
    copy = synthesizer.copy_synthesis(spec, synthesizer.condition(spec, speaker=speaker_of(wave)))[0, 0].numpy()
    assert stoi(wave[: len(copy)], copy, 16000) > 0.88


@torch.no_grad()
def test_tokens_carry_what_is_said(base, synthesizer, shared):
    wave, other = recording(shared), recording(shared, "en_vctk_p226/wavs/p226_005.wav")
    spectrogram = Spectrogram(base.synthesizer.spectrogram)
    ge = synthesizer.condition(spectrogram(torch.from_numpy(other)[None]), speaker=speaker_of(other))
    tokens = synthesizer.extract_tokens(load_content_encoder(base, CACHE)(torch.from_numpy(wave)[None]))
    text = torch.tensor([symbol_ids([","])])
    shuffled = tokens[..., torch.randperm(tokens.shape[-1], generator=torch.Generator().manual_seed(0))]
    scores = []
    for codes in (tokens, shuffled):
        spoken = synthesizer.decode(codes, text, ge)[0, 0].numpy()
        scores.append(stoi(wave[: len(spoken)], spoken, 16000))
    assert scores[0] > scores[1] + 0.25


def test_a_longer_text_makes_longer_speech_and_most_attempts_end(base):
    decoder = Decoder(load_text2semantic(base, CACHE))
    sampling = base.text2semantic.sampling.model_copy(update={"max_tokens": 300})
    lengths = []
    for text in ("Good morning.", "Good morning, the library opens at nine and closes at seven in the evening."):
        phones = torch.tensor(symbol_ids(phonemize(text, "en").symbols))
        attempts = decoder.generate([Request(phones, seed=seed) for seed in range(6)], sampling)
        ended = [len(one.tokens) / 25 for one in attempts if one.ended]
        assert len(ended) >= 4  # `models.voice` tries a sentence that does not end again
        lengths.append(float(np.median(ended)))
    assert 0.4 < lengths[0] < 2.5 < lengths[1] < 9.0


@torch.no_grad()
def test_the_recogniser_hears_most_phones_of_an_unheard_speaker(base, shared):
    encoder = load_content_encoder(base, CACHE)
    wave = recording(shared, "en_libri_533/wavs/533-1066-0001.flac", 6)
    heard = encoder.recognise(torch.from_numpy(np.ascontiguousarray(wave)))
    assert len(heard) > 15 and len(set(heard)) > 10
