"""Mel spectrograms as librosa computes them by default, in numpy: importing librosa costs seconds of compilation.

Slaney's scale and area norm, periodic Hann window, frames centred on zero-padded samples, power 2.
"""

from functools import cache

import numpy as np
import numpy.typing as npt
import scipy.fft

from pipeline.signal.frames import Floats


def mel_power(samples: Floats, sample_rate_hz: int, window: int, hop: int, mels: int) -> Floats:
    """Mono (n,) -> (frames, mels), frames = n // hop + 1."""
    padded = np.pad(samples, window // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    taper = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    spectrum = scipy.fft.rfft(windows * taper, axis=1)
    power = spectrum.real**2 + spectrum.imag**2  # (frames, window // 2 + 1)
    return np.asarray(power @ mel_filters(sample_rate_hz, window, mels).T, dtype=np.float32)


@cache
def mel_filters(sample_rate_hz: int, window: int, mels: int) -> Floats:
    """Triangles of equal area on Slaney's mel scale up to half the rate, (mels, window // 2 + 1)."""
    bins_hz = np.linspace(0, sample_rate_hz / 2, 1 + window // 2)
    if window % 2:  # an odd window has no bin at half the rate
        bins_hz = np.arange(1 + window // 2) * sample_rate_hz / window
    corners_hz = _mel_to_hz(np.linspace(0.0, _hz_to_mel(sample_rate_hz / 2), mels + 2))
    widths = np.diff(corners_hz)
    ramps = corners_hz[:, None] - bins_hz[None, :]
    rising = -ramps[:-2] / widths[:-1, None]
    falling = ramps[2:] / widths[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return np.asarray(triangles * (2.0 / (corners_hz[2:] - corners_hz[:-2]))[:, None], dtype=np.float32)


def _hz_to_mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * float(np.log(hz / 1000)) / float(np.log(6.4))


def _mel_to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))
