"""What a base hears in a recording: semantic tokens.

Letters: N samples, D width of the content features, T 50 Hz frames, T25 tokens, S phones.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from models.encoders.content import HubertEncoder, PhoneEncoder
from models.loading.recordings import AtRate
from models.sound.resampling import resample
from models.sound.upstream_audio import CONTENT_SCALE, mix_levels
from models.synthesizer.tokens import SemanticTokens, TokensAndSpeaker
from models.text2semantic.guidance import TextGuide
from models.text2semantic.transcribed import follow_text

CONTENT_RATE_HZ = 16_000


class Listener(Protocol):
    """Hears tokens; stays frozen while a voice is fine-tuned, so that they stay valid.

    `speaker_dim`: size of the speaker vectors that the base wants beside them; None where it wants none.
    `speaker_rate_hz`: the rate at which recordings go into those vectors.
    """

    @property
    def speaker_dim(self) -> int | None: ...

    @property
    def speaker_rate_hz(self) -> int: ...

    def hear(self, speech: Tensor) -> Tensor:
        """16 kHz speech (N,) -> tokens (T25,), int64."""
        ...

    def transcribe(self, at: AtRate, phones: Tensor, guide: TextGuide | None) -> tuple[Tensor, int]:
        """Tokens (T25,) of a recording whose text is known, and the frames of 20 ms that they cover.

        phones: ids (S,) of the text. guide: of a base whose codes tell their phone; the text corrects what was
        misheard.
        """
        ...


@dataclass(frozen=True)
class Grid:
    """The frames of 20 ms that tokens lie on, at the rate of the synthesizer.

    speaker_dim: size of the speaker vectors that it wants; None: it wants none.
    """

    sample_rate_hz: int
    hop_samples: int
    speaker_dim: int | None = None


def grid_of(synthesizer: TokensAndSpeaker) -> Grid:
    """Of the families of GPT-SoVITS: the frames of the spectrogram."""
    numbers = synthesizer.numbers
    return Grid(numbers.spectrogram.sample_rate_hz, numbers.spectrogram.hop_samples, numbers.speaker_dim)


class ContentListener:
    """Content features at 50 Hz, quantised by the synthesizer's codebook."""

    def __init__(
        self, content: PhoneEncoder | HubertEncoder, synthesizer: SemanticTokens, grid: Grid, device: torch.device
    ) -> None:
        self.content, self.synthesizer, self.device = content.to(device), synthesizer.to(device), device
        self.grid = grid
        self.speaker_dim, self.speaker_rate_hz = grid.speaker_dim, grid.sample_rate_hz

    @torch.no_grad()
    def hear(self, speech: Tensor) -> Tensor:
        return self.synthesizer.extract_tokens(self.content(speech[None].to(self.device)))[0, 0]

    @torch.inference_mode()
    def transcribe(self, at: AtRate, phones: Tensor, guide: TextGuide | None) -> tuple[Tensor, int]:
        """Content features and spectrogram lie on one grid: T frames, T even, T / 2 tokens."""
        content = self.content(self._heard(at).to(self.device)[None])[0]  # (D, T)
        length = len(at(self.grid.sample_rate_hz)) // self.grid.hop_samples
        step = self.synthesizer.frames_per_token
        frames = min(length, content.shape[1]) // step * step
        said = content[:, :frames]
        if guide is not None:
            said = follow_text(said, phones, guide, step)
        return self.synthesizer.extract_tokens(said[None])[0, 0], frames

    def _heard(self, at: AtRate) -> Tensor:
        """What the content encoder is fed, (N,) at 16 kHz."""
        if not self.content.mixes_levels:
            return torch.from_numpy(at(CONTENT_RATE_HZ))
        rate_hz = self.grid.sample_rate_hz
        return resample(mix_levels(torch.from_numpy(at(rate_hz))) * CONTENT_SCALE, rate_hz, CONTENT_RATE_HZ)
