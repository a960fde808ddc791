import pytest

from pipeline.text.mandarin import read_mandarin, spell_syllable
from pipeline.text.mandarin_numbers import cardinal, decimal, digits, signed
from pipeline.text.mandarin_text import normalise
from pipeline.text.mandarin_tones import Word, change_tones, join_words
from pipeline.text.symbols import symbol_table


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("0", "零"),
        ("10", "十"),
        ("105", "一百零五"),
        ("1024", "一千零二十四"),
        ("10010", "一万零一十"),
        ("123456789", "一亿二千三百四十五万六千七百八十九"),
        ("007", "七"),
        ("1" * 40, "一" * 40),
    ],
)
def test_cardinals_are_spelled(number, words):
    assert cardinal(number) == words


def test_decimals_keep_one_trailing_zero_and_a_missing_whole_part():
    assert [decimal(n) for n in ("3.14", "3.20", ".5", "2.00")] == ["三点一四", "三点二零", "零点五", "二点零"]
    assert signed("-2.5") == "负二点五"
    assert digits("110", one="幺") == "幺幺零"


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("2024年3月15日", "二零二四年三月十五日"),
        ("2024-3-5", "二零二四年三月五日"),
        ("8:30-12:45", "八点半至十二点四十五分"),
        ("￥25.8", "二十五点八元"),
        ("$5", "五美元"),
        ("￥199.9元", "一百九十九点九元"),
        ("$5美元", "五美元"),
        ("￥5块钱", "五元"),
        ("12,345人", "一万二千三百四十五人"),
        ("12,345", "一万二千三百四十五"),
        ("$12,345", "一万二千三百四十五美元"),
        ("1,200km", "一千二百千米"),
        ("12345", "幺二三四五"),
        ("3-5天", "三至五天"),
        ("30%-40%", "百分之三十至百分之四十"),
        ("7‰", "千分之七"),
        ("-5℃", "零下五度"),
        ("5km/h", "五千米每小时"),
        ("2个", "两个"),
        ("100+人", "一百多人"),
        ("13812345678", "幺三八幺二三四五六七八"),
        ("010-12345678", "零幺零,幺二三四五六七八"),
        ("3/4", "四分之三"),
        ("1.2.3", "一点二点三"),
        ("x²", "的二次方"),
        ("什麼乾淨餘額", "什么干净余额"),
        ("嗯…好。。", "恩…好."),
    ],
)
def test_what_is_written_is_turned_into_what_is_said(written, spoken, installed):
    installed("zh")
    assert normalise(written)[0] == spoken


@pytest.mark.slow
def test_characters_that_cannot_be_read_are_reported(installed):
    installed("zh")
    normalised, phones, counts, unknown = read_mandarin("你😀好の")
    assert (normalised, unknown) == ("你好", ("😀", "の"))
    assert phones == ["n", "i2", "h", "ao3"]
    assert counts == [2, 2]


@pytest.mark.parametrize(
    ("sentence", "finals"),
    [
        ("不怕", "u2 a4"),  # 不 before a falling tone
        ("看一看", "an4 i5 an4"),
        ("一天", "i4 ian1"),
        ("第一", "i4 i1"),
        ("你好", "i2 ao3"),
        ("展览馆", "an2 an2 uan3"),
        ("奶奶", "ai3 ai5"),
        ("小狗", "iao2 ou3"),
    ],
)
def test_tones_change_inside_a_sentence(sentence, finals, installed):
    installed("zh")
    assert read_mandarin(sentence)[1][1::2] == finals.split()


def test_words_are_joined_where_a_tone_crosses_their_border():
    words = [
        Word("不", "d"),
        Word("怕", "v"),
        Word("听", "v"),
        Word("一", "m"),
        Word("听", "v"),
        Word("花", "n"),
        Word("儿", "n"),
    ]
    joined = [word.text for word in join_words(words, lambda word: ["a1"] * len(word))]
    assert joined == ["不怕", "听一听", "花儿"]


def test_the_neutral_tone_comes_from_particles_suffixes_and_the_list():
    def tones(text, part, finals):
        return "".join(final[-1] for final in change_tones(Word(text, part), finals, lambda word: [word]))

    assert tones("我们", "r", ["o3", "en2"]) == "35"
    assert tones("馒头", "n", ["an2", "ou2"]) == "25"
    assert tones("男子", "n", ["an2", "i3"]) == "23"
    assert tones("了", "ul", ["e4"]) == "5"


def test_erhua_takes_the_tone_before_it_unless_it_means_child(installed):
    installed("zh")
    assert read_mandarin("小院儿")[1][-2:] == ["EE", "er4"]
    assert read_mandarin("女儿")[1][-2:] == ["EE", "er2"]


def test_every_syllable_is_spelled_with_symbols_of_the_table():
    known = set(symbol_table("v2"))
    for initial, final in [
        ("zh", "i1"),
        ("z", "i2"),
        ("", "ian3"),
        ("", "v4"),
        ("x", "iou5"),
        ("", "ng2"),
        ("j", "van4"),
    ]:
        assert set(spell_syllable(initial, final)) <= known and len(spell_syllable(initial, final)) == 2
    assert spell_syllable("zh", "i1") == ("zh", "ir1")
    assert spell_syllable("", "q1") == ()


def test_a_caret_is_a_long_pause_and_the_commas_stay(installed):
    installed("zh")
    assert read_mandarin("你^好,吗")[1] == ["n", "i3", "SP3", "h", "ao3", ",", "m", "a5"]
