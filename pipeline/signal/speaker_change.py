"""Whether the speaker changes within a recording, from embeddings of overlapping stretches of 1.6 s."""

from __future__ import annotations

import numpy as np

from pipeline.signal.frames import Floats

_GUARD = 1  # partials around the change hold both speakers
_MIN_SIDE = 3  # fewer say more about the words than about the speaker


def likeliest_change(partials: Floats) -> float | None:
    """Cosine of the means before and after the most probable change, (partials, 256) -> None where it is too short."""
    sums = np.cumsum(np.concatenate([np.zeros((1, partials.shape[1])), partials]), axis=0)
    lowest: float | None = None
    for cut in range(_MIN_SIDE + _GUARD, len(partials) - _MIN_SIDE - _GUARD + 1):
        before, after = sums[cut - _GUARD], sums[-1] - sums[cut + _GUARD]
        cosine = float(before @ after / max(float(np.linalg.norm(before) * np.linalg.norm(after)), 1e-9))
        lowest = cosine if lowest is None else min(lowest, cosine)
    return lowest
