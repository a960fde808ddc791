"""Whether tokens say a text: dropped, added and wrong phones, seen before anything is decoded to sound.

For bases whose codes tell their phone. Letters: T tokens, S phones of the text, P phone classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SILENCE = 0  # class of the content encoder
UNSAID, ADDED = 2.0, 2.5  # nats that it costs to leave a phone out, or to take a token for no phone of the text
LEAST = 0.01  # share of a class below which codes do not differ

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Coverage:
    """How tokens and text fit."""

    error_rate: float  # edits between the phones of the tokens and those of the text, per phone of the text
    longest_gap: int  # most phones of the text in a row that no token says
    longest_addition: int  # most tokens in a row that say nothing of the text


def compare(tokens: Sequence[int], text: Sequence[int], said: Floats) -> Coverage:
    """tokens (T,), classes of the text (S,) without pauses, share of every class in each code (codes, P)."""
    codes = np.asarray(tokens, dtype=np.int64)
    unsaid, added = _explain(said[codes], np.asarray(text, dtype=np.int64))
    errors = _edits(_spoken(said[codes].argmax(1)), text) / max(len(text), 1)
    return Coverage(round(errors, 4), _longest(unsaid), _longest(added))


def _spoken(classes: NDArray[np.int64]) -> list[int]:
    """Classes one after another, each once, without silence."""
    changes = np.flatnonzero(np.diff(classes, prepend=-1))
    return [int(one) for one in classes[changes] if one != SILENCE]


def _explain(said: Floats, text: NDArray[np.int64]) -> tuple[list[bool], list[bool]]:
    """Cheapest way to lay tokens (T, P) over a text (S,): phones left unsaid, and tokens that belong to none.

    Viterbi; place j means that the first j phones are done, the last of which may go on.
    """
    cost = -np.log(said + LEAST)
    places = np.arange(len(text) + 1)
    best = places * UNSAID
    steps: list[tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]] = []
    for one in cost:
        fits = np.concatenate([[np.inf], one[text]])
        within = np.minimum(fits, one[SILENCE])
        staying = best + np.minimum(within, ADDED)
        coming = np.concatenate([[np.inf], best[:-1]]) + fits
        reached = np.minimum(staying, coming)
        skipping = np.minimum.accumulate(reached - places * UNSAID) + places * UNSAID
        steps.append((coming <= staying, within > ADDED, skipping < reached - 1e-9))
        best = skipping
    unsaid, added, place = [True] * len(text), [], len(text)
    for comes, is_added, skips in reversed(steps):
        while skips[place]:
            place -= 1
        added.append(bool(is_added[place] and not comes[place]))
        if comes[place]:
            place -= 1
            unsaid[place] = False
    return unsaid, added[::-1]


def _edits(heard: Sequence[int], wanted: Sequence[int]) -> int:
    """Levenshtein distance."""
    row, target = np.arange(len(wanted) + 1), np.asarray(wanted)
    for number, item in enumerate(heard, 1):
        best = np.minimum(row[:-1] + (target != item), row[1:] + 1)
        # insertions run along the row: a running minimum of best[j] - j
        row = np.minimum.accumulate(np.concatenate([[number], best]) - np.arange(len(row))) + np.arange(len(row))
    return int(row[-1])


def _longest(flags: Sequence[bool]) -> int:
    """Length of the longest run of true values."""
    longest = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        longest = max(longest, run)
    return longest
