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
    """Levenshtein distance."""
    return int(edit_costs(first, second)[-1])
