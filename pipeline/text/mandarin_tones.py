"""Tone sandhi of Mandarin: what happens to the tones of dictionary words once they stand in a sentence.

After the rules of PaddleSpeech (Apache-2.0), which upstream uses: words are first joined where a sandhi crosses their
border, then 不, 一, the neutral tone and runs of third tones are changed inside each word. A final is written with its
tone as the last character: ``iao3``; ``5`` is the neutral tone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import NamedTuple

Finals = list[str]


class Word(NamedTuple):
    """A word and jieba's part of speech."""

    text: str
    part: str


class WordLists(NamedTuple):
    """``pipeline/text/data/mandarin-words.txt``."""

    neutral: frozenset[str]
    toned: frozenset[str]
    erhua: frozenset[str]
    er: frozenset[str]


@cache
def word_lists() -> WordLists:
    """The word lists, read once."""
    sections: dict[str, list[str]] = {}
    name = ""
    for line in (files("pipeline.text") / "data" / "mandarin-words.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            name = line[1 : line.index("]")]
        elif not line.startswith("#"):
            sections.setdefault(name, []).extend(line.split())
    return WordLists(**{name: frozenset(words) for name, words in sections.items()})


# --- joining words -----------------------------------------------------------------------------------
def join_words(words: list[Word], finals_of: Callable[[str], Finals]) -> list[Word]:
    """Join words across whose border a tone changes. ``finals_of`` gives the dictionary finals of a word."""
    words = _join_bu(words)
    words = _join_yi(words)
    words = _join_repeated(words)
    words = _join_third_tones(words, finals_of, _both_all_third)
    words = _join_third_tones(words, finals_of, _third_meets_third)
    return _join_er(words)


def _join_bu(words: list[Word]) -> list[Word]:
    """不 joins the word behind it, which alone decides its tone."""
    joined: list[Word] = []
    pending = ""
    for word in words:
        text = pending + word.text
        pending = "不" if text == "不" else ""
        if not pending:
            joined.append(Word(text, word.part))
    return [*joined, Word("不", "d")] if pending else joined


def _join_yi(words: list[Word]) -> list[Word]:
    """听 + 一 + 听 become one word; any other 一 joins the word behind it."""
    joined: list[Word] = []
    place = 0
    while place < len(words):
        word, following = words[place], words[place + 1] if place + 1 < len(words) else None
        verb = joined[-1] if joined else None
        if (
            word.text == "一"
            and verb
            and following
            and verb.part == following.part == "v"
            and verb.text == following.text
        ):
            joined[-1] = Word(f"{verb.text}一{following.text}", "v")
            place += 2
        else:
            joined.append(word)
            place += 1
    result: list[Word] = []
    for word in joined:
        if result and result[-1].text == "一":
            result[-1] = Word("一" + word.text, result[-1].part)
        else:
            result.append(word)
    return result


def _join_repeated(words: list[Word]) -> list[Word]:
    result: list[Word] = []
    for word in words:
        if result and result[-1].text == word.text:
            result[-1] = Word(word.text * 2, result[-1].part)
        else:
            result.append(word)
    return result


def _join_third_tones(
    words: list[Word], finals_of: Callable[[str], Finals], meets: Callable[[Finals, Finals], bool]
) -> list[Word]:
    """Words of three syllables together are joined where third tones meet; reduplications stay apart."""
    finals = [finals_of(word.text) for word in words]
    result: list[Word] = []
    just_joined = False
    for place, word in enumerate(words):
        before = words[place - 1].text if place else ""
        reduplicated = len(before) == 2 and before[0] == before[1]
        just_joined = (
            place > 0
            and not just_joined
            and meets(finals[place - 1], finals[place])
            and not reduplicated
            and len(before) + len(word.text) <= 3
        )
        if just_joined:
            result[-1] = Word(result[-1].text + word.text, result[-1].part)
        else:
            result.append(word)
    return result


def _both_all_third(first: Finals, second: Finals) -> bool:
    return _all_third(first) and _all_third(second)


def _third_meets_third(first: Finals, second: Finals) -> bool:
    return bool(first and second) and first[-1].endswith("3") and second[0].endswith("3")


def _join_er(words: list[Word]) -> list[Word]:
    result: list[Word] = []
    for word in words:
        if result and word.text == "儿":
            result[-1] = Word(result[-1].text + word.text, result[-1].part)
        else:
            result.append(word)
    return result


# --- tones inside a word -----------------------------------------------------------------------------
def change_tones(word: Word, finals: Finals, split: Callable[[str], list[str]]) -> Finals:
    """Finals of a word after all sandhi rules. ``split`` gives the shorter words inside a word."""
    finals = _change_bu(word.text, list(finals))
    finals = _change_yi(word.text, finals)
    finals = _make_neutral(word, finals, split)
    return _change_third_tones(word.text, finals, split)


def _with_tone(final: str, tone: str) -> str:
    return final[:-1] + tone


