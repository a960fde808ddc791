"""Content encoders: 16 kHz speech -> features at 50 Hz that say what is spoken and not by whom.

Letters: B batch, N samples, M mel bands, C channels, T frames at 50 Hz, P phone classes, D feature width.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks.convnext import ConvNeXtBlock
from models.configs.content import ContentConfig, HubertConfig, PhoneEncoderConfig
from models.encoders.hubert import Hubert, read_hubert
from models.errors import WeightsError
from models.sound.pitch import PitchTracker
from models.sound.spectrogram import MelSpectrogram, float32_region

HOP_SAMPLES = 320  # 20 ms at 16 kHz, HuBERT's frame
MAX_FRAMES = 1500  # of one pass of the transformer, 30 s; longer speech is encoded in pieces


class MelFrontEnd(nn.Module):
    """In place of HuBERT's convolutions over the wave: (B, N) -> (B, C, T).

    Log mels, their mean over the clip removed, then a few ConvNeXt blocks. A hundred minutes of speech are too few
    to learn a filter bank from samples.
    """

    def __init__(self, config: PhoneEncoderConfig) -> None:
        super().__init__()
        self.mel = MelSpectrogram(config.mel)
        self.conv = nn.Conv1d(config.mel.n_mels, config.channels, 5, stride=2, padding=2)
        self.blocks = nn.ModuleList(
            [ConvNeXtBlock(config.channels, 2 * config.channels, 9, 0.5) for _ in range(config.front_blocks)]
        )

    def forward(self, wave: Tensor) -> Tensor:
        return self.from_mel(self.mel(wave))

    def from_mel(self, mel: Tensor) -> Tensor:
        """(B, M, 2 T) -> (B, C, T)."""
        x = (mel - mel.mean(dim=2, keepdim=True)) / 2.0  # log mels of speech spread by about 2 around their mean
        x = F.gelu(self.conv(x))
        for block in self.blocks:
            x = block(x)
        return x


@dataclass(frozen=True)
class PhoneScores:
    """Log-probabilities (B, T, P): of the phone spoken in every frame, and of CTC, whose class 0 is the blank."""

    frames: Tensor
    ctc: Tensor


class PhoneEncoder(nn.Module):
    """HuBERT's transformer behind a mel front end, with two phone heads. Also an offline phone recogniser."""

    mixes_levels = False

    def __init__(self, config: PhoneEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.hubert = Hubert(config, MelFrontEnd(config))
        self.frame_head = nn.Linear(config.channels, len(config.phones))
        self.ctc_head = nn.Linear(config.channels, len(config.phones))
        self.pitch = PitchTracker()

    @property
    def front(self) -> MelFrontEnd:
        """The mel front end inside the encoder."""
        front = self.hubert.feature_extractor
        assert isinstance(front, MelFrontEnd)
        return front

    def scores(self, wave: Tensor) -> PhoneScores:
        """(B, N) -> what is spoken."""
        return self._heads(self.hubert(wave))

    def scores_from_mel(self, mel: Tensor) -> PhoneScores:
        """As `scores`, from log mels (B, M, 2 T) that may have been augmented."""
        return self._heads(self.hubert.from_features(self.front.from_mel(mel)))

    def _heads(self, hidden: Tensor) -> PhoneScores:
        with float32_region(hidden):
            hidden = hidden.float()
            return PhoneScores(self.frame_head(hidden).log_softmax(-1), self.ctc_head(hidden).log_softmax(-1))

    def forward(self, wave: Tensor) -> Tensor:
        """Features (B, D, N // 320)."""
        frames = wave.shape[1] // HOP_SAMPLES
        pieces = [self.scores(piece).frames for piece in _pieces(wave)]
        posteriors = torch.cat(pieces, dim=1).exp().sqrt().transpose(1, 2)  # (B, T, P) -> (B, P, T)
        return torch.cat([posteriors[:, :, :frames], self._intonation(wave)[:, :, :frames]], dim=1)

    def _intonation(self, wave: Tensor) -> Tensor:
        """Pitch and level relative to the clip's own, and voicing: (B, 3, T)."""
        config = self.config
        track = self.pitch(wave)
        weight = track.voicing + 1e-3
        mean = (track.log_f0 * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
        loud = track.level.quantile(0.9, dim=1, keepdim=True)
        relative = (track.log_f0 - mean) / 0.25 * track.voicing  # a quarter of a neper is about 4 semitones
        rows = [
            config.pitch_weight * relative.clamp(-2.5, 2.5),
            config.voicing_weight * track.voicing,
            config.level_weight * ((track.level - loud) / 2.0).clamp(-3.0, 1.0),
        ]
        return torch.stack(rows, dim=1)

    @torch.no_grad()
    def recognise(self, wave: Tensor) -> list[str]:
        """Phones of one clip (N,), by the best path through the CTC head."""
        best = torch.cat([self.scores(piece).ctc for piece in _pieces(wave[None])], dim=1)[0].argmax(-1)
        changes = torch.unique_consecutive(best).tolist()
        return [self.config.phones[label] for label in changes if label]


def _pieces(wave: Tensor) -> list[Tensor]:
    """Cut (B, N) into pieces of at most MAX_FRAMES; the last one is never shorter than a second."""
    length = MAX_FRAMES * HOP_SAMPLES
    pieces = list(wave.split(length, dim=1))
    if len(pieces) > 1 and pieces[-1].shape[1] < 50 * HOP_SAMPLES:
        pieces[-2:] = [torch.cat(pieces[-2:], dim=1)]
    return pieces


class HubertEncoder(nn.Module):
    """GPT-SoVITS' own content encoder, a pretrained HuBERT: (B, N) -> (B, D, T)."""

    mixes_levels = True  # its tokens were learned from `mix_levels` of recordings

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.hubert = read_hubert(folder)

    def forward(self, wave: Tensor) -> Tensor:
        return self.hubert(wave).transpose(1, 2)  # (B, T, D) -> (B, D, T)


def build_content_encoder(config: ContentConfig, folder: Path | None = None) -> PhoneEncoder | HubertEncoder:
    """The encoder that a base names; `folder` is where a pretrained HuBERT lies."""
    if isinstance(config, HubertConfig):
        if folder is None:
            raise WeightsError("the content encoder of this base is a pretrained HuBERT: its folder is needed")
        return HubertEncoder(folder)
    return PhoneEncoder(config)
