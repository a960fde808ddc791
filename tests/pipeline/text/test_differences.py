"""Every difference between our front ends and upstream's that docs/text.md lists, pinned: a change shows here."""

import pytest

from pipeline.text.frontend import phonemize

# What ``as_upstream=True`` gives, and what we give by default.
CHOSEN = [
    ("en", "It's “quoted”; isn’t it?", "IH1 T S K W OW1 T IH0 D IH1 S AH0 N T IH1 T ?",
     "IH1 T S K W OW1 T IH0 D , IH1 Z AH0 N T IH1 T ?"),
    ("en", "at 5 p.m. in the U.S.", "AE1 T F AY1 V P IY1 . EH1 M . IH0 N DH AH0 Y UW1 . EH1 S .",
     "AE1 T F AY1 V P IY1 EH1 M IH0 N DH AH0 Y UW1 EH1 S ."),
    ("en", "I read it.", "AY1 R EH1 D IH1 T .", "AY1 R IY1 D IH1 T ."),
    ("en", "HELLO", "EY1 CH IY1 EH1 L EH1 L OW1", "HH AH0 L OW1"),
    ("en", "thirty-four", "TH ER1 T AY0 F R UH0 R", "TH ER1 D IY2 F AO1 R"),
    ("en", "the 1990s", "DH AH0 N AY1 N T IY1 N N AY1 N T IY0 S EH1 K AH0 N D Z",
     "DH AH0 N AY1 N T IY1 N N AY1 N T IY0 Z"),
    ("en", "dogs' tails", "D AA1 G Z - T EY1 L Z", "D AA1 G Z T EY1 L Z"),
    ("zh", "给我￥5，谢谢，好。", "g ei2 w o3 SP2 w u3 SP2 x ie4 x ie5 SP2 h ao3 .",
     "g ei2 w o3 w u3 y van2 , x ie4 x ie5 , h ao3 ."),
    ("zh", "5mm长", "w u2 m i2 m i3 zh ang3", "w u3 h ao2 m i3 zh ang3"),
    ("zh", "3-5天", "s an1 j ian2 w u3 t ian1", "s an1 zh ir4 w u3 t ian1"),
    ("zh", "什麼", "sh en2 m o2", "sh en2 m e5"),
    ("yue", "一隻。", "Yj Yat1 Yz Yi2 .", "Yj Yat1 Yz Yek3 ."),
    ("ja", "「はい」", "UNK h a ] i UNK", "h a ] i"),
    ("ja", "3.5", "s a [ N . g o", "s a [ N t e ] N UNK g o"),
    ("ko", "1500", "ㅇ ㅣ ㄹ ㅗ ㅇ ㅣ ㅓ ㅇ ㅇ ㅣ ㅓ ㅇ .", "ㅊ ㅓ ㄴ ㅗ ㅂ ㅐ ㄱ ."),
    ("ko", "(책)", "停 ㅊ ㅐ ㄱ 停", "ㅊ ㅐ ㄱ ."),
]  # fmt: skip

# Where even ``as_upstream=True`` cannot follow: upstream's reading (for the record), and ours.
FORCED = [
    ("en", "orange", "AO1 R IH0 N JH", "AO1 R AH0 N JH"),
    ("en", "Jonelle", "ZH AH0 N EH1 L", "JH OW0 N EH1 L"),
    ("yue", "卌。", "Ys UNK .", "Ys Yei3 Yaa Ya6 ."),
    ("zh", "哼。", "an exception", "h eng1 ."),
]


@pytest.mark.slow
@pytest.mark.parametrize(("language", "text", "theirs", "ours"), CHOSEN, ids=range(len(CHOSEN)))
def test_a_chosen_difference_stays_as_it_is_documented(language, text, theirs, ours, installed, repository):
    installed(language)
    assert " ".join(phonemize(text, language, mixed=False, as_upstream=True).symbols) == theirs
    assert " ".join(phonemize(text, language, mixed=False).symbols) == ours
    assert f"`{text}`" in (repository / "docs" / "text.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("language", "text", "theirs", "ours"), FORCED, ids=range(len(FORCED)))
def test_a_forced_difference_stays_as_it_is_documented(language, text, theirs, ours, installed, repository):
    installed(language)
    found = " ".join(phonemize(text, language, mixed=False, as_upstream=True).symbols)
    assert found == ours
    assert found != theirs
    assert f"`{text}`" in (repository / "docs" / "text.md").read_text(encoding="utf-8")
