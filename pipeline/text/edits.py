"""Least numbers of changes between two sequences: phones, letters, words."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray


def edit_costs(first: Sequence[Hashable], second: Sequence[Hashable]) -> NDArray[np.int64]:
    """Levenshtein distance of `first` to every beginning of `second`: (len(second) + 1,)."""
    number: dict[Hashable, int] = {}
    target = np.array([number.setdefault(item, len(number)) for item in second], dtype=np.int64)
    places = np.arange(len(second) + 1)
    row = places
    for count, item in enumerate(first, 1):
        best = np.minimum(row[:-1] + (target != number.get(item, -1)), row[1:] + 1)
        # insertions run along the row: a running minimum of best[j] - j
        row = np.minimum.accumulate(np.concatenate([[count], best]) - places) + places
    return row


def edit_distance(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Levenshtein distance, by Myers' bit vectors (1999, in the form of Hyyroe 2003): a column is one long integer."""
    if not first:
        return len(second)
    places: dict[Hashable, int] = {}  # of every item in `first`, as bits
    for at, item in enumerate(first):
        places[item] = places.get(item, 0) | 1 << at
    every, last = (1 << len(first)) - 1, 1 << len(first) - 1
    rises, falls, distance = every, 0, len(first)  # where a column grows or shrinks by one from row to row
    for item in second:
        equal = places.get(item, 0)
        diagonal = (((equal & rises) + rises) ^ rises) | equal
        up, down = falls | ~(diagonal | rises), rises & diagonal
        distance += bool(up & last) - bool(down & last)
        up, down = up << 1 | 1, down << 1
        vertical = equal | falls
        rises, falls = (down | ~(vertical | up)) & every, up & vertical & every
    return distance
