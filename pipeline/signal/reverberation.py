"""Reverberation: how fast sound dies away when speech stops.

In a room no band can fall faster than the room lets it; speech itself falls faster than any usual room. So the
steepest falls of a clip show the room (blind estimation by decay rates: Ratnam et al. 2003, Wen et al. 2008). No
pause is needed.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.signal.frames import Floats, Frames, band_bins, moving_mean, quantile, to_db

_BANDS_HZ = ((250, 500), (500, 1000), (1000, 2000), (2000, 4000))
_FALL_FRAMES = 8  # 80 ms
_STEEPEST = 0.97  # quantile
# Fall over 80 ms (dB) -> RT60 (s): medians over dry voices convolved with exponentially decaying noise, at equal
# direct and reverberant energy and at -12 dB (`benchmarks/validation.py --rooms`). Beyond the ends nothing is known.
_FALLS_DB = (6.3, 7.0, 8.6, 10.7, 13.3, 20.6)
_RT60_S = (2.0, 1.5, 0.9, 0.6, 0.4, 0.2)


@dataclass(frozen=True)
class Reverberation:
    """`fall_db`: steep falls over 80 ms; `rt60_s`: the reverberation time that goes with it, None for silence.

    `span_db`: from the loudest to the quietest 50 ms; where it is small, noise hides the room.
    """

    fall_db: float
    rt60_s: float | None
    span_db: float


def measure_reverberation(frames: Frames) -> Reverberation:
    """The median over four octave bands of the 97th percentile of falls over 80 ms."""
    falls = [_steep_fall_db(to_db(frames.power[band_bins(*band)].sum(axis=0))) for band in _BANDS_HZ]
    fall_db = float(np.median(falls))
    levels_db = moving_mean(frames.level_db, 5)
    span_db = quantile(levels_db, 0.95) - quantile(levels_db, 0.005)
    rt60_s = float(np.interp(fall_db, _FALLS_DB, _RT60_S)) if fall_db > 0.5 else None
    return Reverberation(fall_db, rt60_s, span_db)


def _steep_fall_db(level_db: Floats) -> float:
    smooth = moving_mean(level_db, 3)
    if len(smooth) <= _FALL_FRAMES:
        return 0.0
    return quantile(smooth[:-_FALL_FRAMES] - smooth[_FALL_FRAMES:], _STEEPEST)
