"""Text from outside is made fit to be shown, whatever is in it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.plain import escaped_json, is_unfit, one_line, printable, stripped

ANY = st.text(st.characters(exclude_categories=()), max_size=40)  # surrogates and all


@given(ANY)
def test_nothing_unfit_is_left_and_the_length_stays(text):
    shown = printable(text)
    assert len(shown) == len(text)
    assert not any(is_unfit(letter) for letter in shown if letter != "\n")


@given(ANY)
def test_one_line_is_one_line_for_every_reader(text):
    shown = one_line(text)
    assert len(shown.splitlines()) <= 1
    assert not any(is_unfit(letter) for letter in shown)


@given(ANY)
def test_what_is_kept_is_bounded_and_plain(text):
    kept = stripped(text, 10)
    assert len(kept) <= 10 and not any(is_unfit(letter) for letter in kept)


@given(st.recursive(ANY, lambda inner: st.lists(inner) | st.dictionaries(ANY, inner), max_leaves=8))
def test_json_says_the_same_without_a_control_character(value):
    document = escaped_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(document) == value
    assert not any(is_unfit(letter) for letter in document if letter != "\n")
    document.encode("utf-8")


@pytest.mark.parametrize("text", ["Zhang 张伟", "É\u00a0!", "全角\u3000空格", "می\u200cخواهم", "👩\u200d🔬"])
def test_what_people_write_stays_as_it_is(text):
    assert printable(text) == one_line(text) == text


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "\x9b2J", "\x7f", "\u202eevil", "\u2066x", "a\ud800b", "\ufeff", "\uffff", "\u2028"]
)
def test_what_drives_a_terminal_does_not(text):
    assert "\N{REPLACEMENT CHARACTER}" in printable(text)
