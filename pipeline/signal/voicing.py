"""Voicing and the pace of syllables: what tells speech from whisper, and speech from most other sounds."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.fft

from pipeline.signal.frames import (
    ANALYSIS_RATE_HZ,
    HOP_SAMPLES,
    Flags,
    Floats,
    Frames,
    band_bins,
    moving_mean,
    to_db,
)

_WINDOW = 512  # 32 ms: two periods at 65 Hz
_HOP = 2 * HOP_SAMPLES
_FFT = 768  # a window and the longest lag: nothing wraps around
_BAND_HZ = (65.0, 2000.0)
_LAGS = (ANALYSIS_RATE_HZ // 450, ANALYSIS_RATE_HZ // 65)  # pitch from 450 down to 65 Hz
_SILENT = 1e-10  # of power, 150 dB under a voice
VOICED = 0.6  # normalised autocorrelation; frames of whisper and hiss rarely reach it


@dataclass(frozen=True)
class Voicing:
    """`voiced_share` of the speech frames; `pitch_hz` median over them; `syllables` in them."""

    voiced_share: float
    pitch_hz: float
    syllables: int


def measure_voicing(frames: Frames, speech: Flags) -> Voicing:
    """Autocorrelation of the 65 to 2000 Hz band for pitch, peaks of the envelope for syllables."""
    if speech.sum() < 5:
        return Voicing(0.0, 0.0, 0)
    strength, pitch = _periodicity(frames.samples, len(speech))
    voiced = speech & (strength > VOICED)
    share = float(voiced.sum() / speech.sum())
    pitch_hz = float(np.median(pitch[voiced])) if voiced.any() else 0.0
    return Voicing(share, pitch_hz, syllable_nuclei(frames, speech))


def syllable_nuclei(frames: Frames, speech: Flags) -> int:
    """Peaks of the 300 to 3300 Hz envelope that rise 2 dB above the dips around them, inside speech."""
    level = moving_mean(to_db(frames.power[band_bins(300, 3300)].sum(axis=0)), 7)
    floor = np.median(level[speech]) - 12 if speech.any() else 0.0
    count, last_dip, candidate = 0, float(level[0]), -1
    levels, spoken = level.tolist(), speech.tolist()  # plain numbers: a loop over an array makes an object per value
    for index in range(1, len(levels) - 1):
        value = levels[index]
        is_peak = levels[index - 1] <= value > levels[index + 1] and value - last_dip >= 2 and value > floor
        if is_peak and spoken[index] and (candidate < 0 or value > levels[candidate]):
            candidate = index
        if candidate >= 0 and levels[candidate] - value >= 2:
            count, candidate, last_dip = count + 1, -1, value
        last_dip = min(last_dip, value) if candidate < 0 else last_dip
    return count + (candidate >= 0)


def _periodicity(samples: Floats, count: int) -> tuple[Floats, Floats]:
    """Strength (0 to 1) and pitch of every second 10 ms frame, repeated to (count,) each."""
    rows = -(-count // 2)
    padded = np.zeros((rows + 2) * _HOP + _WINDOW, np.float32)
    before = (_WINDOW - HOP_SAMPLES) // 2
    used = min(len(samples), rows * _HOP)
    padded[before : before + used] = samples[:used]
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[: rows * _HOP : _HOP]
    taper, bins, turn = _correlator()
    spectrum = scipy.fft.rfft(windows * taper, _FFT, axis=1)[:, bins]
    power = np.square(spectrum.real) + np.square(spectrum.imag)  # (rows, bins)
    correlation = (power / np.maximum(power.sum(axis=1, keepdims=True), _SILENT)) @ turn  # (rows, lags)
    at = correlation.argmax(axis=1)
    strength = correlation[np.arange(rows), at]
    pitch = (ANALYSIS_RATE_HZ / (at + _LAGS[0])).astype(np.float32)
    return np.repeat(strength, 2)[:count], np.repeat(pitch, 2)[:count]


@cache
def _correlator() -> tuple[Floats, slice, Floats]:
    """Window, the bins of the band, and the matrix (bins, lags) from power to autocorrelation over that of the window.

    An inverse transform of a few bins to a few lags is a small product of matrices.
    """
    taper = np.hanning(_WINDOW)
    low, high = (round(hz * _FFT / ANALYSIS_RATE_HZ) for hz in _BAND_HZ)
    lags = np.arange(*_LAGS)
    turn = np.cos(2 * np.pi * np.outer(np.arange(low, high), lags) / _FFT)
    reference = np.correlate(taper, taper, mode="full")[_WINDOW - 1 :]
    turn /= reference[lags] / reference[0]
    return taper.astype(np.float32), slice(low, high), turn.astype(np.float32)
