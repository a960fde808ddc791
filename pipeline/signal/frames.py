"""One short-time analysis of a clip at 16 kHz, computed once and read by every measure.

Everything is relative: `power` is of the clip scaled to a common active level, so that thresholds mean the same for a
quiet and a loud recording; `gain_db` says by how much it was scaled.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

ANALYSIS_RATE_HZ = 16_000
HOP_SAMPLES = 160  # 10 ms
WINDOW_SAMPLES = 512  # 32 ms: resolves the harmonics of a voice
FRAMES_PER_S = 100
ACTIVE_LEVEL_DBFS = -20.0
MAX_GAIN_DB = 60.0
POWER_SCALE = 2 / (WINDOW_SAMPLES * 0.375 * WINDOW_SAMPLES)  # of |spectrum|^2: a frame's bins sum to its mean square
FLOOR_POWER = 1e-12  # -120 dBFS: below 24-bit noise

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Frames:
    """Short-time analysis of one clip.

    Attributes:
        samples: mono, 16 kHz, without DC, scaled to the active level, (n,).
        gain_db: what the scaling added.
        power: power spectrogram, (257, frames), frame t centred on sample 160 t + 80.
        level_db: level of every 10 ms frame, dB relative to full scale after scaling, (frames,).
    """

    samples: Floats
    gain_db: float
    power: Floats
    level_db: Floats

    @property
    def duration_s(self) -> float:
        return len(self.samples) / ANALYSIS_RATE_HZ

    @cached_property
    def log_power_db(self) -> Floats:
        """(257, frames) in dB."""
        return to_db(self.power)


def analyse_frames(samples: Floats) -> Frames:
    """`samples`: finite mono at 16 kHz, (n,). Anything shorter than one window is padded with silence."""
    centred = samples - np.float32(samples.mean(dtype=np.float64)) if len(samples) else samples
    gain_db = float(np.clip(ACTIVE_LEVEL_DBFS - active_level_dbfs(centred), -MAX_GAIN_DB, MAX_GAIN_DB))
    scaled = (centred * np.float32(10 ** (gain_db / 20))).astype(np.float32)
    power = power_spectrogram(scaled)
    return Frames(scaled, gain_db, power, frame_levels_db(scaled, power.shape[1]))


def active_level_dbfs(samples: Floats) -> float:
    """RMS level of the loudest fifth of the 10 ms frames: the speech, whatever the pauses. -120 for silence."""
    count = len(samples) // HOP_SAMPLES
    if count == 0:
        return -120.0
    power = np.square(samples[: count * HOP_SAMPLES].reshape(count, HOP_SAMPLES)).mean(axis=1, dtype=np.float64)
    loudest = np.sort(power)[-max(1, count // 5) :]
    return float(10 * np.log10(max(loudest.mean(), FLOOR_POWER)))


def power_spectrogram(samples: Floats) -> Floats:
    """Hann window of 32 ms every 10 ms, scaled so that a frame's bins sum to its mean square; (257, frames)."""
    pad = (WINDOW_SAMPLES - HOP_SAMPLES) // 2
    count = max(1, len(samples) // HOP_SAMPLES)
    padded = np.zeros(pad + max(len(samples), count * HOP_SAMPLES) + WINDOW_SAMPLES, np.float32)
    padded[pad : pad + len(samples)] = samples
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[: count * HOP_SAMPLES : HOP_SAMPLES]
    spectrum = scipy.fft.rfft(windows * _hann(), axis=1)  # (frames, 257)
    power = (spectrum.real**2 + spectrum.imag**2) * np.float32(POWER_SCALE)
    turned: Floats = np.ascontiguousarray(power.T, dtype=np.float32)
    return turned


def frame_levels_db(samples: Floats, count: int) -> Floats:
    """Level of each 10 ms frame, (count,)."""
    padded = np.zeros(count * HOP_SAMPLES, np.float32)
    used = min(len(samples), len(padded))
    padded[:used] = samples[:used]
    rows = padded.reshape(count, HOP_SAMPLES)
    return to_db(np.einsum("ij,ij->i", rows, rows) / np.float32(HOP_SAMPLES))


def to_db(power: Floats) -> Floats:
    level: Floats = (10 * np.log10(np.maximum(power, np.float32(FLOOR_POWER)))).astype(np.float32)
    return level


def band_bins(low_hz: float, high_hz: float) -> slice:
    """The bins of a spectrogram between two frequencies."""
    width_hz = ANALYSIS_RATE_HZ / WINDOW_SAMPLES
    return slice(max(0, round(low_hz / width_hz)), round(high_hz / width_hz))


def moving_mean(values: npt.NDArray[np.floating[Any]], width: int) -> npt.NDArray[np.float64]:
    """Centred mean over `width` values along the last axis, edges repeated."""
    left = width // 2
    edges = [(0, 0)] * (values.ndim - 1) + [(left + 1, width - 1 - left)]
    total = np.cumsum(np.pad(values.astype(np.float64), edges, mode="edge"), axis=-1)
    return np.asarray((total[..., width:] - total[..., :-width]) / width)


def quantile(values: npt.NDArray[np.floating[Any]], share: float) -> float:
    """As `np.quantile` of (n,), n > 0; sorting a few thousand numbers takes a tenth of what that function spends."""
    ordered = np.sort(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))


@cache
def _hann() -> Floats:
    window: Floats = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES)).astype(np.float32)
    return window
