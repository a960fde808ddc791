import os
import subprocess
import sys
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import MissingExtraError, SettingsError
from pipeline.text.frontend import FEWEST_PHONES, is_silent, phonemize, phonemize_for_synthesis
from pipeline.text.packages import package_file, require
from pipeline.text.scripts import script_of, split_languages
from pipeline.text.symbols import symbol_ids, symbol_table

LANGUAGES = ("zh", "en", "ja", "ko", "yue")
TABLE = frozenset(symbol_table("v2"))
# Characters that the five languages really use, and the whole of Unicode.
TEXT = st.text(
    st.one_of(st.sampled_from("你好一不儿个的今日はカー안녕값aZ019.,%$-:/年月日 \n。，！「」'²½"), st.characters()),
    max_size=40,
)


def language_of_stretches(text, language):
    return [(stretch.language, stretch.text) for stretch in split_languages(text, language)]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("as_upstream", [False, True])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXT)
def test_any_text_gives_known_phones_and_reports_the_rest(installed, language, as_upstream, text):
    installed(language)
    phones = phonemize(text, language, mixed=False, as_upstream=as_upstream)
    assert TABLE.issuperset(phones.symbols)
    if phones.word2ph is not None:
        assert sum(phones.word2ph) == len(phones.symbols)
        assert len(phones.word2ph) == len(phones.normalised_text)
    if not as_upstream:
        letters = {c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) in ("Lo", "So")}
        assert phones.symbols or phones.unknown or not letters


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXT, language=st.sampled_from(LANGUAGES))
def test_the_stretches_of_a_mixed_text_are_the_text(text, language):
    stretches = split_languages(text, language)
    assert "".join(stretch.text for stretch in stretches) == text
    assert all(a.language != b.language for a, b in pairwise(stretches))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXT, language=st.sampled_from(LANGUAGES))
def test_spans_of_a_mixed_text_cover_all_phones(installed, text, language):
    installed(*LANGUAGES)
    phones = phonemize(text, language)
    borders = [(span.first_symbol, span.last_symbol) for span in phones.spans]
    assert [end for _, end in borders[:-1]] == [start for start, _ in borders[1:]]
    assert not borders or (borders[0][0], borders[-1][1]) == (0, len(phones.symbols))


@pytest.mark.parametrize(
    ("language", "text", "stretches"),
    [
        ("zh", "我用iPhone 15 Pro写代码。", [("zh", "我用"), ("en", "iPhone 15 Pro"), ("zh", "写代码。")]),
        ("zh", "速度5km，GPT4很快", [("zh", "速度5km，"), ("en", "GPT4"), ("zh", "很快")]),
        ("zh", "3D打印", [("en", "3D"), ("zh", "打印")]),
        ("zh", "iPhone 15很贵", [("en", "iPhone "), ("zh", "15很贵")]),
        ("zh", "MyGO?,你也喜欢まいご吗？", [("en", "MyGO?,"), ("zh", "你也喜欢"), ("ja", "まいご"), ("zh", "吗？")]),
        ("ja", "今日はAIの話", [("ja", "今日は"), ("en", "AI"), ("ja", "の話")]),
        ("yue", "我用iPhone", [("yue", "我用"), ("en", "iPhone")]),
        ("en", "Say 你好.", [("en", "Say "), ("zh", "你好.")]),
        ("en", "Say 世界 ありがとう", [("en", "Say "), ("ja", "世界 ありがとう")]),
        ("en", "3.5", [("en", "3.5")]),
        ("ko", "GPT 모델 3개", [("en", "GPT "), ("ko", "모델 3개")]),
        ("zh", "去cafe\u0301吧", [("zh", "去"), ("en", "cafe\u0301"), ("zh", "吧")]),
        ("zh", "", []),
    ],
)
def test_a_text_is_cut_where_its_script_changes(language, text, stretches):
    assert language_of_stretches(text, language) == stretches


def test_english_words_in_a_chinese_line_are_spoken(installed):
    installed("zh", "en")
    phones = phonemize("我爱Python。", "zh")
    assert "P AY1 TH" in " ".join(phones.symbols)
    assert phones.word2ph is None
    assert phones.spans[0].word2ph == (2, 2)
    assert phones.unknown == ()
    assert phonemize("我爱Python。", "zh", mixed=False).unknown == tuple("Python")


def test_very_short_text_is_read_once_more_behind_a_full_stop(installed):
    installed("zh")
    short = phonemize_for_synthesis("好", "zh")
    assert short.symbols[0] == "."
    assert len(phonemize_for_synthesis("今天天气很好", "zh").symbols) >= FEWEST_PHONES
    assert is_silent(phonemize("。。", "zh"))
    assert not is_silent(short)


def test_ids_are_positions_and_a_foreign_phone_is_unk():
    table = symbol_table("v2")
    assert symbol_ids(["!", table[100], "nonsense"]) == [0, 100, table.index("UNK")]
    with pytest.raises(SettingsError, match="v9"):
        symbol_table("v9")


def test_scripts_are_told_from_code_points():
    assert [script_of(c) for c in "好あ한aé9٣ж，ー々"] == [
        "han", "kana", "hangul", "latin", "latin", "digit", "digit", "letter", "other", "kana", "han",
    ]  # fmt: skip


def test_a_missing_extra_is_one_line_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(MissingExtraError) as error:
        require("jieba", "zh")
    assert error.value.hint == "pip install 'voxline[lang-zh]'"
    with pytest.raises(MissingExtraError) as error:
        package_file("no_such_package", "data.txt", "en")
    assert error.value.hint == "pip install 'voxline[lang-en]'"


def test_importing_the_front_ends_imports_no_language_library():
    code = (
        "import sys, pipeline.text.frontend, pipeline.text.splitting\n"
        "print(sorted(set(sys.modules) & {'numpy', 'torch', 'jieba', 'pypinyin', 'nltk', 'g2p_en', 'g2pk2', 'mecab',"
        " 'pyopenjtalk', 'ToJyutping', 'opencc', 'wordsegment', 'models'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


READ_EVERYTHING = """
import socket, sys, urllib.request

def refuse(*arguments, **options):
    raise SystemExit(f"the front ends asked for the network: {arguments}")

socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
urllib.request.urlopen = refuse
from pipeline.text.frontend import phonemize

texts = {"zh": "你好，2026年花了￥5。", "en": "Hello xyzzy, it cost $5.", "ja": "今日は5円です。", "ko": "값은 5원입니다.", "yue": "你好，5蚊。"}
for language in sys.argv[1:]:
    assert len(phonemize(texts[language], language).symbols) > 8, language
"""


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_front_end_asks_for_the_network_or_needs_a_home_folder(installed, tmp_path, language):
    """A process of its own: nothing is loaded yet, there is no cache, and every way out is shut."""
    installed(language)
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", READ_EVERYTHING, language], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    written = [path for path in tmp_path.rglob("*") if path.is_file() and ".onnxruntime" not in path.parts]
    assert not written  # onnxruntime, which Open JTalk's package imports, keeps a record of its own there
