"""What a recording itself says, at the rates of a base: computed wherever it is needed, and stored nowhere.

Letters: N samples, F frequency bins, M mel bands, T frames of the base's grid.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.loading.bases import Base
from models.sound.spectrogram import MelSpectrogram, Spectrogram, scale_mel

AtRate = Callable[[int], npt.NDArray[np.float32]]  # a rate in Hz -> the recording at it, mono (N,)


class RecordingFeatures:
    """Wave, spectrogram and, where a flow makes mels, mel of recordings. The same on every call, bit for bit."""

    def __init__(self, base: Base, device: torch.device) -> None:
        encoder = base.synthesizer if base.cfm is None else base.cfm.encoder
        assert encoder is not None, "a base has a synthesizer of one kind or the other"
        self.base, self.device = base, device
        self.config = encoder.spectrogram
        self.spectrogram = Spectrogram(self.config).to(device)
        self.mel = None if base.cfm is None else MelSpectrogram(base.cfm.mel).to(device)

    def frames_of(self, at: AtRate) -> int:
        """How long its spectrogram is."""
        return len(at(self.config.sample_rate_hz)) // self.config.hop_samples

    def samples_of(self, at: AtRate, frames: int) -> int:
        """How many samples of its wave, at the base's rate, go with the first ``frames``."""
        base_hz = self.base.sample_rate_hz
        return min(len(at(base_hz)), frames * self.config.hop_samples * base_hz // self.config.sample_rate_hz)

    @torch.no_grad()  # not inference_mode: training reads them
    def of(self, at: AtRate, frames: int) -> dict[str, Tensor]:
        """``wave`` (N,), ``spectrogram`` (F, T) and ``mel`` (M, L) of the first ``frames``, on the CPU."""
        wave = torch.from_numpy(at(self.base.sample_rate_hz))[: self.samples_of(at, frames)]
        found = {"wave": wave, "spectrogram": self._spectrogram(at)[:, :frames]}
        if self.mel is not None and self.base.cfm is not None:
            sound = torch.from_numpy(at(self.mel.config.sample_rate_hz)).to(self.device)
            found["mel"] = scale_mel(self.mel(sound[None]))[0][:, : int(frames * self.base.cfm.frames_ratio)]
        return {name: tensor.cpu().contiguous() for name, tensor in found.items()}

    def _spectrogram(self, at: AtRate) -> Tensor:
        found: Tensor = self.spectrogram(torch.from_numpy(at(self.config.sample_rate_hz)).to(self.device)[None])[0]
        return found
