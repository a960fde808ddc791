"""The base in the repository speaks: whole, small, and better than its broken controls on speakers it never heard."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.families.fargan import FARGAN
from models.learners.vits import Text2SemanticLearner
from models.loading.bases import BASES, load_base
from models.loading.networks import load_content_encoder, load_text2semantic
from models.sound.fargan_analysis import analyse
from models.speaking.fargan import vocode
from models.synthesizer.acoustic import statistics
from models.text2semantic.attempts import Effort, Task, find_misreadings, generate_checked, listen
from models.text2semantic.decoding import Decoder, Request
from models.text2semantic.transcribed import follow_text
from pipeline.io.audio import read_audio
from pipeline.signal.quality import stoi
from pipeline.text.frontend import phonemize
from pipeline.text.symbols import symbol_ids

pytestmark = pytest.mark.slow

CACHE = Path("no-cache")  # every weight lies in the repository


@pytest.fixture(scope="module")
def base():
    return load_base("nano")


@pytest.fixture(scope="module")
def synthesizer(base):
    return FARGAN.network(base, CACHE)


def recording(shared, name="en_vctk_p226/wavs/p226_003.wav", seconds=4):
    return read_audio(shared / "data" / "voices" / name).mono[: 16000 * seconds]


def test_every_network_has_weights_and_all_fit_in_25_megabytes(base):
    assert base.is_embedded and not base.random_roles
    assert sum(path.stat().st_size for path in (BASES / "nano").glob("*.safetensors")) <= 25e6


SPOONS = "Six spoons of fresh snow peas, five thick slabs of blue cheese, and maybe a snack for her brother Bob."


@torch.no_grad()
def test_tokens_and_phones_carry_what_is_said(base, synthesizer, text2semantic, shared):
    wave, other = recording(shared, seconds=8), recording(shared, "en_vctk_p226/wavs/p226_005.wav")
    phones, who = task_of(SPOONS, "en").phones, statistics(analyse(torch.from_numpy(other)))
    content = load_content_encoder(base, CACHE)(torch.from_numpy(wave)[None])[0]
    said = follow_text(content[:, : content.shape[1] // 2 * 2], phones, text2semantic.guide, 2)
    tokens = synthesizer.extract_tokens(said[None])[0, 0]
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))
    scores = []
    for codes, text in ((tokens, phones), (tokens[order], phones[torch.randperm(len(phones))])):
        spoken = torch.cat(list(vocode(synthesizer.speak(synthesizer.lay(codes, text), who)))).numpy()
        scores.append(stoi(wave[: len(spoken)], spoken, 16000))
    assert scores[0] > scores[1] + 0.25


def test_its_text_to_semantic_network_is_not_fine_tuned(text2semantic):
    assert Text2SemanticLearner(text2semantic, torch.device("cpu")).rate_factor == 0


def test_a_longer_text_makes_longer_speech_and_most_attempts_end(base):
    decoder = Decoder(load_text2semantic(base, CACHE))
    sampling = base.text2semantic.sampling.model_copy(update={"max_tokens": 300})
    lengths = []
    for text in ("Good morning.", "Good morning, the library opens at nine and closes at seven in the evening."):
        phones = torch.tensor(symbol_ids(phonemize(text, "en").symbols))
        attempts = decoder.generate([Request(phones, seed=seed) for seed in range(6)], sampling)
        ended = [len(one.tokens) / 25 for one in attempts if one.ended]
        assert len(ended) >= 4  # `models.speaking.voice` tries a sentence that does not end again
        lengths.append(float(np.median(ended)))
    assert 0.4 < lengths[0] < 2.5 < lengths[1] < 9.0


TEXTS = (
    ("Please call Stella and ask her to bring these things from the store.", "en"),
    ("We expect heavy rain in the north and sunshine in the south.", "en"),
    ("第一班火车六点一刻出发。", "zh"),
)


@pytest.fixture(scope="module")
def text2semantic(base):
    return load_text2semantic(base, CACHE)


def task_of(text, language):
    phones = torch.tensor(symbol_ids(phonemize(text, language).symbols))
    return Task(phones, len(phones), None, None)


def test_at_no_seed_is_a_stretch_of_the_text_dropped_or_said_twice(base, text2semantic):
    decoder, guide = Decoder(text2semantic), base.text2semantic.guide
    for text, language in TEXTS:
        for seed in range(4):
            tries = generate_checked(
                decoder, [task_of(text, language)], Effort(seed, base.text2semantic.sampling, attempts=3)
            )[0]
            chosen = tries[-1]
            assert chosen.problems == (), (text, seed, chosen.problems, chosen.coverage)
            assert chosen.coverage.longest_gap <= guide.longest_gap
            assert chosen.coverage.error_rate < 0.35


def test_tokens_that_lost_half_of_the_text_are_found_out(base, text2semantic):
    for text, language in TEXTS:
        task = task_of(text, language)
        whole = generate_checked(Decoder(text2semantic), [task], Effort(0, base.text2semantic.sampling, attempts=3))[0][
            -1
        ].tokens
        half = listen(whole[: len(whole) // 2], task.phones, text2semantic.guide)
        twice = listen([*whole, *whole[len(whole) // 3 :]], task.phones, text2semantic.guide)
        assert "dropped" in find_misreadings(half, text2semantic.guide)
        assert "added" in find_misreadings(twice, text2semantic.guide)


def test_tokens_of_recordings_pass_as_what_they_are(base, text2semantic, synthesizer, shared):
    name, text = "zh_aishell_S0150/wavs/BAC009S0150W0121.wav", "其中有两个是内因的指标"
    content = load_content_encoder(base, CACHE)(torch.from_numpy(recording(shared, name, 8))[None])
    tokens = synthesizer.extract_tokens(content)[0, 0].tolist()
    right, wrong = (listen(tokens, task_of(t, "zh").phones, text2semantic.guide) for t in (text, TEXTS[2][0]))
    assert right.longest_gap <= base.text2semantic.guide.longest_gap and right.error_rate < 0.6 < wrong.error_rate


@torch.no_grad()
def test_the_recogniser_hears_most_phones_of_an_unheard_speaker(base, shared):
    encoder = load_content_encoder(base, CACHE)
    wave = recording(shared, "en_libri_533/wavs/533-1066-0001.flac", 6)
    heard = encoder.recognise(torch.from_numpy(np.ascontiguousarray(wave)))
    assert len(heard) > 15 and len(set(heard)) > 10
