"""Level, offset and peaks, and the gain and limiting that bring speech to one loudness."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr

from pipeline.signal.frames import FLOOR_POWER, Floats

_OVERSAMPLING = 4  # ITU-R BS.1770-5 annex 2 asks for at least four
_BLOCK = 1024
_LOUDEST_BLOCKS = 6
_MARGIN = 128
_NEAR_CEILING = 0.6
_JOINED_BLOCKS = 8
_LIMITER_BLOCK_S = 0.001
_LIMITER_REACH_BLOCKS = 5  # the gain starts to fall 5 ms before a peak: no step is heard


@dataclass(frozen=True)
class Levels:
    """Of mono samples as recorded: dB relative to full scale; `dc_offset` as a share of full scale."""

    peak_dbfs: float
    true_peak_dbfs: float
    rms_dbfs: float
    dc_offset: float


@dataclass(frozen=True)
class Normalised:
    """`samples` (n,) at the target level, and what it took."""

    samples: Floats
    gain_db: float
    limited_db: float  # most that the limiter took off at any moment
    limited_share: float  # of the samples


def measure_levels(samples: Floats, sample_rate_hz: int) -> Levels:
    """`samples`: finite mono, (n,)."""
    if not len(samples):
        return Levels(-120.0, -120.0, -120.0, 0.0)
    mean = float(samples.mean(dtype=np.float64))
    power = float(np.dot(samples, samples)) / len(samples)
    peak = float(np.abs(samples).max())
    true_peak = _highest_true_peak(samples, sample_rate_hz, peak)
    return Levels(amplitude_db(peak), amplitude_db(true_peak), 10 * np.log10(max(power, FLOOR_POWER)), mean)


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
    raised = (samples * np.float32(10 ** (gain_db / 20))).astype(np.float32)
    ceiling = 10 ** (peak_dbfs / 20)
    gains = _limiter_gains(raised, sample_rate_hz, ceiling)
    limited = raised * gains
    return Normalised(limited, gain_db, -amplitude_db(float(gains.min(initial=1.0))), float((gains < 0.999).mean()))


def _highest_true_peak(samples: Floats, sample_rate_hz: int, peak: float) -> float:
    """Between the samples of the loudest blocks; elsewhere the signal is too far below to matter."""
    count = len(samples) // _BLOCK
    if count <= _LOUDEST_BLOCKS:
        return float(_true_peaks(samples, sample_rate_hz).max(initial=peak))
    blocks = np.abs(samples[: count * _BLOCK].reshape(count, _BLOCK)).max(axis=1)
    highest = peak
    for block in np.argpartition(blocks, -_LOUDEST_BLOCKS)[-_LOUDEST_BLOCKS:]:
        start = max(0, int(block) * _BLOCK - _MARGIN)
        peaks = _true_peaks(samples[start : (int(block) + 1) * _BLOCK + _MARGIN], sample_rate_hz)
        inner = peaks[_OVERSAMPLING * _MARGIN : -_OVERSAMPLING * _MARGIN]  # a cut edge rings
        highest = max(highest, float(inner.max(initial=0.0)))
    return highest


def _true_peaks(samples: Floats, sample_rate_hz: int) -> Floats:
    """Magnitude of the samples at four times the rate, (4 n,)."""
    raised = soxr.resample(samples, sample_rate_hz, sample_rate_hz * _OVERSAMPLING, quality="MQ")
    return np.asarray(np.abs(raised), dtype=np.float32)


def _runs(blocks: npt.NDArray[np.int64], gap: int) -> list[tuple[int, int]]:
    """First and last of each run of block numbers, runs closer than `gap` joined."""
    if not len(blocks):
        return []
    cuts = np.flatnonzero(np.diff(blocks) > gap)
    firsts, lasts = [blocks[0], *blocks[cuts + 1]], [*blocks[cuts], blocks[-1]]
    return [(int(first), int(last)) for first, last in zip(firsts, lasts, strict=True)]


def _limiter_gains(samples: Floats, sample_rate_hz: int, ceiling: float) -> Floats:
    """A gain per sample, (n,): the minimum over the neighbourhood of what each millisecond needs, smoothed over it."""
    block = max(1, round(sample_rate_hz * _LIMITER_BLOCK_S))
    count = -(-len(samples) // block)
    padded = np.zeros(count * block, np.float32)
    padded[: len(samples)] = np.abs(samples)
    peaks = padded.reshape(count, block).max(axis=1)
    loud = np.flatnonzero(peaks > ceiling * _NEAR_CEILING)
    for first, last in _runs(loud, _JOINED_BLOCKS):  # elsewhere nothing between the samples can reach the ceiling
        start, end = max(0, first * block - _MARGIN), min(len(samples), (last + 1) * block + _MARGIN)
        true = _true_peaks(samples[start:end], sample_rate_hz)
        inner = np.zeros((last - first + 1) * block * _OVERSAMPLING, np.float32)
        part = true[_OVERSAMPLING * (first * block - start) :][: len(inner)]
        inner[: len(part)] = part
        peaks[first : last + 1] = np.maximum(peaks[first : last + 1], inner.reshape(last - first + 1, -1).max(axis=1))
    needed = np.minimum(1.0, ceiling * 0.995 / np.maximum(peaks, 1e-9))
    if needed.min(initial=1.0) >= 1.0:
        return np.ones(len(samples), np.float32)
    reach = _LIMITER_REACH_BLOCKS
    around = np.lib.stride_tricks.sliding_window_view(np.pad(needed, 2 * reach, constant_values=1.0), 2 * reach + 1)
    lowest = around.min(axis=1)  # (count + 2 reach,)
    kernel = np.hanning(2 * reach + 3)[1:-1]
    smooth = np.convolve(lowest, kernel / kernel.sum(), mode="valid")  # (count,): never above what its own block needs
    positions = (np.arange(count) + 0.5) * block
    return np.interp(np.arange(len(samples)), positions, smooth).astype(np.float32)
