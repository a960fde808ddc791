"""Least numbers of changes between two sequences: phones, letters, words."""

from collections import deque
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def edit_costs(first: Sequence[Hashable], second: Sequence[Hashable]) -> NDArray[np.int64]:
    """Levenshtein distance of `first` to every beginning of `second`: (len(second) + 1,)."""
    return deque(_rows(first, second), maxlen=1)[0]


def _rows(first: Sequence[Hashable], second: Sequence[Hashable]) -> Iterator[NDArray[np.int64]]:
    """Of every beginning of `first`, from the empty one on, the distances to every beginning of `second`."""
    number: dict[Hashable, int] = {}
    target = np.array([number.setdefault(item, len(number)) for item in second], dtype=np.int64)
    places = np.arange(len(second) + 1)
    row = places
    yield row
    for count, item in enumerate(first, 1):
        best = np.minimum(row[:-1] + (target != number.get(item, -1)), row[1:] + 1)
        # insertions run along the row: a running minimum of best[j] - j
        row = np.minimum.accumulate(np.concatenate([[count], best]) - places) + places
        yield row


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


def align(first: Sequence[Hashable], second: Sequence[Hashable]) -> list[tuple[int | None, int | None]]:
    """Places of both that belong together along the least changes; None beside what only one of them has.

    Of several ways the one whose gaps lie latest, and so together: a text that goes on is one gap at its end.
    """
    rows = list(_rows(first, second))
    pairs: list[tuple[int | None, int | None]] = []
    i, j = len(first), len(second)
    while i or j:
        here = rows[i][j]
        if i and rows[i - 1][j] + 1 == here:
            i -= 1
            pairs.append((i, None))
        elif j and rows[i][j - 1] + 1 == here:
            j -= 1
            pairs.append((None, j))
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]
