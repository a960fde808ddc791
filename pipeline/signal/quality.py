"""How alike two recordings of the same words are, and how sure we can be of a difference.

PESQ and STOI compare signals on one clock, so they are used where that holds: a recording and its own copy-synthesis.
MCD and the pitch error follow a time alignment of their own (DTW) and also serve where the timing differs.

Signals are mono float arrays (samples,), full scale 1.0. A measure returns None where it cannot be taken: silence,
too short.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.fft import dct, irfft, next_fast_len, rfft

Signal = npt.NDArray[Any]  # float32 or float64
Frames = npt.NDArray[np.float64]  # (frames, values)

PESQ_RATE_HZ = 16000
STOI_MIN_S = 0.5  # below that pystoi has no 384 ms segment left after it removed the silent frames
ALIGN_HOP_S = 0.001
ALIGN_BANDS = 20
CEPSTRAL_ORDER = 24
MCD_HOP_S = 0.005
PITCH_HOP_S = 0.010
PITCH_MIN_HZ = 60.0
PITCH_MAX_HZ = 500.0
VOICED_PERIODICITY = 0.45  # normalised autocorrelation from which a frame counts as voiced


@dataclass(frozen=True)
class Aligned:
    """Two signals of equal length on one clock; ``delay_samples`` > 0: the second one came late."""

    reference: Signal
    other: Signal
    delay_samples: int


def align_globally(
    reference: Signal, other: Signal, max_delay_samples: int, sample_rate_hz: int = PESQ_RATE_HZ
) -> Aligned:
    """Undo one constant delay and cut both signals to the common part.

    A vocoder may lag by a few milliseconds, which is inaudible but costs STOI everything: 50 ms turn 1.0 into 0.3.
    The delay is where the band energies agree best, then within a millisecond where the waves do. The waves alone would
    mislead: a decoder that makes its own phases agrees best some pitch periods away from the truth.
    """
    hop = max(1, round(ALIGN_HOP_S * sample_rate_hz))
    first, second = (_band_energies(signal, sample_rate_hz) for signal in (reference, other))
    coarse = 0
    if len(first) and len(second):
        coarse = hop * _peak_lag(first, second, range(-(max_delay_samples // hop), max_delay_samples // hop + 1))
    nearby = range(max(-max_delay_samples, coarse - hop), min(max_delay_samples, coarse + hop) + 1)
    delay = _peak_lag(reference[:, None], other[:, None], nearby)
    reference_start, other_start = max(0, -delay), max(0, delay)
    length = min(len(reference) - reference_start, len(other) - other_start)
    return Aligned(
        reference[reference_start : reference_start + length], other[other_start : other_start + length], delay
    )


def _band_energies(signal: Signal, sample_rate_hz: int) -> Frames:
    """Log mel energies every millisecond without each band's mean, (frames, bands)."""
    magnitudes = spectrogram(signal, sample_rate_hz, hop_s=ALIGN_HOP_S, window_s=0.016)
    if not len(magnitudes):
        return magnitudes
    filters = mel_filters(sample_rate_hz, 2 * (magnitudes.shape[1] - 1), ALIGN_BANDS)
    energies = magnitudes @ filters.T
    logs: Frames = np.log(energies + 1e-3 * energies.max() + 1e-12)
    centred: Frames = logs - logs.mean(axis=0)
    return centred


