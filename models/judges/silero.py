"""silero-vad 6 for 16 kHz with the weights of its ONNX file, in a third of the time that ONNX Runtime takes for it.

That graph multiplies by a Fourier matrix and copies what it pads. Here an FFT does the first, and the convolutions are
products in the number type that is quick; the recurrence stays float32. In float32 the probabilities are the same, with
bfloat16 they move by 0.01 (`tests/models/judges/test_silero.py`).
Letters: W windows of 32 ms, F 129 frequencies.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.errors import WeightsError
from models.judges.onnx_weights import read_onnx_constants

WINDOW_SAMPLES = 512
CONTEXT_SAMPLES = 64  # of the window before
_FFT, _HOP = 256, 128
_REFLECTED = 64  # at the end of every window
_STRIDES = (1, 2, 2, 1)
_HIDDEN = 128
_FILLED = 32  # windows come in multiples: a product of a new shape costs more to prepare than to compute


class Silero(nn.Module):
    """Mono 16 kHz samples (N,) -> probability of speech for every 32 ms, (W,), W = N // 512."""

    def __init__(self, constants: dict[str, Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.taper = constants["stft.forward_basis_buffer"][0, 0]  # the cosine of 0 Hz is the window itself
        kernels = [constants[f"encoder.{i}.weight"] for i in range(len(_STRIDES))]
        self.kernels = [kernel.permute(0, 2, 1).flatten(1).contiguous().to(dtype) for kernel in kernels]  # (out, 3 in)
        self.biases = [constants[f"encoder.{i}.bias"].to(dtype) for i in range(len(_STRIDES))]
        self.dtype = dtype
        self.lstm = nn.LSTM(_HIDDEN, _HIDDEN)
        inputs, recurrent, biases = _recurrent_constants(constants)
        with torch.no_grad():
            for own, given in (("weight_ih_l0", inputs), ("weight_hh_l0", recurrent)):
                getattr(self.lstm, own).copy_(_reordered(given))
            for own, given in zip(("bias_ih_l0", "bias_hh_l0"), biases.chunk(2), strict=True):
                getattr(self.lstm, own).copy_(_reordered(given))
        self.output = (constants["output.weight"][:, :, 0], constants["output.bias"])

    @torch.inference_mode()
    def forward(self, samples: Tensor) -> Tensor:
        count = len(samples) // WINDOW_SAMPLES
        if count == 0:
            return torch.zeros(0)
        kept, filling = samples[: count * WINDOW_SAMPLES], (-count % _FILLED) * WINDOW_SAMPLES
        x = self._magnitudes(F.pad(kept, (CONTEXT_SAMPLES, filling))).to(self.dtype)
        for kernel, bias, stride in zip(self.kernels, self.biases, _STRIDES, strict=True):
            x = _convolved(x, kernel, bias, stride)
        hidden, _ = self.lstm(x.float())  # (W, 1, 128)
        return F.linear(hidden[:count, 0].relu(), *self.output)[:, 0].sigmoid()

    def _magnitudes(self, padded: Tensor) -> Tensor:
        """(64 + 512 W,) -> (W, 4, F): four spectra of each window, which is reflected at its end."""
        windows = padded.unfold(0, CONTEXT_SAMPLES + WINDOW_SAMPLES, WINDOW_SAMPLES)  # (W, 576)
        mirrored = windows[:, -1 - _REFLECTED : -1].flip(1)
        frames = torch.cat([windows, mirrored], 1).unfold(1, _FFT, _HOP)  # (W, 4, 256)
        real, imaginary = torch.view_as_real(torch.fft.rfft(frames * self.taper)).unbind(-1)
        return (real * real).addcmul_(imaginary, imaginary).sqrt_()  # abs() takes four times as long


def _convolved(x: Tensor, kernel: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Three wide, with zeros at both ends, then ReLU: (W, T, C) -> (W, T', C')."""
    windows, times, channels = x.shape
    count = (times - 1) // stride + 1
    strides = ((times + 2) * channels, stride * channels, 1)
    rows = F.pad(x, (0, 0, 1, 1)).as_strided((windows, count, 3 * channels), strides)
    return F.linear(rows.reshape(windows * count, -1), kernel, bias).relu_().view(windows, count, -1)


def _recurrent_constants(constants: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Input and recurrent weights (512, 128) and biases (1024,): by shape, their names are an exporter's."""
    anonymous = [tensor[0] for name, tensor in sorted(constants.items()) if "LSTM" in name]
    shapes = [tuple(tensor.shape) for tensor in anonymous]
    if shapes != [(4 * _HIDDEN, _HIDDEN), (4 * _HIDDEN, _HIDDEN), (8 * _HIDDEN,)]:
        raise WeightsError(f"not silero-vad 6: recurrent constants of {shapes}")
    return anonymous[0], anonymous[1], anonymous[2]


def _reordered(gates: Tensor) -> Tensor:
    """ONNX keeps input, output, forget, cell; torch input, forget, cell, output."""
    first, output, forget, cell = gates.chunk(4)
    return torch.cat([first, forget, cell, output])


def load_silero(path: Path, dtype: torch.dtype = torch.float32) -> Silero:
    """Raises WeightsError where the file is not that of silero-vad 6."""
    constants = read_onnx_constants(path)
    try:
        return Silero(constants, dtype).eval()
    except KeyError as error:
        raise WeightsError(f"{path}: not silero-vad 6: {error} is missing") from None
