"""Which words of a long transcript are spoken in which slice of the recording, by the phones heard in each slice.

The phones of the text are aligned with the phones heard (Levenshtein); a slice gets the words between its borders. The
result counts only if every slice then fits its own words: a wrong border would leave words of one slice in another.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from pipeline.text.edits import edit_costs
from pipeline.text.transcripts import phone_error_rate

MOST_CELLS = 4_000_000  # of the alignment: about two minutes of speech
_SLICE_ERROR_MAX = 0.6  # right texts up to 0.67 in single sentences, other texts 0.75 and more

Word = tuple[str, tuple[str, ...]]  # as written, its phones


def share_words(words: Sequence[Word], heard: Sequence[Sequence[str]]) -> list[str] | None:
    """The text of each slice, in order; None where it is not certain."""
    expected = [phone for _, phones in words for phone in phones]
    spoken = [phone for phones in heard for phone in phones]
    if len(heard) < 2 or min(map(len, heard), default=0) == 0 or len(expected) * len(spoken) > MOST_CELLS:
        return None
    borders = [_place_in_expected(expected, spoken, cut) for cut in list(accumulate(map(len, heard)))[:-1]]
    starts = [0, *accumulate(len(phones) for _, phones in words)]  # of each word, in phones
    cuts = [int(np.abs(np.array(starts) - border).argmin()) for border in borders]
    edges = [0, *cuts, len(words)]
    if any(end <= start for start, end in pairwise(edges)):
        return None
    edges = _settle(words, heard, edges)
    parts = [words[start:end] for start, end in pairwise(edges)]
    errors = [
        phone_error_rate([phone for _, phones in part for phone in phones], slice_)
        for part, slice_ in zip(parts, heard, strict=True)
    ]
    if max(errors) > _SLICE_ERROR_MAX:
        return None
    return [" ".join(word for word, _ in part) for part in parts]


def _place_in_expected(expected: Sequence[str], spoken: Sequence[str], cut: int) -> int:
    """How many expected phones belong to the first `cut` spoken ones: where both halves together cost least."""
    before = edit_costs(spoken[:cut], expected)
    after = edit_costs(spoken[cut:][::-1], expected[::-1])[::-1]
    return int((before + after).argmin())


def _settle(words: Sequence[Word], heard: Sequence[Sequence[str]], edges: list[int]) -> list[int]:
    """Move each border by up to two words to where the two slices beside it fit best together."""
    settled = list(edges)
    for index in range(1, len(edges) - 1):
        left, right = settled[index - 1], settled[index + 1]

        def edits(cut: int, left: int = left, right: int = right, index: int = index) -> float:
            sides = ((words[left:cut], heard[index - 1]), (words[cut:right], heard[index]))
            spelled = [([phone for _, phones in part for phone in phones], slice_) for part, slice_ in sides]
            return sum(phone_error_rate(phones, slice_) * len(phones) for phones, slice_ in spelled)

        choices = [cut for cut in range(settled[index] - 2, settled[index] + 3) if left < cut < right]
        settled[index] = min(choices, key=edits, default=settled[index])
    return settled