def _peak_lag(first: Frames, second: Frames, lags: range) -> int:
    """The lag (rows) at which the cross-correlation, summed over columns, is highest; > 0: ``second`` came late."""
    size = next_fast_len(len(first) + len(second))
    spectrum = (np.conj(rfft(first, size, axis=0)) * rfft(second, size, axis=0)).sum(axis=1)
    correlation = irfft(spectrum, size)
    reachable = [lag for lag in lags if abs(lag) < size // 2]
    return max(reachable, key=lambda lag: correlation[lag], default=0)


def pesq_wb(reference: Signal, degraded: Signal) -> float | None:
    """ITU-T P.862.2 wide-band PESQ (MOS-LQO, 1.04 to 4.64) of 16 kHz signals."""
    from pesq import NoUtterancesError, PesqError, pesq

    if min(len(reference), len(degraded)) < PESQ_RATE_HZ // 4 or not np.any(degraded):
        return None
    try:
        return float(pesq(PESQ_RATE_HZ, reference, degraded, "wb"))
    except (NoUtterancesError, PesqError):
        return None


def stoi(reference: Signal, degraded: Signal, sample_rate_hz: int) -> float | None:
    """Short-time objective intelligibility (Taal 2011), about 0 to 1; signals must be aligned and equally long."""
    from pystoi import stoi as measure

    if len(reference) < STOI_MIN_S * sample_rate_hz or not np.any(reference):
        return None
    return float(measure(reference, degraded, sample_rate_hz, extended=False))


def mel_cepstral_distortion(reference: Signal, other: Signal, sample_rate_hz: int) -> float | None:
    """Mean mel-cepstral distortion in dB along the best time alignment; c0 (loudness) is left out. Kubichek 1993."""
    first, second = mel_cepstra(reference, sample_rate_hz), mel_cepstra(other, sample_rate_hz)
    if not len(first) or not len(second):
        return None
    distances = _euclidean(first[:, 1:], second[:, 1:])
    rows, columns = dtw_path(distances)
    return float(10.0 / np.log(10.0) * np.sqrt(2.0) * distances[rows, columns].mean())


def mel_cepstra(signal: Signal, sample_rate_hz: int) -> Frames:
    """Cepstra (frames, order + 1) of 40 log mel bands every 5 ms, scaled so that log = c0 + 2 * sum c_n cos."""
    magnitudes = spectrogram(signal, sample_rate_hz, hop_s=MCD_HOP_S)
    if not len(magnitudes):
        return np.zeros((0, CEPSTRAL_ORDER + 1))
    bands = mel_filters(sample_rate_hz, 2 * (magnitudes.shape[1] - 1), 40)
    log_bands = np.log(np.maximum(magnitudes @ bands.T, 1e-5))
    cepstra: Frames = dct(log_bands, type=2, axis=1)[:, : CEPSTRAL_ORDER + 1] / (2 * bands.shape[0])
    return cepstra


def spectrogram(signal: Signal, sample_rate_hz: int, *, hop_s: float, window_s: float = 0.025) -> Frames:
    """Magnitudes (frames, bins) of a periodic Hann window."""
    window_samples, hop = round(window_s * sample_rate_hz), round(hop_s * sample_rate_hz)
    if len(signal) < window_samples:
        return np.zeros((0, 0))
    n_fft = 1 << (window_samples - 1).bit_length()
    frames = np.lib.stride_tricks.sliding_window_view(signal, window_samples)[::hop]
    magnitudes: Frames = np.abs(rfft(frames * hann(window_samples), n_fft, axis=1))
    return magnitudes


def hann(window_samples: int) -> npt.NDArray[np.float64]:
    """The periodic Hann window, (window_samples,). `scipy.signal` has it too and takes half a second to import."""
    window: npt.NDArray[np.float64] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window_samples) / window_samples)
    return window


