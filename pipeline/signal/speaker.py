"""What the GE2E speaker encoder (`models/encoders/ge2e.py`) hears: one level and one mel spectrogram, wherever it is
asked."""

from __future__ import annotations

import numpy as np

from pipeline.signal.frames import ANALYSIS_RATE_HZ, Floats
from pipeline.signal.levels import rms_dbfs
from pipeline.signal.mel import mel_power

LEVEL_DBFS = -25.0  # about that of the read speech it was trained on; its vector moves with the level
WINDOW_SAMPLES, HOP_SAMPLES, MELS = 400, 160, 40


def speaker_mel(samples: Floats) -> Floats:
    """Mono 16 kHz (n,) -> mel power (frames, 40) of the clip at one level."""
    level = rms_dbfs(samples)
    gain = np.float32(10 ** ((LEVEL_DBFS - level) / 20)) if level > -100.0 else np.float32(1.0)
    return mel_power(samples * gain, ANALYSIS_RATE_HZ, WINDOW_SAMPLES, HOP_SAMPLES, MELS)
