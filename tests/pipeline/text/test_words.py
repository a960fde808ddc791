"""Words and the phones that are theirs."""

import pytest

from pipeline.text.frontend import phonemize
from pipeline.text.words import phones_of_words, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Good morning, everyone.", ["Good", "morning,", "everyone."]),
        ("今天好，world!", ["今", "天", "好，", "world!"]),
        ("  -- wait - what?", ["wait", "what?"]),
        ("...", []),
    ],
)
def test_words_are_what_a_reader_sees(text, words):
    assert words_of(text) == words


def test_every_phone_belongs_to_the_word_that_it_is_read_for():
    text = "Good morning, everyone at home."
    symbols = phonemize(text, "en").symbols
    words = words_of(text)
    found = phones_of_words(words, symbols, "en")
    spoken = [" ".join(symbols[place] for place in places) for places in found]
    assert spoken[0] == "G UH1 D"
    assert spoken[-1] == "HH OW1 M"
    places = [place for places in found for place in places]
    assert places == sorted(places)
    assert len(set(places)) == len(places)


def test_a_number_has_the_phones_between_its_neighbours():
    text = "Platform 23 is closed."
    symbols = phonemize(text, "en").symbols
    first, number, *_ = phones_of_words(words_of(text), symbols, "en")
    assert max(first) < min(number)
    assert len(number) > 6  # twenty-three
