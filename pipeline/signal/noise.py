"""Noise: level of the pauses against the level of the speech, and hum.

The noise is read where nobody speaks. Where a clip has no pause the quietest frames stand in: speech at 10 ms steps
closes its lips several times a second, so without noise even continuous speech falls 30 dB and more between them.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import scipy.fft

from pipeline.signal.frames import (
    ACTIVE_LEVEL_DBFS,
    ANALYSIS_RATE_HZ,
    FLOOR_POWER,
    Flags,
    Floats,
    Frames,
    band_bins,
    to_db,
)

SNR_CEILING_DB = 80.0  # digital silence in the pauses: no noise to measure
MIN_PAUSE_FRAMES = 20
_GUARD_FRAMES = 5  # next to speech: its decay, not the room
_STEADY_SHARE = 0.8  # of the pause frames: a click or a cough in a pause is no steady noise
_EVENT_DB = -3.0  # to the speech: as loud as this no room is between sentences that can be heard at all
_EVENT_GUARD_FRAMES = 20
_DIP_PERCENTILE = 5
_HUM_HARMONICS = 10
_HUM_WINDOWS = 24
_HUM_BINS = 60 * _HUM_HARMONICS // 2 + 12


@dataclass(frozen=True)
class Noise:
    """All in dB.

    Attributes:
        snr_db: speech over noise; from the pauses where there are any, else from the dips within speech.
        pause_snr_db: None where the clip has no pause.
        range_snr_db: active level over the dips (5th percentile) within speech.
        noise_dbfs: noise level as recorded.
        hum_db: mains harmonics over the noise beside them.
        hum_hz: 50 or 60, 0 where nothing was found.
    """

    snr_db: float
    pause_snr_db: float | None
    range_snr_db: float
    noise_dbfs: float
    hum_db: float
    hum_hz: int


def measure_noise(frames: Frames, speech: Flags, pause: Flags) -> Noise:
    """`speech`: frames that are speech for sure, `pause`: frames that are none for sure, (frames,) each."""
    power = np.power(10, frames.level_db.astype(np.float64) / 10)
    active = power[speech] if speech.any() else power
    loud = float(np.mean(active))
    dips = float(np.percentile(active, _DIP_PERCENTILE))
    range_snr_db = min(SNR_CEILING_DB, ACTIVE_LEVEL_DBFS - 10 * float(np.log10(max(dips, FLOOR_POWER))))
    quiet = _without_events(pause & ~_widened(speech, _GUARD_FRAMES), power, loud)
    noise, pause_snr_db = dips, None
    if quiet.sum() >= MIN_PAUSE_FRAMES:
        steady = np.sort(power[quiet])[: max(1, int(_STEADY_SHARE * quiet.sum()))]
        noise = float(steady.mean())
        pause_snr_db = _snr(loud, noise)
    hum_db, hum_hz = measure_hum(frames)
    snr_db = range_snr_db if pause_snr_db is None else pause_snr_db
    noise_dbfs = 10 * float(np.log10(max(noise, FLOOR_POWER))) - frames.gain_db
    return Noise(snr_db, pause_snr_db, range_snr_db, noise_dbfs, hum_db, hum_hz)


def _without_events(quiet: Flags, power: npt.NDArray[np.float64], loud: float) -> Flags:
    """Pauses without coughs and knocks: what is nearly as loud as the voice is an event, with its breath around it."""
    events = quiet & (power > loud * 10 ** (_EVENT_DB / 10))
    steady = quiet & ~_widened(events, _EVENT_GUARD_FRAMES)
    return steady if steady.sum() >= MIN_PAUSE_FRAMES else quiet


def _snr(loud: float, noise: float) -> float:
    """The noise is in the speech frames too, so it is taken off them first."""
    if noise <= loud * 10 ** (-SNR_CEILING_DB / 10):
        return SNR_CEILING_DB
    return float(10 * np.log10(max(loud - noise, loud * 1e-2) / noise))


def measure_hum(frames: Frames) -> tuple[float, int]:
    """Mains hum in dB over its neighbourhood and its frequency, from the line spectrum of what is always there."""
    size = ANALYSIS_RATE_HZ // 2  # 2 Hz bins
    if len(frames.samples) < 2 * size:
        return 0.0, 0
    step = max(size // 2, (len(frames.samples) - size) // _HUM_WINDOWS)
    windows = np.lib.stride_tricks.sliding_window_view(frames.samples, size)[::step]
    spectrum = scipy.fft.rfft(windows * _taper(size), axis=1)[:, :_HUM_BINS]
    power = spectrum.real**2 + spectrum.imag**2
    rank = len(power) // 5
    level = to_db(np.partition(power, rank, axis=0)[rank].astype(np.float32))
    best = (0.0, 0)
    for mains_hz in (50, 60):
        rises = sorted(_rise_db(level, mains_hz * harmonic // 2) for harmonic in range(1, _HUM_HARMONICS + 1))
        rise = float(np.mean(rises[-4:]))
        if rise > best[0]:
            best = (rise, mains_hz)
    return best


@cache
def _taper(size: int) -> Floats:
    window: Floats = np.hanning(size).astype(np.float32)
    return window


def _rise_db(level: Floats, at: int) -> float:
    """A line at bin `at` over the bins beside it."""
    beside = np.concatenate([level[at - 9 : at - 3], level[at + 4 : at + 10]])
    return float(level[at - 1 : at + 2].max() - np.median(beside))


def _widened(flags: Flags, by: int) -> Flags:
    total = np.convolve(flags.astype(np.int32), np.ones(2 * by + 1, np.int32), mode="same")[: len(flags)]
    return np.asarray(total > 0)


def spectral_tilt_db(frames: Frames, speech: Flags) -> float:
    """Speech below 1 kHz over speech from 1 to 4 kHz, dB: whisper and thin microphones lack the first."""
    if not speech.any():
        return 0.0
    mean = frames.power[:, speech].mean(axis=1)
    low, high = mean[band_bins(80, 1000)].sum(), mean[band_bins(1000, 4000)].sum()
    ratio: Floats = to_db(np.array([low]) / max(float(high), 1e-12))
    return float(ratio[0])
