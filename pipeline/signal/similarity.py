"""Whether two clips are the same recording: a fingerprint that survives gain, formats, lossy codecs and trimmed edges.

Haitsma and Kalker (2002): the sign of the difference of neighbouring bands' energies, differenced over time. Two
readings of one sentence agree in little more than half of the bits, copies of one recording in nearly all.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pipeline.signal.frames import Frames, band_bins, to_db

FRAMES = 192  # about two seconds from the first speech on
_BANDS = 33
_STEP = 4  # frames between the two that are compared
_REACH = 12  # lags tried, frames each way: VAD edges differ between copies

Fingerprint = npt.NDArray[np.uint16]  # (frames, 2)
_BITS = np.array([value.bit_count() for value in range(1 << 16)], np.uint8)


def fingerprint(frames: Frames, start_frame: int) -> Fingerprint:
    """32 bits per 10 ms, from `start_frame` on; (FRAMES + 2 lags at most, 2)."""
    edges = np.geomspace(250, 3800, _BANDS + 1)
    first = max(0, start_frame - _REACH)
    power = frames.power[:, first : first + FRAMES + 2 * _REACH + _STEP]
    energy = np.stack([power[_bins(low, high)].sum(axis=0) for low, high in pairwise(edges)])
    slope = np.diff(to_db(energy), axis=0)  # (32, frames)
    bits = slope[:, _STEP:] > slope[:, :-_STEP]
    return np.ascontiguousarray(np.packbits(bits, axis=0).T).view(np.uint16)


def _bins(low_hz: float, high_hz: float) -> slice:
    chosen = band_bins(low_hz, high_hz)
    return slice(chosen.start, max(chosen.stop, chosen.start + 1))


def bit_error_rate(one: Fingerprint, other: Fingerprint) -> float:
    """Share of differing bits at the best lag: near 0 for copies, near 0.5 for different recordings."""
    best = 1.0
    for lag in range(-2 * _REACH, 2 * _REACH + 1):
        first = one[max(0, lag) :]
        second = other[max(0, -lag) :]
        size = min(len(first), len(second))
        if size < min(len(one), len(other)) // 2 or size < 20:
            continue
        wrong = int(_BITS[first[:size] ^ second[:size]].sum())
        best = min(best, wrong / (32 * size))
    return best
