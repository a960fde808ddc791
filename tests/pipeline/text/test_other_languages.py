import sys

import pytest

from pipeline.text.cantonese import read_cantonese, spell_jyutping
from pipeline.text.japanese import label_phones, read_japanese
from pipeline.text.japanese_text import normalise as normalise_japanese
from pipeline.text.korean import read_korean
from pipeline.text.korean_text import native, sino
from pipeline.text.korean_text import normalise as normalise_korean


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("値段は$5です", "値段は5ドルです"),
        ("１，０００円", "1000円"),
        ("¥1,980円", "1980円"),
        ("1/2カップ", "2分の1カップ"),
        ("2024/3/15の13:05", "2024年3月15日の13時5分"),
        ("3.5kmと50%", "3点5キロメートルと50パーセント"),
        ("03-1234-5678", "ゼロサン、イチニーサンヨン、ゴーロクナナハチ"),
        ("え？！。", "え?"),
        ("ｶﾞｷﾞ", "ガギ"),
    ],
)
def test_japanese_is_written_as_open_jtalk_reads_it_best(written, spoken):
    assert normalise_japanese(written) == spoken


def test_japanese_has_pitch_marks_and_accent_phrases(installed):
    installed("ja")
    assert read_japanese("今日は天気")[1] == ["ky", "o", "]", "o", "w", "a", "UNK", "t", "e", "]", "N", "k", "i"]


def test_japanese_brackets_are_silent_and_strange_letters_reported(installed):
    installed("ja")
    _, phones, unknown = read_japanese("「はい」ж")
    assert phones == ["h", "a", "]", "i"]
    assert unknown == ("ж",)


def test_a_label_without_numbers_gives_a_bare_phone():
    silence = "xx^xx-sil+k=o/A:xx+xx+xx/B:xx-xx_xx/F:xx_xx#xx"
    phone = "xx^sil-k+o=N/A:-4+1+5/B:xx-xx_xx/F:5_5#0"
    assert label_phones([silence, phone, silence]) == ["k"]


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("사과 3개와 21살", "사과 세개와 스물한살"),
        ("1500원", "천오백원"),
        ("₩1,500원", "천오백원"),
        ("1/2컵", "이분의 일컵"),
        ("$5", "오달러"),
        ("2024-3-5", "이천이십사년 삼월 오일"),
        ("10:30", "열 시 삼십 분"),
        ("3.5%", "삼 점 오 퍼센트"),
        ("010-1234-5678", "공일공, 일이삼사, 오육칠팔"),
        ("6월 10월", "유월 시월"),
        ("GPT", "지피티"),
    ],
)
def test_korean_numbers_are_written_out(written, spoken):
    assert normalise_korean(written) == spoken


def test_korean_numerals_come_in_two_kinds():
    assert [sino(n) for n in (0, 10, 1234, 10000, 123456789)] == [
        "영",
        "십",
        "천이백삼십사",
        "만",
        "일억이천삼백사십오만육천칠백팔십구",
    ]
    assert [native(n) for n in (1, 20, 21, 99, 100)] == ["한", "스무", "스물한", "아흔아홉", "백"]


def test_korean_is_written_as_it_is_pronounced(installed):
    installed("ko")
    assert "".join(read_korean("같이")[1]) == "ㄱㅏㅊㅣ."
    assert "".join(read_korean("한국어 책")[1]) == "ㅎㅏㄴㄱㅜㄱㅓ空ㅊㅐㄱ."


def test_korean_reports_what_it_cannot_read(installed):
    installed("ko")
    _, phones, unknown = read_korean("韓國 空 사람")
    assert unknown == ("韓", "國", "空")
    assert "停" not in phones


def test_korean_rules_are_loaded_without_the_start_up_code_of_their_package(installed):
    installed("ko")
    read_korean("안녕")
    assert "g2pk2" not in sys.modules
    assert "g2pk2.special" in sys.modules


@pytest.mark.slow
def test_cantonese_keeps_traditional_characters_that_simplify_to_another_word(installed):
    installed("yue")
    assert read_cantonese("一隻")[1] == ["Yj", "Yat1", "Yz", "Yek3"]
    assert read_cantonese("㗎！")[1][0] == "Yg"


@pytest.mark.parametrize(
    ("jyutping", "phones"),
    [
        ("nei5", ["Yn", "Yei5"]),
        ("ngo5", ["Yng", "Yo5"]),
        ("m4", ["Ym", "Ym4"]),
        ("aa3", ["Yaa", "Ya3"]),
        ("gwong2", ["Ygw", "Yong2"]),
        ("sei3 aa6", ["Ys", "Yei3", "Yaa", "Ya6"]),
        ("", []),
        ("hello", []),
    ],
)
def test_jyutping_is_cut_into_initial_and_toned_final(jyutping, phones):
    assert spell_jyutping(jyutping) == phones


def test_cantonese_counts_the_phones_of_every_character(installed):
    installed("yue")
    normalised, phones, counts, unknown = read_cantonese("我有3個😀。")
    assert (normalised, counts, unknown) == ("我有三個.", [2, 2, 2, 2, 1], ("😀",))
    assert len(phones) == sum(counts)
