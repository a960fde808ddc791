"""Spectrograms and mels of docs/networks/signals.md, always in float32.

Letters: B batch, N samples, F frequency bins, M mel bands, T frames.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.configs.synthesizer import MelConfig, SpectrogramConfig

LOG_FLOOR = 1e-5
SCALED_MIN, SCALED_MAX = -12.0, 2.0  # range of log mels that v3 and v4 map to [-1, 1]


def float32_region(x: Tensor) -> torch.autocast:
    """Switch autocast off: what runs inside stays float32, on whatever device `x` is."""
    return torch.autocast(device_type=x.device.type, enabled=False)


class Spectrogram(nn.Module):
    """Linear magnitude, sqrt(re^2 + im^2 + 1e-8): (B, N) -> (B, F, T), T = N // hop."""

    window: Tensor

    def __init__(self, config: SpectrogramConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(config.win_samples), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        config = self.config
        with float32_region(wave):
            padding = (config.n_fft - config.hop_samples) // 2
            padded = F.pad(wave.float()[:, None], (padding, padding), mode="reflect")[:, 0]
            spectrum = torch.stft(
                padded,
                config.n_fft,
                hop_length=config.hop_samples,
                win_length=config.win_samples,
                window=self.window.float(),
                center=False,
                normalized=False,
                onesided=True,
                return_complex=True,
            )
            return torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-8)


class MelSpectrogram(nn.Module):
    """ln(max(mel, 1e-5)) of such a spectrogram: (B, N) -> (B, M, T)."""

    filters: Tensor

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        self.config = config
        self.spectrogram = Spectrogram(config)
        self.register_buffer("filters", mel_filters(config), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        return self.from_magnitude(self.spectrogram(wave))

    def from_magnitude(self, magnitude: Tensor) -> Tensor:
        """Log mel of a linear spectrogram: (B, F, T) -> (B, M, T)."""
        with float32_region(magnitude):
            mel = self.filters.float() @ magnitude.float()  # (M, F) @ (B, F, T)
            return torch.log(mel.clamp(min=LOG_FLOOR))


def mel_filters(config: MelConfig) -> Tensor:
    """Triangles on the Slaney mel scale with unit area, as librosa makes them by default: (M, F), float32."""
    f_max_hz = config.sample_rate_hz / 2 if config.f_max_hz is None else config.f_max_hz
    bins_hz = torch.linspace(0, config.sample_rate_hz / 2, config.bins, dtype=torch.float64)
    mels = torch.linspace(_to_mel(config.f_min_hz), _to_mel(f_max_hz), config.n_mels + 2, dtype=torch.float64)
    corners_hz = torch.tensor([_to_hz(mel) for mel in mels.tolist()], dtype=torch.float64)  # (M + 2,)
    widths_hz = corners_hz.diff()
    ramps = corners_hz[:, None] - bins_hz[None, :]  # (M + 2, F)
    rising = -ramps[:-2] / widths_hz[:-1, None]
    falling = ramps[2:] / widths_hz[1:, None]
    triangles = torch.minimum(rising, falling).clamp(min=0)
    areas = 2.0 / (corners_hz[2:] - corners_hz[:-2])
    return (triangles * areas[:, None]).float()


# Slaney's scale: linear (200/3 Hz per mel) below 1000 Hz, then 27 logarithmic steps per factor of 6.4.
_HZ_PER_MEL, _KNEE_HZ, _LOG_STEP = 200.0 / 3.0, 1000.0, math.log(6.4) / 27.0


def _to_mel(hz: float) -> float:
    if hz < _KNEE_HZ:
        return hz / _HZ_PER_MEL
    return _KNEE_HZ / _HZ_PER_MEL + math.log(hz / _KNEE_HZ) / _LOG_STEP


def _to_hz(mel: float) -> float:
    knee = _KNEE_HZ / _HZ_PER_MEL
    return mel * _HZ_PER_MEL if mel < knee else _KNEE_HZ * math.exp(_LOG_STEP * (mel - knee))


def scale_mel(log_mel: Tensor) -> Tensor:
    """Log mel -> what v3 and v4 flow-match: -12..2 becomes -1..1."""
    return (log_mel - SCALED_MIN) / (SCALED_MAX - SCALED_MIN) * 2 - 1


def unscale_mel(scaled: Tensor) -> Tensor:
    """The inverse of `scale_mel`."""
    return (scaled + 1) / 2 * (SCALED_MAX - SCALED_MIN) + SCALED_MIN