def mel_filters(sample_rate_hz: int, n_fft: int, bands: int) -> Frames:
    """Triangles of equal height over the HTK mel scale, (bands, bins)."""
    top = 2595.0 * np.log10(1.0 + sample_rate_hz / 2 / 700.0)
    corners_hz = 700.0 * (10.0 ** (np.linspace(0.0, top, bands + 2) / 2595.0) - 1.0)
    bins_hz = np.linspace(0.0, sample_rate_hz / 2, n_fft // 2 + 1)
    low, centre, high = corners_hz[:-2, None], corners_hz[1:-1, None], corners_hz[2:, None]
    rising, falling = (bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    normalised: Frames = filters / np.maximum(filters.sum(axis=1, keepdims=True), 1e-12)
    return normalised


def dtw_path(distances: Frames) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The cheapest monotone path through (N, M) distances: row and column indices.

    Costs are filled one anti-diagonal at a time, so the inner loop is numpy's. One of a matrix that lies row after row
    is every (columns - 1)th number.
    """
    rows, columns = distances.shape
    cost = np.full((rows + 1, columns + 1), np.inf)
    cost[0, 0] = 0.0
    flat, costs = np.ascontiguousarray(distances).reshape(-1), cost.reshape(-1)
    for diagonal in range(rows + columns - 1):
        first, last = max(0, diagonal - columns + 1), min(rows, diagonal + 1) - 1  # rows
        before, end = first * columns + diagonal, last * columns + diagonal + 1
        reached = np.minimum(costs[before:end:columns], costs[before + 1 : end + 1 : columns])
        np.minimum(reached, costs[before + columns + 1 : end + columns + 1 : columns], out=reached)
        here = slice(before - first, end - last, columns - 1 or None)
        costs[before + columns + 2 : end + columns + 2 : columns] = flat[here] + reached
    return _walk_back(cost)


def _walk_back(cost: Frames) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    i, j = cost.shape[0] - 1, cost.shape[1] - 1
    path = [(i - 1, j - 1)]
    while i > 1 or j > 1:
        diagonal, up, left = cost[i - 1, j - 1], cost[i - 1, j], cost[i, j - 1]
        if diagonal <= up and diagonal <= left:
            i, j = i - 1, j - 1
        elif up <= left:
            i -= 1
        else:
            j -= 1
        path.append((i - 1, j - 1))
    steps = np.array(path[::-1])
    return steps[:, 0], steps[:, 1]


def _euclidean(first: Frames, second: Frames) -> Frames:
    squared = (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2.0 * first @ second.T
    distances: Frames = np.sqrt(np.maximum(squared, 0.0))
    return distances


@dataclass(frozen=True)
class PitchError:
    """How far two pitch tracks are apart along the time alignment of their spectra.

    Attributes:
        rmse_cents: over frames that both call voiced; 100 cents are a semitone.
        correlation: of log pitch over the same frames; None below 10 of them.
        voicing_error: share of frames that one calls voiced and the other not.
    """

    rmse_cents: float
    correlation: float | None
    voicing_error: float


def pitch_error(reference: Signal, other: Signal, sample_rate_hz: int) -> PitchError | None:
    """Compare the pitch of two readings of one sentence; None where neither has 10 voiced frames in common."""
    first, second = pitch_track(reference, sample_rate_hz), pitch_track(other, sample_rate_hz)
    step = round(PITCH_HOP_S / MCD_HOP_S)
    cepstra = [mel_cepstra(one, sample_rate_hz)[::step] for one in (reference, other)]
    counts = [min(len(track), len(frames)) for track, frames in zip((first, second), cepstra, strict=True)]
    if not all(counts):
        return None
    rows, columns = dtw_path(_euclidean(cepstra[0][: counts[0], 1:], cepstra[1][: counts[1], 1:]))
    one, two = first[rows], second[columns]
    both = (one > 0) & (two > 0)
    if both.sum() < 10:
        return None
    logs = np.log2(one[both]), np.log2(two[both])
    rmse = float(1200.0 * np.sqrt(np.mean((logs[0] - logs[1]) ** 2)))
    spreads = float(logs[0].std() * logs[1].std())
    correlation = float(np.corrcoef(*logs)[0, 1]) if spreads > 1e-9 else None
    return PitchError(rmse, correlation, float(np.mean((one > 0) != (two > 0))))


def pitch_track(signal: Signal, sample_rate_hz: int) -> npt.NDArray[np.float64]:
    """Pitch in Hz every 10 ms, 0 where unvoiced: peak of the window-corrected autocorrelation (Boersma 1993)."""
    window_samples, hop = round(3.0 / PITCH_MIN_HZ * sample_rate_hz), round(PITCH_HOP_S * sample_rate_hz)
    if len(signal) < window_samples:
        return np.zeros(0)
    frames = np.lib.stride_tricks.sliding_window_view(signal.astype(np.float64), window_samples)[::hop]
    window = hann(window_samples)
    frames = (frames - frames.mean(axis=1, keepdims=True)) * window
    n_fft = next_fast_len(2 * window_samples)
    correlation = irfft(np.abs(rfft(frames, n_fft, axis=1)) ** 2, n_fft, axis=1)
    of_window = irfft(np.abs(rfft(window, n_fft)) ** 2, n_fft)
    shortest, longest = int(sample_rate_hz / PITCH_MAX_HZ), int(np.ceil(sample_rate_hz / PITCH_MIN_HZ))
    energy = np.maximum(correlation[:, :1], 1e-12)
    lags = correlation[:, shortest : longest + 1] / energy / (of_window[shortest : longest + 1] / of_window[0])
    lags = lags - 0.01 * np.log2(np.arange(shortest, longest + 1) / shortest)  # prefer the higher octave on a near tie
    best = lags.argmax(axis=1)
    periods = shortest + best + _parabolic_shift(lags, best)
    loud = energy[:, 0] > 1e-4 * energy.max()
    voiced = (lags[np.arange(len(lags)), best] > VOICED_PERIODICITY) & loud
    return np.where(voiced, sample_rate_hz / periods, 0.0)


def _parabolic_shift(values: Frames, peak: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Where between samples the peak lies, -0.5 to 0.5."""
    inside = np.clip(peak, 1, values.shape[1] - 2)
    row = np.arange(len(values))
    left, middle, right = values[row, inside - 1], values[row, inside], values[row, inside + 1]
    bend = left - 2.0 * middle + right
    shift = np.where(np.abs(bend) > 1e-12, 0.5 * (left - right) / np.where(bend == 0, 1.0, bend), 0.0)
    return np.where(inside == peak, np.clip(shift, -0.5, 0.5), 0.0)


@dataclass(frozen=True)
class Interval:
    """A mean and the range it would move in if other clips of the same kind had been measured."""

    mean: float
    low: float
    high: float


def bootstrap(values: Sequence[float], *, seed: int = 0, draws: int = 2000, level: float = 0.95) -> Interval:
    """Percentile bootstrap of the mean. With very few values the interval is as wide as they are, not wider."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        raise ValueError("no values to draw from")
    picks = np.random.default_rng(seed).integers(0, len(array), size=(draws, len(array)))
    means = array[picks].mean(axis=1)
    tail = (1.0 - level) / 2
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(float(array.mean()), float(low), float(high))


def paired_bootstrap(new: Sequence[float], old: Sequence[float], *, seed: int = 0, draws: int = 2000) -> Interval:
    """Bootstrap of the mean difference new - old over the same clips; pairing removes how hard each clip is."""
    if len(new) != len(old):
        raise ValueError(f"{len(new)} values against {len(old)}: not the same clips")
    return bootstrap([a - b for a, b in zip(new, old, strict=True)], seed=seed, draws=draws)
