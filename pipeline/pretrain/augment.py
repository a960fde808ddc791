"""What makes a few speakers sound like more: speed with pitch, formants, rooms, noise, colour, masks."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Samples = NDArray[np.float32]

SAMPLE_RATE_HZ = 16000
FORMANT_SPREAD = 0.12  # of the natural log of the warp


def change_rate(samples: Samples, factor: float) -> Samples:
    """Play `factor` times faster: tempo, pitch and formants move together. Linear interpolation."""
    positions = np.arange(int(len(samples) / factor)) * factor
    return np.interp(positions, np.arange(len(samples)), samples).astype(np.float32)


def add_room(samples: Samples, rng: np.random.Generator) -> Samples:
    """Convolve with a decaying noise of 50 to 400 ms behind the direct sound."""
    decay_s = rng.uniform(0.05, 0.4)
    length = int(decay_s * SAMPLE_RATE_HZ)
    tail = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length) * rng.uniform(0.02, 0.12)
    tail[0] = 1.0
    size = 1 << (len(samples) + length - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)[: len(samples)]
    return wet.astype(np.float32)


def add_noise(samples: Samples, rng: np.random.Generator) -> Samples:
    """White to brown noise at 8 to 40 dB below the clip."""
    spectrum = np.fft.rfft(rng.standard_normal(len(samples)))
    spectrum *= (np.arange(len(spectrum)) + 10.0) ** rng.uniform(-1.0, 0.0)
    noise = np.fft.irfft(spectrum, len(samples))
    level = np.sqrt((samples**2).mean() / ((noise**2).mean() + 1e-12)) * 10 ** (-rng.uniform(8, 40) / 20)
    noisy: Samples = (samples + noise * level).astype(np.float32)
    return noisy


def augment_wave(samples: Samples, rng: np.random.Generator) -> Samples:
    """A room for a third of the clips, noise for half of them."""
    if rng.random() < 0.33:
        samples = add_room(samples, rng)
    return add_noise(samples, rng) if rng.random() < 0.5 else samples


def warp_formants(mel: Tensor, factors: Tensor) -> Tensor:
    """Move every row of log mels (B, M, T) up in frequency by its factor (B,), as a shorter vocal tract would.

    Bands are taken to lie evenly on the mel scale up to half the rate; between them is interpolated.
    """
    rows, bands, frames = mel.shape
    top = _to_mel(torch.tensor(SAMPLE_RATE_HZ / 2))
    hertz = 700 * (10 ** (torch.arange(bands) / (bands - 1) * top / 2595) - 1)
    place = (_to_mel(hertz / factors[:, None]) / top * (bands - 1)).clamp(0, bands - 1)  # (B, M)
    low = place.floor().long().clamp(max=bands - 2)
    share = (place - low)[..., None].to(mel)
    index = low[..., None].expand(rows, bands, frames).to(mel.device)
    return mel.gather(1, index) * (1 - share) + mel.gather(1, index + 1) * share


def _to_mel(hertz: Tensor) -> Tensor:
    return 2595 * torch.log10(1 + hertz / 700)


def spoil_mel(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """Formants moved, random colour, two masked bands and two masked stretches per row of log mels (B, M, T)."""
    rows, bands, frames = mel.shape
    mel = warp_formants(mel, torch.from_numpy(np.exp(rng.uniform(-FORMANT_SPREAD, FORMANT_SPREAD, rows))).float())
    axis = torch.linspace(0, torch.pi, bands)
    for row in range(rows):
        waves = sum(rng.normal(0, 0.8) * torch.cos(k * axis) for k in (1, 2, 3))
        mel[row] += torch.as_tensor(waves, dtype=mel.dtype)[:, None]
        fill = mel[row].mean()
        for _ in range(2):
            width, start = rng.integers(0, 10), rng.integers(0, bands - 10)
            mel[row, start : start + width] = fill
            width, start = rng.integers(0, 16), rng.integers(0, frames - 16)
            mel[row, :, start : start + width] = fill
    return mel
