"""One rule for what counts as heard, in every language."""

import pytest

from pipeline.text.edits import align, edit_distance
from pipeline.text.listening import Difference, compare, differences, units_of


@pytest.mark.parametrize(
    ("language", "said", "heard"),
    [
        ("en", "In nineteen oh five Doctor Smith paid three dollars.", "in 1905, Dr. Smith paid $3"),
        ("en", "the lower-case letters", "The lowercase letters."),
        ("zh", "萬科淨利潤的三分之二", "万科净利润的三分之二。"),
        ("zh", "占百分之十二點五", "佔12.5%"),
        ("zh", "位列众城市之首", "位列众城市之手"),
        ("ko", "오늘 세시에 갑니다", "오늘 3시에 갑니다."),
    ],
)
def test_the_same_sounds_in_another_spelling_are_no_error(language, said, heard):
    assert compare(said, heard, language).errors == 0


def test_japanese_is_compared_by_how_it_sounds():
    pytest.importorskip("pyopenjtalk")
    assert compare("今日は学校へ行きます", "きょうはがっこうへいきます", "ja").errors == 0
    assert compare("今日は学校へ行きます", "きょうはがっこうへ", "ja").dropped_at_end > 4


def test_a_truncated_sentence_shows_where_it_ends():
    found = compare("the cat sat on the mat", "the cat sat", "en")
    assert (found.dropped, found.dropped_at_end, found.dropped_at_start, found.added) == (8, 8, 0, 0)
    found = compare("the cat sat on the mat", "on the mat", "en")
    assert (found.dropped_at_start, found.dropped_at_end) == (9, 0)


def test_repetition_is_seen_where_nobody_wrote_it():
    said = "tear down the fence"
    assert compare(said, f"{said} {said} {said}", "en").repeated >= 16
    assert compare(f"{said} {said}", f"{said} {said}", "en").repeated == 0


def test_words_that_nobody_wrote_are_counted_in_one_piece():
    found = compare("good morning", "good morning thank you for watching", "en")
    assert found.added == found.longest_added == 19
    assert found.rate == pytest.approx(19 / 11)


def test_nothing_heard_and_nothing_said():
    assert compare("good morning", "", "en").rate == 1.0
    assert compare("", "", "en").rate == 0.0


def test_differences_name_what_was_said_and_what_was_heard():
    found = differences("He waded into the cold water.", "he waited into water today", "en")
    assert found == [Difference("waded", "waited"), Difference("the cold", ""), Difference("", "today")]
    assert differences("位列众城市", "未烈众城市", "zh") == [Difference("位列", "未烈")]


def test_an_alignment_has_as_many_changes_as_the_distance():
    for first, second in (("kitten", "sitting"), ("", "abc"), ("abc", ""), ("flaw", "lawn"), ("aaaa", "aa")):
        pairs = align(first, second)
        changes = sum(i is None or j is None or first[i] != second[j] for i, j in pairs)
        assert changes == edit_distance(first, second)
        assert [i for i, _ in pairs if i is not None] == list(range(len(first)))
        assert [j for _, j in pairs if j is not None] == list(range(len(second)))


def test_tones_and_marks_are_no_units():
    assert units_of("你好,妈妈!", "zh") == ("ni", "hao", "ma", "ma")