def _change_bu(word: str, finals: Finals) -> Finals:
    """不 is neutral inside 看不懂, and rises before a falling tone (不怕)."""
    if len(word) == 3 and word[1] == "不":
        finals[1] = _with_tone(finals[1], "5")
        return finals
    for place, character in enumerate(word[:-1]):
        if character == "不" and finals[place + 1].endswith("4"):
            finals[place] = _with_tone(finals[place], "2")
    return finals


_NO_SYLLABLE = frozenset("：，；。？！“”‘’':,;.?!")


def _change_yi(word: str, finals: Finals) -> Finals:
    """一 keeps its tone in numbers and ordinals, is neutral in 看一看, rises before a falling tone, else falls."""
    if "一" not in word or all(character.isnumeric() for character in word):
        return finals
    if len(word) == 3 and word[1] == "一" and word[0] == word[2]:
        finals[1] = _with_tone(finals[1], "5")
    elif word.startswith("第一"):
        finals[1] = _with_tone(finals[1], "1")
    else:
        for place, character in enumerate(word[:-1]):
            if character == "一" and finals[place + 1].endswith("4"):
                finals[place] = _with_tone(finals[place], "2")
            elif character == "一" and word[place + 1] not in _NO_SYLLABLE:
                finals[place] = _with_tone(finals[place], "4")
    return finals


def _make_neutral(word: Word, finals: Finals, split: Callable[[str], list[str]]) -> Finals:
    text, part = word
    lists = word_lists()
    if part[0] in "nva" and text not in lists.toned:  # 奶奶, 试试, 旺旺
        for place in range(1, len(text)):
            if text[place] == text[place - 1]:
                finals[place] = _with_tone(finals[place], "5")
    measure = text.find("个")
    if _ends_neutral(text, part):
        finals[-1] = _with_tone(finals[-1], "5")
    elif text == "个" or (
        measure >= 1 and (text[measure - 1].isnumeric() or text[measure - 1] in "几有两半多各整每做是")
    ):
        finals[measure] = _with_tone(finals[measure], "5")
    elif _is_listed_neutral(text):
        finals[-1] = _with_tone(finals[-1], "5")
    first, second = _halves(text, split)
    if _is_listed_neutral(first):
        finals[len(first) - 1] = _with_tone(finals[len(first) - 1], "5")
    if second and _is_listed_neutral(second):
        finals[-1] = _with_tone(finals[-1], "5")
    return finals


def _is_listed_neutral(word: str) -> bool:
    neutral = word_lists().neutral
    return word in neutral or word[-2:] in neutral


def _ends_neutral(text: str, part: str) -> bool:
    """Particles, suffixes and directions without a tone of their own."""
    last = text[-1]
    if last in "吧呢哈啊呐噻嘛吖嗨呐哦哒额滴哩哟喽啰耶喔诶" or last in "的地得":
        return True
    if len(text) == 1:
        return last in "了着过" and part in {"ul", "uz", "ug"}  # 走了, 看着, 去过
    return (
        (last in "们子" and part in {"r", "n"} and text not in word_lists().toned)
        or (last in "上下里" and part in {"s", "l", "f"})  # 桌上, 家里
        or (last in "来去" and text[-2] in "上下进出回过起开")  # 上来, 下去
    )


def _halves(word: str, split: Callable[[str], list[str]]) -> tuple[str, str]:
    """A word at the border of its shortest part: 蒙古/包, 纸/老虎. The second half may be empty."""
    shortest = min(split(word), key=len)
    if word.startswith(shortest):
        return shortest, word[len(shortest) :]
    return word[: -len(shortest)], shortest


def _all_third(finals: Finals) -> bool:
    return all(final.endswith("3") for final in finals)


def _change_third_tones(word: str, finals: Finals, split: Callable[[str], list[str]]) -> Finals:
    """A third tone rises before another one, within the smaller units of a word first."""
    if len(word) == 2 and _all_third(finals):
        return [_with_tone(finals[0], "2"), *finals[1:]]
    if len(word) == 4:
        return _rise(finals[:2]) + _rise(finals[2:])
    if len(word) != 3:
        return finals
    border = len(_halves(word, split)[0])
    if _all_third(finals):
        if border == 2:
            finals[0] = _with_tone(finals[0], "2")
        if border in (1, 2):
            finals[1] = _with_tone(finals[1], "2")
        return finals
    first, second = finals[:border], finals[border:]
    first = _rise(first) if len(first) == 2 else first
    if len(second) == 2 and _all_third(second):  # 所有/人
        second = _rise(second)
    elif second and not _all_third(second) and second[0].endswith("3") and first[-1].endswith("3"):  # 好/喜欢
        first[-1] = _with_tone(first[-1], "2")
    return first + second


def _rise(pair: Finals) -> Finals:
    """The first of two third tones rises."""
    return [_with_tone(pair[0], "2"), *pair[1:]] if pair and _all_third(pair) else pair
