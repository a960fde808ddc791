"""What can be said, by a base that speaks certain languages."""

from __future__ import annotations

import pytest

from pipeline.errors import TextRefused, UsageError
from pipeline.text.speakable import check_scripts, check_text, choose_language, name_languages

NANO = ("en", "zh")
ALL = ("zh", "en", "ja", "ko", "yue")


@pytest.mark.parametrize("text", ["", " \n ", "...!?", "“”", "x" * 20_001])
def test_what_cannot_be_said_is_usage(text):
    with pytest.raises(UsageError):
        check_text(text)


@pytest.mark.parametrize("text", ["Hello.", "42", "你好", "Ω"])
def test_what_has_a_sound_is_let_through(text):
    check_text(text)


@pytest.mark.parametrize(
    ("text", "language", "named"),
    [
        ("おはようございます。", "en", "Japanese"),
        ("今日は天気がいいです。", "zh", "Japanese"),
        ("안녕하세요", "en", "Korean"),
        ("Good morning, 안녕, everyone.", "en", "Korean"),
        ("你好，カラオケ。", "zh", "Japanese"),
        ("Доброе утро", "en", "nobody here can read"),
        ("καλημέρα hi", "en", "nobody here can read"),
    ],
)
def test_words_in_a_language_the_base_does_not_speak_refuse_the_text(text, language, named):
    with pytest.raises(TextRefused) as error:
        check_scripts(text, language, NANO, "nano")
    assert error.value.exit_code == 10
    assert named in error.value.message and "English (en) and Chinese (zh)" in error.value.message


@pytest.mark.parametrize(
    ("text", "language", "spoken"),
    [
        ("Say 你好 to everyone.", "en", NANO),
        ("用 GPT 说话，第 3 次。", "zh", NANO),
        ("The angle π is 180° – roughly.", "en", NANO),
        ("5km, 20°C!", "zh", NANO),
        ("こんにちは, hello, 안녕", "ja", ALL),
        ("粵語 and English", "yue", ("yue", "en")),
    ],
)
def test_what_the_base_speaks_may_be_mixed(text, language, spoken):
    check_scripts(text, language, spoken, "base")


def test_chinese_characters_belong_to_the_language_of_the_text():
    with pytest.raises(TextRefused, match="Chinese"):
        check_scripts("Say 你好.", "en", ("en",), "small")


@pytest.mark.parametrize(
    ("given", "told"), [("de", "--language de"), ("ja", "--language ja"), (None, "language is ja")]
)
def test_a_language_the_base_does_not_speak_is_told_with_those_it_does(given, told):
    with pytest.raises(UsageError) as error:
        choose_language(given, "ja", NANO, "nano")
    assert told in error.value.message
    assert error.value.hint == "--language en or --language zh"
    assert choose_language("zh", "en", NANO, "nano") == "zh"


def test_languages_are_named_in_words():
    assert name_languages(("en",)) == "English (en)"
    assert name_languages(ALL).endswith("Korean (ko) and Cantonese (yue)")
