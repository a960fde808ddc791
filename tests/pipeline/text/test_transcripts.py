import pytest

from pipeline.text.transcripts import (
    estimate_phones,
    guess_latin_language,
    phone_error_rate,
    script_fault,
    strip_markup,
)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a [noise] b", "a b"),
        ("yes <VOCNOISE> no", "yes no"),
        ("{laughs} good", "good"),
        ("((unclear)) words", "words"),
        ("plain (as here) text", "plain (as here) text"),
        ("[[nested]", "["),
    ],
)
def test_annotations_go_and_ordinary_brackets_stay(text, kept):
    assert strip_markup(text).text == kept


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Good morning, it is 9 o'clock.", "en"),
        ("其中有两个是内因的指标", "zh"),
        ("我用 iPhone 和 WiFi 上网", "zh"),
        ("真っ昼間なのに電球がともっていた", "ja"),
        ("안녕하세요 3 번", "ko"),
        ("今日天氣好好", "yue"),
    ],
)
def test_a_text_in_its_language_has_no_fault(text, language):
    assert script_fault(text, language) is None


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("in being comparatively modern.", "ja"),
        ("has never been surpassed.", "zh"),
        ("其中有两个是内因的指标", "en"),
        ("其中有两个是内因的指标居民部门利息", "ja"),
        ("こんにちは", "zh"),
        ("доброе утро", "en"),
        ("...", "en"),
    ],
)
def test_a_text_in_another_script_is_told(text, language):
    assert script_fault(text, language)


def test_german_is_told_from_english_by_its_commonest_words():
    german = [
        "Er wurde in der Nähe der Hauptstadt geboren und ist auch früh ein Waisenkind.",
        "Das ist nicht die Stadt.",
    ]
    english = ["The art of printing is in the hands of those who are able.", "It was not for him to say that it is."]
    assert guess_latin_language(german * 2) == "de"
    assert guess_latin_language(english * 2) == "en"
    assert guess_latin_language(["der"]) is None


def test_phones_grow_with_the_text_and_with_the_script():
    assert estimate_phones("hello hello", "en") == 2 * estimate_phones("hello", "en")
    assert estimate_phones("你好", "zh") == pytest.approx(4.2)
    assert estimate_phones("日本", "ja") > estimate_phones("日本", "zh")


def test_phone_errors_count_changes_and_not_stress():
    assert phone_error_rate(["HH", "AH0", "L", "OW1"], ["HH", "AH", "L", "OW"]) == 0
    assert phone_error_rate(["K", "AE1", "T"], ["K", "T", "S"]) == pytest.approx(2 / 3)
    assert phone_error_rate(["K"], []) == 1
    assert phone_error_rate([], ["K"]) == 1
