"""True bandwidth: up to which frequency a recording holds anything, whatever its header says.

A telephone line, a low-rate codec or a slow sample rate removes everything above its limit, and raising the rate
afterwards brings nothing back. Hiss and breath fill the whole band of a microphone, so the edge of an honest
recording lies near half its rate.
"""

import numpy as np
import scipy.fft

from pipeline.signal.frames import Floats, moving_mean

_RESOLUTION_HZ = 50.0
_MOST_FRAMES = 200
_RANGE_DB = 60.0  # what speech spans from its vowels to its weakest consonants


def measure_bandwidth_hz(samples: Floats, sample_rate_hz: int) -> float:
    """Highest frequency at which the loud moments reach within 60 dB of the spectrum's maximum; mono, (n,)."""
    window = 2 ** round(np.log2(sample_rate_hz / _RESOLUTION_HZ))
    if len(samples) < window:
        return sample_rate_hz / 2
    hop = max(window // 2, (len(samples) - window) // _MOST_FRAMES)
    windows = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
    taper = np.blackman(window).astype(np.float32)  # side lobes 58 dB down and falling: no leakage into an empty band
    spectrum = scipy.fft.rfft(windows * taper, axis=1)
    power = (np.square(spectrum.real) + np.square(spectrum.imag)).T  # (bins, frames)
    loud = np.sort(power, axis=1)[:, (power.shape[1] * 19) // 20]
    level_db = 10 * np.log10(np.maximum(loud, 1e-20))
    smooth = moving_mean(level_db, 5)
    present = np.flatnonzero(smooth > smooth.max() - _RANGE_DB)
    return float((present[-1] + 1) * sample_rate_hz / window) if len(present) else 0.0
