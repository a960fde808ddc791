"""Ordered rewriting rules, the common form of the text normalisers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple


class Rule(NamedTuple):
    """Replace every match of ``pattern``."""

    pattern: re.Pattern[str]
    replace: str | Callable[[re.Match[str]], str]


def rule(pattern: str, replace: str | Callable[[re.Match[str]], str], *, ignore_case: bool = False) -> Rule:
    """A compiled rule."""
    return Rule(re.compile(pattern, re.IGNORECASE if ignore_case else 0), replace)


def apply_rules(text: str, rules: Iterable[Rule]) -> str:
    """The text after all rules, each applied once over the whole text."""
    for pattern, replace in rules:
        text = pattern.sub(replace, text)
    return text
