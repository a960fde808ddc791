"""Where each symbol of a text lies in tokens that say it."""

import pytest
import torch

from models.configs.text2semantic import GuideConfig
from models.phones.symbols import load_symbols
from models.text2semantic.guidance import TextReader
from models.text2semantic.laying import symbol_spans


@pytest.fixture(scope="module")
def reader() -> TextReader:
    """A code for each class of phones, and every phone two to four tokens long."""
    config = GuideConfig()
    made = TextReader(config, len(load_symbols("v2")), len(config.classes))
    made.said = torch.eye(len(config.classes)).clamp(min=1e-3)
    made.lasting = torch.zeros_like(made.lasting)
    made.lasting[:, 2:5] = 1 / 3
    made.lasting[len(config.classes) :, 0:5] = 0.2
    return made


def test_symbols_lie_where_their_tokens_are(reader):
    table = load_symbols("v2")
    phones = torch.tensor([table.index(one) for one in ("HH", "EH1", "L", "OW1", ".")])
    tokens = torch.tensor([one for sound in reader.classes_of(phones) if sound for one in [sound] * 3])
    spans = symbol_spans(tokens, phones, reader)
    assert spans[:4] == [(0, 3), (3, 6), (6, 9), (9, 12)]
    assert spans[4] is None


def test_a_text_that_the_reader_does_not_know_has_no_places(reader):
    unknown = next(
        number for number in range(len(load_symbols("v2"))) if reader.classes_of(torch.tensor([number])) is None
    )
    assert symbol_spans(torch.tensor([1, 2]), torch.tensor([unknown]), reader) is None
