"""Tokens that the prior learns from say what the transcript says, wherever there is one."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from models.families.fargan import FARGAN
from models.loading.bases import load_base
from models.loading.networks import load_content_encoder, load_text2semantic
from models.phones.phone_classes import sounds_of_symbols
from pipeline.pretrain.features import clip_tokens
from pipeline.pretrain.prepare import ALL_USES, Clip, Corpus, read_clip
from pipeline.text.edits import edit_distance
from pipeline.text.frontend import phonemize

TEXT = "Six spoons of fresh snow peas, five thick slabs of blue cheese, and maybe a snack for her brother Bob."


@pytest.fixture(scope="module")
def networks():
    base, cache = load_base("nano"), Path("none")
    return load_content_encoder(base, cache), FARGAN.network(base, cache), load_text2semantic(base, cache).guide


@pytest.fixture(scope="module")
def corpus(shared):
    sound = read_clip(shared / "data" / "voices" / "en_vctk_p226" / "wavs" / "p226_003.wav")
    written = Clip("p226_003.wav", "p226", "en", TEXT, ALL_USES, 0, len(sound))
    return Corpus([written, dataclasses.replace(written, guessed=True), dataclasses.replace(written, text="")], sound)


def phone_errors(tokens, guide) -> float:
    """Share of the text's sounds that the codes, each taken for its likeliest phone, do not say."""
    names = guide.config.classes
    heard = [names[index] for index in guide.said.argmax(1)[tokens].tolist()]
    merged = [sound for place, sound in enumerate(heard) if not place or sound != heard[place - 1]]
    wanted = [sound for symbol in phonemize(TEXT, "en").symbols for sound in sounds_of_symbols()[symbol]]
    ids = {name: number for number, name in enumerate([*names, *wanted])}
    said = [ids[sound] for sound in merged if sound != names[0]]
    return edit_distance(said, [ids[sound] for sound in wanted]) / len(wanted)


def test_tokens_of_a_transcribed_clip_say_its_text_and_guesses_are_not_believed(networks, corpus, tmp_path):
    encoder, synthesizer, guide = networks
    heard = clip_tokens(encoder, synthesizer, corpus, tmp_path / "tokens.npz")
    told = clip_tokens(encoder, synthesizer, corpus, tmp_path / "said_tokens.npz", guide)
    assert phone_errors(told[0], guide) < 0.6 * phone_errors(heard[0], guide)
    for place in (1, 2):
        np.testing.assert_array_equal(told[place], heard[place])
