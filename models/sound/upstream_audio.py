"""Waves as the networks were trained to get them: upstream's resampling and its mixing of levels
(docs/networks/signals.md).

Letters: N samples. Reading and ordinary resampling are not here: those go through soxr (`pipeline.io.audio`).
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

SINC_WIDTH, SINC_ROLLOFF = 6, 0.99  # zero crossings on either side; cut-off as a share of the lower Nyquist rate
PEAK, SHARE = 0.95, 0.5  # half of the wave is scaled to a peak of 0.95, half is left as it is
CONTENT_SCALE = 1145.14  # GPT-SoVITS feeds its HuBERT waves this loud; the first layer's norm takes most of it back


def resample_sinc(wave: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """Resampling by a Hann-windowed sinc, (..., N) -> (..., ceil(N to / from)), as torchaudio does by default.

    The speaker encoder of v2Pro was trained behind this filter.
    """
    common = math.gcd(from_hz, to_hz)
    old, new = from_hz // common, to_hz // common
    if old == new:
        return wave
    kernel, width = _sinc_kernel(old, new)
    length = wave.shape[-1]
    padded = F.pad(wave.reshape(-1, 1, length), (width, width + old))
    phases = F.conv1d(padded, kernel.to(padded), stride=old)  # (rows, new, frames): every phase of the new rate
    samples = phases.transpose(1, 2).reshape(*wave.shape[:-1], -1)
    return samples[..., : math.ceil(new * length / old)]


@lru_cache(maxsize=8)
def _sinc_kernel(old: int, new: int) -> tuple[Tensor, int]:
    """(new, 1, 2 width + old) taps for every phase, and how far they reach to either side."""
    cutoff = min(old, new) * SINC_ROLLOFF
    width = math.ceil(SINC_WIDTH * old / cutoff)
    taps = torch.arange(-width, width + old, dtype=torch.float64) / old
    time = (taps - torch.arange(new, dtype=torch.float64)[:, None] / new) * cutoff
    time = time.clamp(-SINC_WIDTH, SINC_WIDTH)
    window = torch.cos(time * (math.pi / SINC_WIDTH / 2)).square()
    kernel = torch.sinc(time) * window * (cutoff / old)
    return kernel.float()[:, None], width


def mix_levels(wave: Tensor) -> Tensor:
    """The mean of a wave (..., N) and of the same wave at a peak of 0.95; silence stays silence."""
    peak = wave.abs().amax(dim=-1, keepdim=True).clamp(min=1e-9)
    return wave / peak * (PEAK * SHARE) + wave * (1 - SHARE)
