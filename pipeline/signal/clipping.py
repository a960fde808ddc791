"""Clipping: flat tops, wherever the level lies now.

A converter or an amplifier that runs out of range returns its limit again and again. So the same extreme value
appears in many short runs; natural speech reaches its largest value once. This stays visible after the level is
lowered. It does not after a lossy codec or resampling, where the tops ripple: for those the distribution of
amplitudes gives the other signs. In clipped speech it piles up at the extreme, and the highest peaks hardly rise
above other loud samples.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.signal.frames import Floats, moving_mean

_FLAT = 0.004  # of the peak: about what one quantisation step is worth for 16-bit speech at -36 dBFS
_MIN_RUN = 3
_LOUD = 0.1  # of the peak
_CREST_DOUBTFUL_DB = 3.0
_SWAY_BLOCK_S = 0.005
_DENSITY_TOP = 0.03  # width of the top band, as a share of the peak


@dataclass(frozen=True)
class Clipping:
    """`share`: samples in flat tops / all samples above a tenth of the peak. `events`: how many flat tops.

    `pile_up`: amplitude density in the top 3 % over the density in the 6 % below it; natural speech stays under 1.
    `crest_db`: by how much the highest peaks rise over other loud samples.
    """

    share: float
    events: int
    pile_up: float
    crest_db: float


def measure_clipping(samples: Floats, sample_rate_hz: int) -> Clipping:
    """`samples`: finite mono without DC, original rate, (n,)."""
    if not len(samples):
        return Clipping(0.0, 0, 0.0, 20.0)
    flat = events = above = 0
    for peak, half in ((float(samples.max()), samples), (-float(samples.min()), -samples)):
        if peak <= 1e-5:
            continue
        lengths = _run_lengths(np.flatnonzero(half >= peak * (1 - _FLAT)))
        tops = lengths[lengths >= _MIN_RUN]
        if len(tops) > 1:  # one flat top is how a slow wave looks at its maximum
            flat += int(tops.sum())
            events += len(tops)
        above += int(np.count_nonzero(half > _LOUD * peak))
    magnitudes = np.abs(samples)
    loud = _loud(magnitudes)
    crest_db = _crest_db(loud)
    if crest_db < _CREST_DOUBTFUL_DB:  # a sway below all voices, from breath or a hand, keeps a level of its own
        crest_db = max(crest_db, _crest_db(_loud(np.abs(_without_sway(samples, sample_rate_hz)))))
    return Clipping(flat / max(above, 1), events, _pile_up(loud, magnitudes), crest_db)


def _loud(magnitudes: Floats) -> Floats:
    loud: Floats = magnitudes[magnitudes > _LOUD * magnitudes.max(initial=0.0)]
    return loud


def _without_sway(samples: Floats, sample_rate_hz: int) -> Floats:
    """Less its mean over the 20 ms around: what is slower than any voice goes."""
    block = max(1, round(_SWAY_BLOCK_S * sample_rate_hz))
    count = len(samples) // block
    if count < 4:
        return samples
    used = samples[: count * block].reshape(count, block)
    slow = moving_mean(used.mean(axis=1, dtype=np.float32), 4).astype(np.float32)
    swayless: Floats = (used - slow[:, None]).ravel()
    return swayless


def _pile_up(loud: Floats, magnitudes: Floats) -> float:
    highest = loud[loud > 0.5 * loud.max(initial=0.0)]
    highest = highest if len(highest) > 3 else magnitudes  # a single click stands above everything
    peak = float(np.partition(highest, -3)[-3]) if len(highest) > 3 else 0.0
    if peak <= 1e-5:
        return 0.0
    top = int(np.count_nonzero(highest > peak * (1 - _DENSITY_TOP)))
    below = int(np.count_nonzero(highest > peak * (1 - 3 * _DENSITY_TOP))) - top
    return 2 * top / max(below, 10)


def _crest_db(loud: Floats) -> float:
    if len(loud) < 1000:
        return 20.0
    usual, highest = np.sort(loud)[[int(0.9 * len(loud)), int(0.998 * len(loud))]]
    return float(20 * np.log10(highest / usual))


def _run_lengths(places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Lengths of the runs of neighbouring samples among the few that are near the peak."""
    borders = np.flatnonzero(np.diff(places) > 1) + 1
    return np.diff(np.concatenate([[0], borders, [len(places)]]))
