"""Dropouts: sound that stops within one sample and returns within one sample.

A lost packet, a full buffer or a bad cut leaves zeros, or one held value, with the speech cut off at both edges. A
noise gate also leaves zeros, but fades; digital silence between sentences has quiet edges. So a hole counts when the
signal beside it is loud.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.signal.frames import Floats

_MIN_HOLE_S = 0.002
_MAX_HOLE_S = 0.6
_EDGE_S = 0.004
_EDGE_DB = -26.0  # relative to the active level
_JUMP_DB = -34.0


@dataclass(frozen=True)
class Dropouts:
    """`count` holes with abrupt edges; `lost_share` of the clip's samples in them."""

    count: int
    lost_share: float


def measure_dropouts(samples: Floats, sample_rate_hz: int, active_dbfs: float) -> Dropouts:
    """`samples`: finite mono at the original rate, (n,)."""
    shortest = max(4, int(_MIN_HOLE_S * sample_rate_hz))
    starts, ends = _held(samples)
    longest = _MAX_HOLE_S * sample_rate_hz
    chosen = (ends - starts >= shortest) & (ends - starts <= longest)
    chosen &= (starts > 0) & (ends < len(samples))
    if not chosen.any():
        return Dropouts(0, 0.0)
    active = 10 ** (active_dbfs / 20)
    peak = float(np.abs(samples).max(initial=0.0))
    least_jump = max(active * 10 ** (_JUMP_DB / 20), 4 * _quantisation_step(samples))
    reach = max(2, int(_EDGE_S * sample_rate_hz))
    count = lost = 0
    for start, end in zip(starts[chosen], ends[chosen], strict=True):
        if abs(samples[start]) > 0.9 * peak:
            continue  # a flat top: clipping
        before, after = samples[max(0, start - reach) : start], samples[end : end + reach]
        loud = max(_rms(before), _rms(after)) > active * 10 ** (_EDGE_DB / 20)
        jump = max(abs(samples[start] - samples[start - 1]), abs(samples[end] - samples[start]))
        if loud and jump > least_jump:
            count += 1
            lost += int(end - start)
    return Dropouts(count, lost / max(len(samples), 1))


def _held(samples: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Starts and ends of the stretches that hold one value, two samples or more."""
    still = np.flatnonzero(samples[1:] == samples[:-1])
    borders = np.flatnonzero(np.diff(still) > 1)
    starts = still[np.concatenate([[0], borders + 1])] if len(still) else still
    ends = still[np.concatenate([borders, [-1]])] + 2 if len(still) else still
    return starts, ends


def _quantisation_step(samples: Floats) -> float:
    """Of the format, as the data show it: 8-bit speech holds its value for milliseconds without any loss."""
    steps = np.abs(np.diff(samples[: 1 << 18]))
    return float(steps[steps > 1e-7].min(initial=0.1))


def _rms(samples: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(samples)))) if len(samples) else 0.0
