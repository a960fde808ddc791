"""Speech tokens: 16 kHz speech -> one of 512 numbers every 20 ms that says what is spoken.

An encoder of mels is squeezed through three coordinates of eight steps each (finite scalar quantization, Mentzer et al.
2023), which needs no codebook and cannot collapse. What the tokens have to keep is taught by whoever trains it, through
the heads that read them.

Letters: B batch, N samples, M mel bands, T frames at 50 Hz, C channels, D width of the teacher's vectors, P classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.blocks.convnext import ConvNeXtBlock
from models.configs.speech_tokens import SpeechTokensConfig
from models.encoders.content import HOP_SAMPLES, MelFrontEnd
from models.encoders.hubert import Hubert
from models.sound.spectrogram import float32_region


class FiniteScalarQuantizer(nn.Module):
    """Each coordinate is bounded and rounded to one of its steps; gradients pass as if it were not rounded."""

    steps: Tensor
    place: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("steps", torch.tensor(levels), persistent=False)
        self.register_buffer(
            "place", torch.tensor([math.prod(levels[:i]) for i in range(len(levels))]), persistent=False
        )

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return math.prod(self.steps.tolist())

    def forward(self, x: Tensor) -> Tensor:
        """(..., L) of any size to the same rounded, in [-1, 1]."""
        bounded = self._bounded(x)
        return (bounded + (bounded.round() - bounded).detach()) / (self.steps // 2)

    def tokens(self, rounded: Tensor) -> Tensor:
        """What `forward` gave, (..., L), as numbers (...)."""
        half = self.steps // 2
        return (((rounded * half).round().long() + half) * self.place).sum(-1)

    def values(self, tokens: Tensor) -> Tensor:
        """The inverse of `tokens`."""
        half = self.steps // 2
        return (tokens[..., None] // self.place % self.steps - half) / half

    def _bounded(self, x: Tensor) -> Tensor:
        """Between the outermost steps and a little beyond; an even number of steps has one more below zero."""
        half = (self.steps - 1) * (1 + 1e-3) / 2
        offset = torch.where(self.steps % 2 == 0, 0.5, 0.0)
        return (x + torch.atanh(offset / half)).tanh() * half - offset


@dataclass(frozen=True)
class Readings:
    """What the heads make of tokens: the teacher's vectors (B, T, D), log-probabilities (B, T, P) of frames and CTC."""

    teacher: Tensor
    frames: Tensor
    ctc: Tensor


class SpeechTokens(nn.Module):
    """Encoder, quantizer and the heads by which it learns."""

    def __init__(self, config: SpeechTokensConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Hubert(config, MelFrontEnd(config))
        self.squeeze = nn.Linear(config.channels, len(config.levels))
        self.quantizer = FiniteScalarQuantizer(config.levels)
        self.spread = nn.Linear(len(config.levels), config.channels)
        self.readers = nn.ModuleList(
            ConvNeXtBlock(config.channels, 2 * config.channels, 7, 0.5) for _ in range(config.reader_blocks)
        )
        self.teacher_head = nn.Linear(config.channels, config.teacher_dim)
        self.frame_head = nn.Linear(config.channels, len(config.classes))
        self.ctc_head = nn.Linear(config.channels, len(config.classes))

    @property
    def front(self) -> MelFrontEnd:
        """The mel front end inside the encoder."""
        front = self.encoder.feature_extractor
        assert isinstance(front, MelFrontEnd)
        return front

    def codes(self, mel: Tensor) -> Tensor:
        """Log mels (B, M, 2 T) to rounded coordinates (B, T, L)."""
        hidden = self.encoder.from_features(self.front.from_mel(mel))
        with float32_region(hidden):
            codes: Tensor = self.quantizer(self.squeeze(hidden.float()))
            return codes

    def read(self, codes: Tensor) -> Readings:
        """What rounded coordinates (B, T, L) say to the heads."""
        x = self.spread(codes).transpose(1, 2)  # (B, T, C) -> (B, C, T)
        for block in self.readers:
            x = block(x)
        with float32_region(x):
            x = x.transpose(1, 2).float()
            frames, ctc = self.frame_head(x).log_softmax(-1), self.ctc_head(x).log_softmax(-1)
            return Readings(self.teacher_head(x), frames, ctc)

    def forward(self, wave: Tensor) -> Tensor:
        """Speech (B, N) to tokens (B, N // 320)."""
        codes = self.codes(self.front.mel(wave))[:, : wave.shape[1] // HOP_SAMPLES]
        return self.quantizer.tokens(codes)
