"""Another rate of the same sound, as everything of ours hears it; `upstream_audio` has GPT-SoVITS's own resampler."""

import numpy as np
import soxr
import torch
from torch import Tensor


def resample(wave: Tensor, rate_hz: int, wanted_hz: int) -> Tensor:
    """Band-limited (soxr HQ), of a wave (N,) on the CPU."""
    if rate_hz == wanted_hz:
        return wave
    return torch.from_numpy(soxr.resample(wave.numpy(), rate_hz, wanted_hz, quality="HQ").astype(np.float32))
