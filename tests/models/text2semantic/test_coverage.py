"""What tokens say of a text, on codes that each say one phone or two."""

import numpy as np
import pytest

from models.text2semantic.coverage import compare

CLASSES = 13  # silence and twelve phones
TEXT = [3, 7, 1, 9, 12, 5, 10, 2, 8, 4]


def said() -> np.ndarray:
    """Code k says class k clearly; code k + CLASSES says it with some doubt."""
    clear, doubtful = np.eye(CLASSES) * 0.94 + 0.01, np.eye(CLASSES) * 0.5 + 0.5 / CLASSES
    return np.concatenate([clear, doubtful])


def spoken(text: list[int], length: int = 2) -> list[int]:
    return [one + CLASSES * (step % 2) for one in text for step in range(length)]


def test_a_text_said_whole_has_no_error():
    whole = compare([0, 0, *spoken(TEXT), 0, 0, 0], TEXT, said())
    assert (whole.error_rate, whole.longest_gap, whole.longest_addition) == (0, 0, 0)


def test_a_pause_inside_and_a_slow_speaker_are_no_errors():
    tokens = [*spoken(TEXT[:5], 5), *[0] * 12, *spoken(TEXT[5:], 1)]
    assert compare(tokens, TEXT, said()).error_rate == 0
    assert compare(tokens, TEXT, said()).longest_addition == 0


@pytest.mark.parametrize(("first", "last"), [(0, 4), (3, 7), (6, 10)])
def test_a_dropped_stretch_is_as_long_as_it_is(first, last):
    heard = compare(spoken(TEXT[:first] + TEXT[last:]), TEXT, said())
    assert heard.longest_gap == 4 and heard.error_rate == pytest.approx(0.4)


def test_a_repeated_stretch_is_seen_as_an_addition():
    heard = compare(spoken(TEXT[:6] + TEXT[2:6] + TEXT[6:]), TEXT, said())
    assert heard.longest_addition >= 6 and heard.longest_gap <= 1


def test_nothing_said_drops_everything():
    assert compare([0] * 20, TEXT, said()).longest_gap == len(TEXT)
    assert compare([], TEXT, said()).error_rate == 1
