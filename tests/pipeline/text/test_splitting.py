import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SettingsError
from pipeline.text.splitting import UPSTREAM_METHODS, pause_after_s, split_sentences

ENGLISH = (
    "Dr. Smith lives at 3.5 St. James St. in the U.S. He paid $1,234.56, e.g. for www.example.com and at 12:30. "
    '"Really, is that so expensive?" she asked him once more.'
)


def test_sentences_end_at_full_stops_but_not_at_abbreviations_and_numbers():
    assert split_sentences(ENGLISH, "en") == [
        "Dr. Smith lives at 3.5 St. James St. in the U.S.",
        "He paid $1,234.56, e.g. for www.example.com and at 12:30.",
        '"Really, is that so expensive?" she asked him once more.',
    ]


def test_closing_quotation_marks_stay_with_their_sentence():
    assert split_sentences("他说：“这件事一定要办好。”然后他们就都走了……", "zh") == [
        "他说：“这件事一定要办好。”",
        "然后他们就都走了……",
    ]


def test_short_sentences_join_their_neighbour_and_paragraphs_stay_apart():
    assert split_sentences("好。是的。今天天气真不错。\n\n完了", "zh") == ["好。是的。今天天气真不错。", "完了"]


@pytest.mark.parametrize("text", ["这是一个非常长的句子，" * 30, "word " * 300, "字" * 500, "a" * 3000, "1,234 " * 200])
def test_long_sentences_are_bounded_and_complete(text):
    pieces = split_sentences(text, "zh")
    assert len(pieces) > 1
    assert all(len(piece) <= 200 for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert not [piece for piece in pieces if piece.startswith(",")]


@settings(max_examples=150, deadline=None)
@given(st.text(st.one_of(st.sampled_from("好句。！？，a b.,;3…—\n“”"), st.characters()), max_size=200))
def test_no_letter_is_lost_and_nothing_silent_is_kept(text):
    pieces = split_sentences(text, "zh")
    letters = [c for c in text if c.isalpha() or c.isdecimal()]
    assert [c for c in "".join(pieces) if c.isalpha() or c.isdecimal()] == letters
    assert all(piece.strip() for piece in pieces)


@pytest.mark.parametrize(
    ("method", "pieces"),
    [
        ("cut0", ["第一，第二，第三，第四，第五。第六！价格3.5元."]),
        ("cut1", ["。第一，第二，第三，", "第四，第五。第六！价格3.5元."]),
        ("cut3", ["第一，第二，第三，第四，第五。", "第六！价格3.5元."]),
        ("cut4", ["第一，第二，第三，第四，第五。第六！价格3.5元。"]),
        ("cut5", ["第一，第二，", "第三，第四，", "第五。第六！", "价格3.5元."]),
    ],
)
def test_upstream_methods_cut_as_upstream_does(method, pieces):
    text = "第一，第二，第三，第四，第五。第六！价格3.5元."
    found = split_sentences(text, "zh", method)
    assert "".join(found).lstrip("。").replace("。", ".") == re.sub("。", ".", text).lstrip(".") or found
    assert [piece.lstrip("。") for piece in found] == [piece.lstrip("。") for piece in pieces]


def test_upstream_puts_a_full_stop_before_a_short_first_piece_and_after_an_open_end():
    assert split_sentences("好的", "zh", "cut0") == ["。好的。"]
    assert split_sentences("Ok then", "en", "cut0") == ["Ok then."]
    assert split_sentences("\n", "en", "cut5") == []


def test_upstream_cuts_again_what_its_bert_cannot_take():
    pieces = split_sentences("这里有十个字的句子呀，" * 60, "zh", "cut0")
    assert len(pieces) == 2
    assert all(len(piece) <= 510 for piece in pieces)


def test_an_unknown_method_names_the_known_ones():
    with pytest.raises(SettingsError, match="cut9") as error:
        split_sentences("a", "en", "cut9")
    assert all(method in error.value.hint for method in UPSTREAM_METHODS)


def test_pauses_follow_the_last_mark():
    assert pause_after_s("好。") == pause_after_s("Good.") == pause_after_s('"Good."')
    assert pause_after_s("好，") < pause_after_s("好。") < pause_after_s("好…")
