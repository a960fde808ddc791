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
    quantile,
    to_db,
)

SNR_CEILING_DB = 80.0  # digital silence in the pauses: no noise to measure
MIN_PAUSE_FRAMES = 20
_GUARD_FRAMES = 5  # next to speech: its decay, not the room
_STEADY_SHARE = 0.8  # of the pause frames: a click or a cough in a pause is no steady noise
_EVENT_DB = -3.0  # to the speech: as loud as this no room is between sentences that can be heard at all
_EVENT_GUARD_FRAMES = 20
_DIP_SHARE = 0.05
_MAINS_HZ = (50, 60)
_HUM_HARMONICS = 10
_LINE = np.arange(-1, 2)
_BESIDE = np.concatenate([np.arange(-9, -3), np.arange(4, 10)])
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
    dips = quantile(active, _DIP_SHARE)
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
    level = to_db(np.sort(power, axis=0)[rank].astype(np.float32))
    rises = _rises_db(level, np.outer(_MAINS_HZ, np.arange(1, _HUM_HARMONICS + 1)) // 2)
    rise = np.sort(rises, axis=1)[:, -4:].mean(axis=1)
    best = int(rise.argmax())
    return (float(rise[best]), _MAINS_HZ[best]) if rise[best] > 0 else (0.0, 0)


@cache
def _taper(size: int) -> Floats:
    window: Floats = np.hanning(size).astype(np.float32)
    return window


def _rises_db(level: Floats, at: npt.NDArray[np.int64]) -> Floats:
    """Lines at the bins `at`, of any shape, over the bins beside each."""
    line, beside = (level[at[..., None] + offsets] for offsets in (_LINE, _BESIDE))
    return np.asarray(line.max(axis=-1) - np.median(beside, axis=-1))


def _widened(flags: Flags, by: int) -> Flags:
    total = np.convolve(flags.astype(np.int32), np.ones(2 * by + 1, np.int32), mode="same")[: len(flags)]
    return np.asarray(total > 0)
