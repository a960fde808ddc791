"""What a recording itself says, at the rates of a base: computed wherever it is needed, and stored nowhere.

Letters: N samples, F frequency bins, M mel bands, T frames of the base's grid.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.clip_tensors import ClipTensors
from models.configs.synthesizer import MelConfig, SpectrogramConfig
from models.sound.fargan import FRAME, SAMPLE_RATE_HZ
from models.sound.fargan_analysis import analyse
from models.sound.spectrogram import MelSpectrogram, Spectrogram, scale_mel
from models.synthesizer.acoustic import AT_ONCE

AtRate = Callable[[int], npt.NDArray[np.float32]]  # a rate in Hz -> the recording at it, mono (N,)


class Recordings(Protocol):
    """The same on every call, bit for bit."""

    def samples_of(self, at: AtRate, frames: int) -> int:
        """How many samples of its wave, at the base's rate, go with the first ``frames``."""
        ...

    def complete(self, clip: ClipTensors, at: AtRate, frames: int) -> ClipTensors:
        """What was extracted of a clip, with its wave and what the family's networks see of its first ``frames``."""
        ...


@dataclass(frozen=True)
class MelFrames:
    """Mels on a grid of their own: so many frames for one of the base's grid."""

    config: MelConfig
    per_frame: float


class RecordingFeatures:
    """Wave, spectrogram and, where a flow makes mels, mel of recordings."""

    def __init__(
        self, sample_rate_hz: int, spectrogram: SpectrogramConfig, device: torch.device, mel: MelFrames | None = None
    ) -> None:
        """sample_rate_hz: of the wave, that is of the speech that the base makes."""
        self.sample_rate_hz, self.config, self.device = sample_rate_hz, spectrogram, device
        self.spectrogram = Spectrogram(spectrogram).to(device)
        self.mel_frames = mel
        self.mel = None if mel is None else MelSpectrogram(mel.config).to(device)

    def samples_of(self, at: AtRate, frames: int) -> int:
        own_hz = self.sample_rate_hz
        return min(len(at(own_hz)), frames * self.config.hop_samples * own_hz // self.config.sample_rate_hz)

    @torch.no_grad()  # not inference_mode: training reads them
    def complete(self, clip: ClipTensors, at: AtRate, frames: int) -> ClipTensors:
        wave = torch.from_numpy(at(self.sample_rate_hz))[: self.samples_of(at, frames)]
        mel = None
        if self.mel is not None and self.mel_frames is not None:
            sound = torch.from_numpy(at(self.mel.config.sample_rate_hz)).to(self.device)
            mel = scale_mel(self.mel(sound[None]))[0][:, : int(frames * self.mel_frames.per_frame)].cpu().contiguous()
        spectrogram = self._spectrogram(at)[:, :frames].cpu().contiguous()
        return replace(clip, wave=wave.contiguous(), acoustic_features=spectrogram, mel=mel)

    def _spectrogram(self, at: AtRate) -> Tensor:
        found: Tensor = self.spectrogram(torch.from_numpy(at(self.config.sample_rate_hz)).to(self.device)[None])[0]
        return found


class FarganRecordings:
    """Wave, and the acoustic features that FARGAN speaks from."""

    hop_samples = AT_ONCE * FRAME

    def samples_of(self, at: AtRate, frames: int) -> int:
        return min(len(at(SAMPLE_RATE_HZ)), frames * self.hop_samples)

    @torch.no_grad()
    def complete(self, clip: ClipTensors, at: AtRate, frames: int) -> ClipTensors:
        wave = torch.from_numpy(at(SAMPLE_RATE_HZ))[: self.samples_of(at, frames)].contiguous()
        return replace(clip, wave=wave, acoustic_features=analyse(wave).T.contiguous())
