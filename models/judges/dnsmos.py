"""DNSMOS P.835's network (Reddy et al. 2022) on a recording as long as it is, instead of repeated to 9.01 s.

Seven convolutions, a maximum over time and frequency, three linear layers. The maximum makes the network indifferent to
length, so a recording of 4 s need not be computed twice. Where the processor multiplies bfloat16 that is used.
Letters: N samples, T frames of 10 ms, F 161 frequencies, C channels.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.errors import WeightsError
from models.judges.onnx_weights import read_onnx_constants
from models.machine.precision import quick_dtype

HOP_SAMPLES = 160
WINDOW_SAMPLES = 320
_POOLED = (3, 4, 5)  # convolutions with a maximum over 2 x 2 behind them
_EARLY = 4  # convolutions at full resolution: nearly all of the work
_TILE_FRAMES = 112  # of them at a time, so that what they pass on stays in the cache
_FLOOR_POWER = 1e-12
_CONVOLUTIONS = tuple("conv2d" + (f"_{i}" if i else "") for i in range(7))
_LINEAR = ("dense", "dense_1", "dense_3")


class Dnsmos(nn.Module):
    """Mono 16 kHz samples (N,) -> raw scores (3,): signal, background, overall, before calibration."""

    def __init__(self, constants: dict[str, Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        prefix = "mos_estimator_logpow/"
        self.fourier = torch.stack([constants[f"time2freq/stft-{part}/kernel:0"][:, :, 0] for part in ("real", "imag")])
        kernels = [constants[f"{name}/kernel:0"] for name in _CONVOLUTIONS]
        self.first = kernels[0].reshape(len(kernels[0]), 9).T.contiguous().to(dtype)  # (9, C)
        self.kernels = [kernel.to(dtype).contiguous(memory_format=torch.channels_last) for kernel in kernels]
        self.biases = [constants[f"{name}/bias:0"].to(dtype) for name in _CONVOLUTIONS]
        self.linear = [
            (constants[f"{prefix}{name}/MatMul/ReadVariableOp/resource:0"],
             constants[f"{prefix}{name}/BiasAdd/ReadVariableOp/resource:0"])
            for name in _LINEAR
        ]  # fmt: skip
        self.dtype = dtype

    @torch.inference_mode()
    def forward(self, samples: Tensor) -> Tensor:
        frames = self._log_power(samples).to(self.dtype)
        x = self._late(torch.cat([self._early(frames, at) for at in range(0, len(frames) - 1, _TILE_FRAMES)], dim=2))
        x = x.amax((2, 3)).float()
        for index, (weight, bias) in enumerate(self.linear):
            x = torch.addmm(bias, x, weight)
            x = F.relu(x) if index + 1 < len(self.linear) else x
        return x[0]

    def _log_power(self, samples: Tensor) -> Tensor:
        """(N,) -> (T, F): rectangular windows of 20 ms every 10 ms, as the network was trained."""
        short = max(0, WINDOW_SAMPLES + 16 * HOP_SAMPLES - len(samples))  # three poolings need a few frames
        windows = F.pad(samples, (0, short)).unfold(0, WINDOW_SAMPLES, HOP_SAMPLES)  # (T, 320)
        real, imaginary = windows @ self.fourier[0].T, windows @ self.fourier[1].T
        return (real.square() + imaginary.square()).clamp_min(_FLOOR_POWER).log10()

    def _early(self, frames: Tensor, at: int) -> Tensor:
        """The first four convolutions and the first pooling on one tile of (T, F) -> (1, C, about T / 2, F / 2)."""
        before, after = min(at, _EARLY), min(_EARLY, max(0, len(frames) - at - _TILE_FRAMES))
        tile = frames[at - before : at + _TILE_FRAMES + after]
        length, width = tile.shape
        patches = F.pad(tile, (1, 1, 1, 1)).unfold(0, 3, 1).unfold(1, 3, 1).reshape(length * width, 9)
        x = torch.addmm(self.biases[0], patches, self.first).relu_()
        x = x.view(1, length, width, -1).permute(0, 3, 1, 2)  # (T F, C) -> (1, C, T, F), channels last in memory
        for index in range(1, _EARLY):
            x = F.conv2d(x, self.kernels[index], self.biases[index], padding=1).relu_()
        return F.max_pool2d(x[:, :, before : length - after], 2)

    def _late(self, x: Tensor) -> Tensor:
        for index in range(_EARLY, len(self.kernels)):
            x = F.conv2d(x, self.kernels[index], self.biases[index], padding=1).relu_()
            x = F.max_pool2d(x, 2) if index in _POOLED else x
        return x


@cache
def load_dnsmos(path: Path, *, is_exact: bool = False) -> Dnsmos:
    """The network of `sig_bak_ovr.onnx`. ``is_exact``: the same number on every machine, for twice the time.

    Raises:
        WeightsError: the file holds another network.
    """
    constants = read_onnx_constants(path)
    try:
        return Dnsmos(constants, torch.float32 if is_exact else quick_dtype())
    except (KeyError, RuntimeError) as error:
        raise WeightsError(f"{path}: not DNSMOS P.835: {str(error)[:100]}") from None
