"""Tokens of recordings whose text is known, by nano's guide."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from models.families.fargan import FARGAN
from models.loading.bases import load_base
from models.loading.networks import load_content_encoder, load_text2semantic
from models.phones.symbols import phones_to_ids
from models.text2semantic.coverage import compare
from models.text2semantic.transcribed import _arrivals, _places, follow_text
from pipeline.text.frontend import phonemize
from pipeline.text.languages import known_language

TEXT = "Six spoons of fresh snow peas, five thick slabs of blue cheese, and maybe a snack for her brother Bob."
CLASSES = 40


@pytest.fixture(scope="module")
def guide():
    return load_text2semantic(load_base("nano"), Path()).guide


@pytest.fixture(scope="module")
def content(shared):
    samples, _ = soundfile.read(shared / "data/voices/en_vctk_p226/wavs/p226_003.wav", dtype="float32")
    encoder = load_content_encoder(load_base("nano"), Path())
    features = encoder(torch.from_numpy(samples)[None])[0]
    return features[:, : features.shape[1] // 2 * 2]


def ids_of(text: str, language: str = "en") -> torch.Tensor:
    return torch.tensor(phones_to_ids(list(phonemize(text, known_language(language)).symbols), "v2"))


def error_rate(content, text, guide) -> float:
    tokens = FARGAN.network(load_base("nano"), Path()).extract_tokens(content[None])[0, 0]
    return compare(tokens.tolist(), guide.classes_of(text), guide.said.double().numpy()).error_rate


def test_tokens_of_an_unheard_speaker_say_the_text_once_it_is_known(content, guide):
    text = ids_of(TEXT)
    followed = follow_text(content, text, guide, 2)
    assert followed.shape == content.shape
    assert error_rate(content, text, guide) > 0.3  # as heard
    assert error_rate(followed, text, guide) < 0.15


def test_pitch_voicing_and_level_stay_those_of_the_recording(content, guide):
    assert torch.equal(follow_text(content, ids_of(TEXT), guide, 2)[CLASSES:], content[CLASSES:])


def test_a_text_that_the_guide_cannot_read_or_the_recording_is_too_short_for_changes_nothing(content, guide):
    japanese = ids_of("こんにちは", "ja")
    assert torch.equal(follow_text(content, japanese, guide, 2), content)
    short = content[:, :20]
    assert torch.equal(follow_text(short, ids_of(TEXT), guide, 2), short)


@pytest.mark.slow
def test_chances_of_places_are_those_of_all_paths_counted_one_by_one():
    rng = np.random.default_rng(0)
    states, longest, tokens = 4, 2, 5
    fitting = torch.from_numpy(rng.uniform(0.1, 1, (tokens, states))).float()
    fitting[:, -1] = 0.0
    leave = torch.from_numpy(rng.uniform(0.2, 0.8, (states, longest))).float()
    leave[-1] = 0.0
    arrive = _arrivals(torch.tensor([0.1, 0.3, 0.2, 0.0]))
    torch.testing.assert_close(arrive.sum(1), torch.ones(states))

    counted = torch.zeros(tokens, states)
    numbers = [table.tolist() for table in (fitting, leave, arrive)]  # a quarter of a million paths look things up
    for path in product(product(range(states - 1), range(longest), (False, True)), repeat=tokens):
        chance = chance_of(path, *numbers)
        if chance:
            for token, (state, _, _) in enumerate(path):
                counted[token, state] += chance
    torch.testing.assert_close(_places(fitting, leave, arrive), counted / counted.sum(1, keepdim=True))


def chance_of(path, fitting, leave, arrive) -> float:
    """Of one way through the states: at every token a state, how long it lasted before, and whether it ends there."""
    chance, arriving = 1.0, 0
    state_before, lasted_before = -1, -1
    for token, (state, lasted, ends) in enumerate(path):
        if arriving is not None:
            chance *= arrive[arriving][state] if lasted == 0 else 0.0
        elif state != state_before or lasted != min(lasted_before + 1, len(leave[0]) - 1):
            return 0.0
        chance *= fitting[token][state] * (leave[state][lasted] if ends else 1 - leave[state][lasted])
        arriving = state + 1 if ends else None
        state_before, lasted_before = state, lasted
    return chance * arrive[arriving][-1] if arriving is not None else 0.0
