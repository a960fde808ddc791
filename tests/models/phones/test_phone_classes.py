from models.configs.content import ARPABET
from models.phones.phone_classes import sounds_of_ids, sounds_of_symbols
from models.phones.symbols import symbol_ids
from pipeline.text.frontend import phonemize


def test_every_symbol_of_english_and_mandarin_text_has_its_sounds():
    table = sounds_of_symbols()
    assert {sound for sounds in table.values() for sound in sounds} <= set(ARPABET)
    for text, language in (
        ("The quick brown fox jumps over the lazy dog.", "en"),
        ("这两个内因指标,一个叫做居民部门利息保障倍数!儿子爱云南。", "zh"),
    ):
        assert not [symbol for symbol in phonemize(text, language).symbols if symbol not in table]


def test_sounds_of_both_languages_use_the_same_classes():
    table = sounds_of_symbols()
    assert table["HH"] == table["h"] == ("HH",)
    assert table["AA1"] == ("AA",) and table["AA"] == ()  # the second is Mandarin's empty initial
    assert table["uang4"] == ("W", "AA", "NG") and table["."] == ()
    assert "ㅏ" not in table
    assert sounds_of_ids()[symbol_ids("v2")["uang4"]] == table["uang4"]
