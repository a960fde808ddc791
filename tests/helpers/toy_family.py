"""A family that is none of ours, small enough to read: all that a new one brings beside its row in the table.

A token is the nearest of a few fixed spectra; a linear layer draws the two spectra of a token; no phase is known.
Letters: B clips, N samples, F bins, T frames of 20 ms, K spectra, T25 tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.clip_tensors import ClipTensors
from models.configs.families import FamilyRow
from models.configs.strict import StrictConfig
from models.configs.synthesizer import SpectrogramConfig
from models.learners.vits import StepLoss
from models.loading.bases import Base
from models.loading.family import Family, Loaded
from models.loading.networks import load_network
from models.loading.recordings import AtRate, RecordingFeatures
from models.sound.spectrogram import Spectrogram
from models.speaking.options import VoiceOptions
from models.speaking.rendering import Delivery, PreparedReference
from models.text2semantic.guidance import TextGuide

RATE_HZ, HOP = 16_000, 320
GRID = SpectrogramConfig(sample_rate_hz=RATE_HZ, n_fft=640, win_samples=640, hop_samples=HOP)


class ReaderConfig(StrictConfig):
    """What its base.yaml says under ``networks: {reader: ...}``."""

    spectra: int
    width: int


class Reader(nn.Module):
    """Tokens to sound, and sound to tokens."""

    codebook: Tensor

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.spectrogram = Spectrogram(GRID)
        self.register_buffer("codebook", torch.randn(config.spectra, GRID.bins))
        self.embed = nn.Embedding(config.spectra, config.width)
        self.out = nn.Linear(config.width, 2 * GRID.bins)

    def tokens(self, speech: Tensor) -> Tensor:
        """(N,) -> (T25,)."""
        seen = self.spectrogram(speech[None])[0].log()  # (F, T)
        pairs = seen[:, : seen.shape[1] // 2 * 2].unflatten(1, (-1, 2)).mean(2).T  # (T25, F)
        return torch.cdist(pairs - pairs.mean(1, keepdim=True), self.codebook).argmin(1)

    def forward(self, tokens: Tensor) -> Tensor:
        """(T25,) -> log spectrum (F, T)."""
        return self.out(self.embed(tokens)).unflatten(1, (2, GRID.bins)).flatten(0, 1).T

    def sound(self, spectrum: Tensor) -> Tensor:
        """Log spectrum (F, T) -> (N,)."""
        frames = torch.fft.irfft(spectrum.T.clamp(max=5.0).exp()).roll(HOP, 1) * self.spectrogram.window  # (T, 2 HOP)
        first, second = F.pad(frames[:, :HOP], (0, 0, 0, 1)), F.pad(frames[:, HOP:], (0, 0, 1, 0))
        return (first + second).flatten()[HOP // 2 : -HOP // 2]


class ToyListener:
    speaker_dim, speaker_rate_hz = None, RATE_HZ

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    @torch.no_grad()
    def hear(self, speech: Tensor) -> Tensor:
        return self.reader.tokens(speech)

    @torch.no_grad()
    def transcribe(self, at: AtRate, phones: Tensor, guide: TextGuide | None) -> tuple[Tensor, int]:
        tokens = self.reader.tokens(torch.from_numpy(np.array(at(RATE_HZ))))
        return tokens, 2 * len(tokens)


class ToyLearner:
    critic = None
    rate_factor = kept_share = 1.0
    groups: ClassVar = {"reader": ("out.",)}
    losses: ClassVar = {"reader": "log spectrum L1"}

    def __init__(self, network: Reader) -> None:
        self.network = network

    def targets(self) -> list[str]:
        return ["out"]

    def weight_of(self, clip: ClipTensors) -> float:
        return 1.0

    def step_loss(self, clips: Sequence[ClipTensors], seeds: Sequence[int], batch_weight: float) -> StepLoss:
        loss = torch.stack([self._apart(clip) for clip in clips]).sum()
        return StepLoss(loss / batch_weight, {"reader": float(loss.detach()) / len(clips)})

    @torch.no_grad()
    def heldout_losses(self, clips: Sequence[ClipTensors]) -> dict[str, float]:
        return {"reader": sum(float(self._apart(clip)) for clip in clips) / len(clips)}

    def _apart(self, clip: ClipTensors) -> Tensor:
        return F.l1_loss(self.network(clip.tokens.long()), clip.acoustic_features.log())


class ToyResynthesizer:
    def __init__(self, network: Reader) -> None:
        self.network = network

    @torch.no_grad()
    def copy(self, clip: ClipTensors) -> Tensor:
        return self.network.sound(clip.acoustic_features.log())

    @torch.no_grad()
    def speak(self, tokens: Tensor, clip: ClipTensors, reference: ClipTensors, seed: int) -> Tensor:
        return self.network.sound(self.network(tokens.long()))


class ToyRenderer:
    sample_rate_hz = RATE_HZ
    reference_rates_hz: tuple[int, ...] = (RATE_HZ,)
    takes_several = streams_within = streams_exactly = False

    def __init__(self, network: Reader) -> None:
        self.network = network

    def reference(
        self, waves: dict[int, Tensor], speaker: Tensor | None, tokens: Tensor, phones: Tensor | None
    ) -> PreparedReference:
        return PreparedReference(tokens=tokens, ge=torch.zeros(1, 1, 1))

    @torch.no_grad()
    def render(self, tokens: Tensor, said: Delivery) -> Tensor:
        return self.network.sound(self.network(tokens.long()))

    def render_stream(self, pieces: Iterable[list[int]], said: Delivery) -> Iterator[Tensor]:
        yield self.render(torch.tensor([token for piece in pieces for token in piece]), said)


def _bare(base: Base) -> Reader:
    numbers = base.networks["reader"]
    assert isinstance(numbers, ReaderConfig)
    return Reader(numbers)


def _network(base: Base, cache: Path) -> Reader:
    return load_network(base, "synthesizer", cache, partial(_bare, base))


def _recordings(base: Base, device: torch.device) -> RecordingFeatures:
    return RecordingFeatures(base.sample_rate_hz, GRID, device)


def _renderer(loaded: Loaded[Reader], options: VoiceOptions) -> ToyRenderer:
    return ToyRenderer(loaded.network)


TOY = Family(
    network=_network,
    bare={"synthesizer": _bare},
    recordings=_recordings,
    listener=lambda loaded: ToyListener(loaded.network),
    learner=lambda loaded: ToyLearner(loaded.network),
    resynthesizer=lambda loaded: ToyResynthesizer(loaded.network),
    renderer=_renderer,
    takes_several=False,
)
TOY_ROW = FamilyRow(
    "toy", f"{__name__}:TOY", roles=("synthesizer", "text2semantic"), numbers={"reader": f"{__name__}:ReaderConfig"}
)
