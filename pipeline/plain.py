"""Text from outside, made fit to be shown: it cannot move a cursor any more, nor pretend to be another line."""

from __future__ import annotations

import html
import re
import unicodedata

# Control characters, format characters (directions, invisible ones), surrogates, separators of lines and paragraphs.
_UNFIT = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"  # Persian words and emoji are written with them
_MARKS = "\\|*_`[]#@!~"
_BREAKS = re.compile(r" *[\t\r\n\v\f\x85\u2028\u2029][\s\x85\u2028\u2029]*")


def is_unfit(letter: str) -> bool:
    """Whether a character drives a terminal, is not seen or is none, instead of being read."""
    is_none = ord(letter) & 0xFFFE == 0xFFFE
    return is_none or (unicodedata.category(letter) in _UNFIT and letter not in _JOINERS)


def printable(text: str, *, keep: str = "\n") -> str:
    """The text with every unfit character replaced, except those in ``keep``; as long as before."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if is_unfit(letter) and letter not in keep else letter for letter in text
    )


def one_line(text: str) -> str:
    """The text on one line: breaks and tabs become blanks, what else is unfit is replaced."""
    return printable(_BREAKS.sub(" ", text), keep="")


def stripped(text: str, longest: int) -> str:
    """For values that are kept: one line without any unfit character, at most ``longest`` characters."""
    told = "".join(letter for letter in _BREAKS.sub(" ", text) if not is_unfit(letter))
    return told.strip()[:longest]


def markdown(text: str) -> str:
    """Text of strangers inside Markdown: no markup, no line breaks, no mentions."""
    escaped = "".join(f"\\{letter}" if letter in _MARKS else letter for letter in html.escape(text, quote=False))
    return one_line(escaped)


def escaped_json(document: str) -> str:
    """The same JSON document with unfit characters as ``\\uXXXX``; outside of strings it has none but line breaks."""
    if document.isascii() and "\x7f" not in document:
        return document
    return "".join(_escape(letter) if letter != "\n" and is_unfit(letter) else letter for letter in document)


def _escape(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
