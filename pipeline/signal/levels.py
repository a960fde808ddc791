"""Level and peaks, and the gain and limiting that bring speech to one loudness."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.ndimage import minimum_filter1d

from pipeline.signal.frames import FLOOR_POWER, Floats

_OVERSAMPLING = 8  # ITU-R BS.1770-5 annex 2 asks for four at 48 kHz; four at 22 kHz would miss up to 0.7 dB
_REACH = 24  # samples on either side that decide about a value between two; BS.1770's example has 6
_NEAR = 0.6  # of the level asked about: what lies between samples that are all lower does not reach it
_CEILING_SHARE = 0.985  # an eighth of a sample beside a peak it is up to 0.15 dB lower
_LIMITER_BLOCK_S = 0.001
_LIMITER_ROUNDS = 3  # a gain that falls makes a new peak now and then, of a tenth of a decibel
_LIMITER_REACH_BLOCKS = 5  # the gain starts to fall 5 ms before a peak: no step is heard


@dataclass(frozen=True)
class Levels:
    """Of mono samples as recorded, dB relative to full scale."""

    peak_dbfs: float
    true_peak_dbfs: float
    rms_dbfs: float


@dataclass(frozen=True)
class Normalised:
    """`samples` (n,) at the target level, and what it took."""

    samples: Floats
    gain_db: float
    limited_db: float  # most that the limiter took off at any moment
    limited_share: float  # of its milliseconds


def measure_levels(samples: Floats, sample_rate_hz: int) -> Levels:
    """`samples`: finite mono, (n,)."""
    if not len(samples):
        return Levels(-120.0, -120.0, -120.0)
    peak = max(float(samples.max()), -float(samples.min()))
    true_peak = float(_block_peaks(samples, sample_rate_hz, peak).max(initial=peak))
    return Levels(amplitude_db(peak), amplitude_db(true_peak), rms_dbfs(samples))


def amplitude_db(amplitude: float) -> float:
    return float(20 * np.log10(max(amplitude, 1e-6)))


def rms_dbfs(samples: Floats) -> float:
    power = float(np.dot(samples, samples)) / max(len(samples), 1)
    return float(10 * np.log10(max(power, FLOOR_POWER)))


def normalise(
    samples: Floats, sample_rate_hz: int, speech_dbfs: float, target_dbfs: float, peak_dbfs: float
) -> Normalised:
    """Gain from `speech_dbfs`, the level of the speech alone, to `target_dbfs`, then a look-ahead limiter."""
    gain_db = target_dbfs - speech_dbfs
    limited = samples * np.float32(10 ** (gain_db / 20))
    ceiling, block = 10 ** (peak_dbfs / 20), _block_samples(sample_rate_hz)
    gains = np.ones(-(-len(samples) // block), np.float32)
    for _ in range(_LIMITER_ROUNDS):
        more = _limiter_gains(limited, sample_rate_hz, ceiling)
        if more is None:
            break
        limited, gains = _turned_down(limited, more, block), gains * more
    limited_db = 0.0 - amplitude_db(float(gains.min(initial=1.0)))  # 0.0, not -0.0, where nothing was limited
    return Normalised(limited, gain_db, limited_db, float((gains < 0.999).mean()))


def _block_peaks(samples: Floats, sample_rate_hz: int, level: float) -> Floats:
    """True peak of every millisecond, (blocks,): zero where it is far below `level`."""
    block = _block_samples(sample_rate_hz)
    count = -(-len(samples) // block)
    peaks = np.zeros(count, np.float32)
    near = np.flatnonzero(np.abs(samples) > level * _NEAR) // block
    if not len(near):
        return peaks
    loud = near[np.concatenate([[True], np.diff(near) > 0])]
    padded = np.zeros(_REACH + count * block + _REACH, np.float32)
    padded[_REACH : _REACH + len(samples)] = samples
    around = np.lib.stride_tricks.sliding_window_view(padded, block + 2 * _REACH)[::block][loud]
    between = around @ _interpolation(block)  # (loud, 8 block)
    peaks[loud] = np.maximum(between.max(axis=1), -between.min(axis=1))
    return peaks


def _block_samples(sample_rate_hz: int) -> int:
    return max(1, round(sample_rate_hz * _LIMITER_BLOCK_S))


@cache
def _interpolation(block: int) -> Floats:
    """(block + 2 reach, 8 block): a block and its surroundings -> its samples and the eighths between them."""
    eighths = np.arange(_OVERSAMPLING) / _OVERSAMPLING
    places = (np.arange(block)[:, None] + _REACH + eighths).ravel()
    distances = np.arange(block + 2 * _REACH)[:, None] - places
    inside = np.clip(1 - (distances / _REACH) ** 2, 0, None)
    return np.asarray(np.sinc(distances) * np.i0(7.0 * np.sqrt(inside)) / np.i0(7.0) * (inside > 0), np.float32)


def _limiter_gains(samples: Floats, sample_rate_hz: int, ceiling: float) -> Floats | None:
    """A gain per millisecond, (blocks,): the minimum over its neighbourhood of what each needs, smoothed over it.

    None where nothing is above the ceiling.
    """
    peaks = _block_peaks(samples, sample_rate_hz, ceiling)
    if peaks.max(initial=0.0) <= ceiling:
        return None
    needed = np.minimum(1.0, ceiling * _CEILING_SHARE / np.maximum(peaks, 1e-9))
    reach = _LIMITER_REACH_BLOCKS
    lowest = minimum_filter1d(np.pad(needed, reach, constant_values=1.0), 2 * reach + 1, mode="constant", cval=1.0)
    kernel = np.hanning(2 * reach + 3)[1:-1]
    smooth = np.convolve(lowest, kernel / kernel.sum(), mode="valid")  # (blocks,): never above what its own needs
    return np.minimum(smooth, 1.0).astype(np.float32)


def _turned_down(samples: Floats, gains: Floats, block: int) -> Floats:
    """Samples times the lines between the gains at the centres of the blocks; most blocks need none, and are left."""
    edged = np.concatenate([gains[:1], gains, gains[-1:]])
    touched = np.flatnonzero(np.minimum(np.minimum(edged[:-2], edged[2:]), gains) < 1.0)
    before, own, after = (edged[touched + offset, None] for offset in range(3))
    share = ((np.arange(block) + 0.5) / block - 0.5).astype(np.float32)  # from the centre
    lines = own + np.where(share < 0, own - before, after - own) * share
    turned = np.zeros(len(gains) * block, np.float32)
    turned[: len(samples)] = samples
    turned.reshape(len(gains), block)[touched] *= lines
    return turned[: len(samples)]
