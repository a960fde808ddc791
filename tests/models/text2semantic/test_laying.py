"""Phones laid along tokens, by nano's guide on a recording."""

from pathlib import Path

import pytest
import soundfile
import torch

from models.configs.text2semantic import GuideConfig
from models.families.fargan import FARGAN
from models.loading.bases import load_base
from models.loading.networks import load_content_encoder, load_text2semantic
from models.phones.symbols import load_symbols, phones_to_ids
from models.text2semantic.guidance import SILENCE, States, TextReader
from models.text2semantic.laying import _stretches, lay_evenly, lay_out, lay_text
from models.text2semantic.transcribed import PAUSED, follow_text
from pipeline.text.frontend import phonemize
from pipeline.text.languages import known_language

TEXT = "Six spoons of fresh snow peas, five thick slabs of blue cheese, and maybe a snack for her brother Bob."
SYMBOLS = load_symbols("v2")


@pytest.fixture(scope="module")
def guide():
    return load_text2semantic(load_base("nano"), Path()).guide


@pytest.fixture(scope="module")
def phones():
    return torch.tensor(phones_to_ids(list(phonemize(TEXT, known_language("en")).symbols), "v2"))


@pytest.fixture(scope="module")
def laid(shared, guide, phones):
    samples, _ = soundfile.read(shared / "data/voices/en_vctk_p226/wavs/p226_003.wav", dtype="float32")
    content = load_content_encoder(load_base("nano"), Path())(torch.from_numpy(samples)[None])[0]
    said = follow_text(content[:, : content.shape[1] // 2 * 2], phones, guide, 2)
    tokens = FARGAN.network(load_base("nano"), Path()).extract_tokens(said[None])[0, 0]
    found = lay_text(tokens, phones, guide, 2)
    assert found is not None and len(found.symbols) == 2 * len(tokens)
    return found


def spoken_of(laid) -> list[str]:
    changes = laid.places[1:, 0] < laid.places[:-1, 0]
    starts = [0, *(changes.nonzero()[:, 0] + 1).tolist()]
    return [SYMBOLS[laid.symbols[start]] for start in starts]


def test_a_recording_speaks_all_its_phones_in_their_order(laid, phones):
    wanted = [SYMBOLS[one] for one in phones.tolist() if SYMBOLS[one][0].isalpha()]
    assert [one for one in spoken_of(laid) if one != "SP"] == wanted


def test_it_pauses_where_the_speaker_does(laid):
    paused = (laid.symbols == SYMBOLS.index("SP")).nonzero()[:, 0]
    assert paused[0] == 0 and any(150 < frame < 300 for frame in paused.tolist())  # before he speaks, and after a comma
    assert len(paused) < 0.4 * len(laid.symbols)


def test_places_run_through_each_phone_and_tell_its_length(laid):
    assert laid.places[:, 0].abs().max() < 1
    frames = (laid.places[:, 1].exp() * 0.08 / 0.02).round()
    assert frames.min() >= 1
    assert float((1 / frames).sum()) == pytest.approx(len(spoken_of(laid)), abs=0.01)  # each phone counts once


def test_a_phone_too_short_for_a_token_takes_a_frame_of_its_longer_neighbour():
    facts = torch.tensor([[0, 1, 2, 9], [1, 2, 3, 8], [2, 3, 4, 7]])
    states = States(facts, torch.tensor([5, 6, 7]), torch.tensor([5, 6, 7]))
    found = _stretches(states, [0, 0, 2, PAUSED], 2)
    assert [(one.symbol, one.frames) for one in found] == [(1, 3), (2, 1), (3, 2), (SYMBOLS.index("SP"), 2)]
    assert lay_out(found).symbols.tolist() == [1, 1, 1, 2, 3, 3, *[SYMBOLS.index("SP")] * 2]


def test_sounds_of_one_symbol_are_one_stretch():
    facts = torch.tensor([[0, 1, 2, 9], [0, 1, 2, 8], [1, 2, 3, 7]])
    states = States(facts, torch.tensor([5, 6, 7]), torch.tensor([5, 6, 7]))
    assert [(one.symbol, one.frames) for one in _stretches(states, [0, 1, 2], 2)] == [(1, 4), (2, 2)]


def test_a_text_that_cannot_be_laid_along_the_tokens_is_refused(guide, phones):
    assert lay_text(torch.zeros(8, dtype=torch.long), phones, guide, 2) is None
    japanese = torch.tensor(phones_to_ids(list(phonemize("こんにちは", known_language("ja")).symbols), "v2"))
    assert lay_text(torch.zeros(80, dtype=torch.long), japanese, guide, 2) is None


def test_where_it_cannot_be_laid_its_phones_are_spread_evenly(phones):
    spread = lay_evenly(phones, 2 * len(phones))
    assert spread.symbols[::2].tolist() == spread.symbols[1::2].tolist()
    assert len(lay_evenly(phones, 5).symbols) == 5


def test_a_reader_needs_no_network():
    reader = TextReader(GuideConfig(), 732, 4)
    assert not list(reader.parameters()) and reader.said.shape == (4, 40)
    assert reader.states(torch.tensor([SYMBOLS.index("AO1"), SYMBOLS.index(".")])).classes[0] == SILENCE
