"""Long text to sentences: our own method, and upstream's six as they are (docs/networks/speaking.md).

Ours ends a piece at the end of a sentence, joins very short sentences to the next one, cuts long ones at a clause, then
at a blank, and never inside a number, an abbreviation or an address; closing quotation marks stay with their sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from pipeline.errors import SettingsError
from pipeline.records.phones import Language
from pipeline.text.scripts import script_of

PAUSE_AFTER_S = {"…": 0.45, ".": 0.3, "!": 0.3, "?": 0.3, ";": 0.25, ":": 0.2, ",": 0.15, "-": 0.15}
"""Silence after a piece, by its last mark; ``NEWLINE_PAUSE_S`` at the end of a paragraph."""
NEWLINE_PAUSE_S = 0.6

_SAME_MARK = str.maketrans("。！？，、；：．｡—–～~", ".!?,,;:..--……")
_CLOSING = "\"'”’」』）)】》〉]"


def split_sentences(text: str, language: Language, method: str = "sentences") -> list[str]:
    """Pieces of a text to be synthesised one by one, in order; text without a letter or digit is left out.

    Args:
        text: any length, several paragraphs.
        language: decides which full stop upstream's methods add.
        method: ``sentences``, or upstream's ``cut0`` to ``cut5``.

    Raises:
        SettingsError: there is no such method.
    """
    if method == "sentences":
        return [piece for paragraph in re.split(r"\s*\n\s*", text.strip()) for piece in _split_paragraph(paragraph)]
    if method not in UPSTREAM_METHODS:
        raise SettingsError(
            f"no method {method!r} to split text", hint=f"one of sentences, {', '.join(UPSTREAM_METHODS)}"
        )
    return _split_as_upstream(text, language, UPSTREAM_METHODS[method])


def pause_after_s(sentence: str) -> float:
    """Silence in seconds that suits the last mark of a sentence."""
    last = sentence.rstrip().rstrip(_CLOSING)[-1:].translate(_SAME_MARK)
    return PAUSE_AFTER_S.get(last, 0.2)


# --- our method --------------------------------------------------------------------------------------
_LONGEST, _SHORTEST = 60.0, 8.0  # in spoken weight: about 12 s and 1.5 s
_ABBREVIATIONS = frozenset(
    (
        "mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "etc", "no", "nr", "fig", "vol", "approx", "dept",
        "e.g", "i.e", "a.m", "p.m", "u.s", "u.k", "ph.d", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep",
        "sept", "oct", "nov", "dec", "mt",
    )
)  # fmt: skip
_END = re.compile(rf"(?:[。！？!?…｡]|\.)+[{re.escape(_CLOSING)}]*|(?<=[^\s0-9])[;；](?=\s|[^\x00-\x7f])")
_CLAUSE = re.compile(r"[，、；：]|[,;:](?=\s|[^\x00-\x7f])|\s[–—-]+(?=\s)|——?")


def _split_paragraph(paragraph: str) -> list[str]:
    pieces: list[str] = []
    for sentence in _sentences(paragraph):
        if pieces and _weight(pieces[-1]) < _SHORTEST and _weight(pieces[-1]) + _weight(sentence) <= _LONGEST:
            pieces[-1] += sentence
        else:
            pieces.append(sentence)
    if len(pieces) > 1 and _weight(pieces[-1]) < _SHORTEST and _weight(pieces[-2] + pieces[-1]) <= _LONGEST:
        pieces[-2:] = [pieces[-2] + pieces[-1]]
    bounded = [part.strip() for piece in pieces for part in _bound(piece)]
    return [part for part in bounded if any(script_of(c) != "other" for c in part)]


def _sentences(paragraph: str) -> list[str]:
    """Cut behind every mark that ends a sentence."""
    pieces: list[str] = []
    start = 0
    for match in _END.finditer(paragraph):
        if match.end() < len(paragraph) and not (match[0][0] == "." and _is_inside_word(paragraph, match)):
            pieces.append(paragraph[start : match.end()])
            start = match.end()
    return [*pieces, paragraph[start:]] if start < len(paragraph) else pieces


def _is_inside_word(text: str, stop: re.Match[str]) -> bool:
    """Whether a full stop belongs to a number, an address, an abbreviation or an initial."""
    following = text[stop.end() : stop.end() + 1]
    if following.isascii() and not following.isspace():
        return True
    before = re.search(r"[A-Za-z.]*$", text[max(0, stop.start() - 12) : stop.start()])
    word = before[0].lower() if before else ""
    if word in _ABBREVIATIONS or re.fullmatch(r"(?:[a-z]\.)*[a-z]", word):
        after = text[stop.end() : stop.end() + 4].lstrip()[:1]
        return word not in {"a.m", "p.m", "etc", "u.s", "u.k"} or not after.isupper()
    return False


def _weight(text: str) -> float:
    """Roughly the syllables of a text: a Chinese or Korean character is one, a Latin letter a third of one."""
    weights = {"han": 1.0, "kana": 0.7, "hangul": 1.0, "digit": 1.0, "latin": 0.34, "letter": 0.34}
    return sum(weights.get(script_of(character), 0.0) for character in text)


def _bound(piece: str) -> list[str]:
    """Cut a piece that is too long near its middle: at a clause, else at a blank, else between characters."""
    if _weight(piece) <= _LONGEST:
        return [piece]
    cuts = [match.end() for match in _CLAUSE.finditer(piece)] or [match.end() for match in re.finditer(r"\s+", piece)]
    cuts = [cut for cut in cuts if cut < len(piece)]
    middle = len(piece) / 2
    for cut in sorted(cuts, key=lambda place: abs(place - middle)):
        if _weight(piece[:cut]) and _weight(piece[cut:]):
            return [*_bound(piece[:cut]), *_bound(piece[cut:])]
    cut = next(
        (place for place in range(len(piece) // 2, len(piece)) if not _is_glued(*piece[place - 1 : place + 1])), 0
    )
    cut = cut or len(piece) // 2
    return [*_bound(piece[:cut]), *_bound(piece[cut:])]


def _is_glued(left: str, right: str) -> bool:
    return all(script_of(character) in {"latin", "letter", "digit"} for character in (left, right))


# --- upstream's methods ------------------------------------------------------------------------------
_MARKS = "，。？！,.?!~:：—…"
_PIECE = re.compile(f"[^{_MARKS}]*[{_MARKS}]")
_LONE_MARKS = frozenset("!?…,.- ")
_EVERY_MARK = frozenset(",.;?!、，。？！：…")
_MERGE_BELOW, _CUT_ABOVE = 5, 510


def _pieces(text: str) -> list[str]:
    text = text.replace("……", "。").replace("——", "，")
    return _PIECE.findall(text if text[-1] in _MARKS else text + "。")


def _groups_of_four(text: str) -> list[str]:
    """The last group keeps what is left over."""
    pieces = _pieces(text)
    borders = list(range(0, len(pieces), 4))
    if len(borders) < 3:
        return [text] if len(borders) < 2 else ["".join(pieces)]
    borders[-1] = len(pieces)
    return ["".join(pieces[a:b]) for a, b in pairwise(borders)]


def _fifty_characters(text: str) -> list[str]:
    pieces = _pieces(text)
    if len(pieces) < 2:
        return [text]
    groups = [""]
    for piece in pieces:
        groups[-1] += piece
        if len(groups[-1]) > 50:
            groups.append("")
    groups = groups if groups[-1] else groups[:-1]
    if len(groups) > 1 and len(groups[-1]) < 50:
        groups[-2:] = [groups[-2] + groups[-1]]
    return groups


def _every_mark(text: str) -> list[str]:
    pieces = [""]
    for place, character in enumerate(text):
        pieces[-1] += character
        decimal = character == "." and text[place - 1 : place].isdigit() and text[place + 1 : place + 2].isdigit()
        if character in _EVERY_MARK and not decimal:
            pieces.append("")
    return pieces


UPSTREAM_METHODS: dict[str, Callable[[str], list[str]]] = {
    "cut0": lambda text: [text],
    "cut1": _groups_of_four,
    "cut2": _fifty_characters,
    "cut3": lambda text: text.strip("。").split("。"),
    "cut4": lambda text: re.split(r"(?<![0-9])\.(?![0-9])", text.strip(".")),
    "cut5": _every_mark,
}


def _split_as_upstream(text: str, language: Language, cut: Callable[[str], list[str]]) -> list[str]:
    text = text.strip("\n")
    if not text:
        return []
    full_stop = "." if language == "en" else "。"
    first = re.split(f"[{_MARKS}]", text)[0].strip()
    if text[0] not in _MARKS and len(first) < 4:
        text = full_stop + text
    lone = _EVERY_MARK if cut is _every_mark else _LONE_MARKS
    lines = [line for piece in cut(text) if not set(piece) <= lone for line in piece.split("\n")]
    return [
        part
        for line in _merge_short([line for line in lines if line not in ("", " ")])
        for part in _close(line, full_stop)
    ]


def _merge_short(lines: list[str]) -> list[str]:
    """Join lines until each has five characters; a short end joins the line before it."""
    merged: list[str] = []
    pending = ""
    for line in lines:
        pending += line
        if len(pending) >= _MERGE_BELOW:
            merged.append(pending)
            pending = ""
    if pending:
        merged[-1:] = [merged[-1] + pending] if merged else [pending]
    return merged


def _close(line: str, full_stop: str) -> list[str]:
    if not re.sub(r"\W+", "", line):
        return []
    line = line if line[-1] in _MARKS else line + full_stop
    if len(line) <= _CUT_ABOVE:
        return [line]
    parts = [""]
    for piece in re.split(f"([{_MARKS}])", line):
        if len(parts[-1] + piece) > _CUT_ABOVE:
            parts.append("")
        parts[-1] += piece
    return parts
