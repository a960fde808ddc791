"""The acoustic model of a base that speaks through FARGAN: tokens, phones and a speaker -> 20 numbers every 10 ms.

As the second stage of GPT-SoVITS does, it sees the phones of the text beside the tokens, so the words do not hang on
what a quantizer left of them. Pitch is given, in the speaker's own mean and spread, and energy too; a small head of its
own predicts both. Everything that is predicted is counted from the mean of reference speech in units of its spread.

Letters: B batch, T frames at 50 Hz, L = 2 T frames of FARGAN at 100 Hz, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.configs.acoustic import AcousticConfig
from models.sound.fargan import CEPSTRA, FEATURES

PITCH, PERIODICITY = CEPSTRA, CEPSTRA + 1
STATISTICS = 2 * FEATURES  # mean and spread of every feature
ACTIVE_BELOW = 11.0  # c0 of what counts as speech, below the loud frames: 26 dB
LOUD = 0.95  # quantile of c0
VOICED = 0.0  # periodicity above which a pitch is heard: a correlation of one half
PLACES = 2  # of a frame in its phone: how far, and how long that is
PROSODY = 2 * 2  # pitch and energy of both frames of 10 ms
LEAST_SPREAD = 0.05
AT_ONCE = 2  # frames of 10 ms that a frame of 20 ms becomes


@dataclass(frozen=True)
class Saying:
    """What is said: tokens (B, T), symbols (B, T) of the phones, and places in them (B, T, 2)."""

    tokens: Tensor
    phones: Tensor
    places: Tensor


def statistics(features: Tensor) -> Tensor:
    """Mean and spread (40,) of features (L, 20) of one speaker: of the pitch where voiced, else where speech is."""
    active = is_active(features)
    voiced = active & (features[:, PERIODICITY] > VOICED)
    rows = features[active] if active.sum() > 1 else features
    mean, spread = rows.mean(0), rows.std(0)
    if voiced.sum() > 1:
        mean[PITCH], spread[PITCH] = features[voiced, PITCH].mean(), features[voiced, PITCH].std()
    return torch.cat([mean, spread.clamp(min=LEAST_SPREAD)])


def is_active(features: Tensor) -> Tensor:
    """Where features (L, 20) are speech and no pause: (L,)."""
    loudness = features[:, 0]
    return loudness > loudness.quantile(LOUD) - ACTIVE_BELOW


def prosody_of(features: Tensor, own: Tensor) -> Tensor:
    """Pitch and energy (L, 2) of features (L, 20), from the mean `own` (40,) of the speech in its spread.

    Where nothing is voiced, pitch goes in a line from one voiced stretch to the next.
    """
    pitch = (features[:, PITCH] - own[PITCH]) / own[FEATURES + PITCH]
    voiced = ((features[:, PERIODICITY] > VOICED) & is_active(features)).nonzero()[:, 0]
    if len(voiced):
        pitch = interpolate(pitch, voiced)
    energy = (features[:, 0] - own[0]) / own[FEATURES]
    return torch.stack([pitch.clamp(-4, 4), energy], 1)


def interpolate(values: Tensor, known: Tensor) -> Tensor:
    """Values (L,), kept at the indices `known` (K,) in rising order, in lines between them and level outside."""
    places = torch.arange(len(values))
    after = torch.searchsorted(known, places).clamp(max=len(known) - 1)
    before = (after - 1).clamp(min=0)
    first, last = known[before], known[after]
    share = ((places - first) / (last - first).clamp(min=1)).clamp(0, 1)
    return values[first] + (values[last] - values[first]) * share


class ConditionedBlock(nn.Module):
    """ConvNeXt block whose norm is scaled and shifted by a condition: (B, C, T), (B, condition) -> (B, C, T)."""

    def __init__(self, channels: int, hidden: int, kernel_size: int, condition: int, dropout: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6, elementwise_affine=False)
        self.film = nn.Linear(condition, 2 * channels)
        self.up = nn.Linear(channels, hidden)
        self.down = nn.Linear(hidden, channels)
        self.dropout = nn.Dropout(dropout)
        self.scale = nn.Parameter(torch.full((channels,), 0.3))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(condition)[:, None].chunk(2, dim=2)  # (B, 1, C)
        h = self.norm(self.depthwise(x).transpose(1, 2)) * (1 + scale) + shift  # (B, T, C)
        h = self.down(self.dropout(F.gelu(self.up(h)))) * self.scale
        return x + h.transpose(1, 2)


class Spoken(nn.Module):
    """What is said, as channels: (B, T) and (B, T, 2) -> (B, T, C)."""

    def __init__(self, config: AcousticConfig, channels: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.n_tokens, channels)
        self.phones = nn.Embedding(config.n_symbols, channels)
        self.places = nn.Linear(PLACES, channels)

    def forward(self, said: Saying) -> Tensor:
        x: Tensor = self.tokens(said.tokens) + self.phones(said.phones) + self.places(said.places)
        return x


class Stack(nn.Module):
    """Conditioned blocks and a linear head: (B, T, C), (B, condition) -> (B, T, outputs)."""

    def __init__(self, channels: int, hidden: int, blocks: int, outputs: int, config: AcousticConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ConditionedBlock(channels, hidden, config.kernel_size, config.condition_channels, config.dropout)
            for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.head = nn.Linear(channels, outputs)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        for block in self.blocks:
            x = block(x, condition)
        out: Tensor = self.head(self.norm(x.transpose(1, 2)))
        return out


class ProsodyModel(nn.Module):
    """Pitch and energy as `prosody_of` counts them, from what is said."""

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        width = config.prosody_channels
        self.spoken = Spoken(config, width)
        self.stack = Stack(width, 3 * width, config.prosody_blocks, PROSODY, config)

    def forward(self, said: Saying, condition: Tensor) -> Tensor:
        """Conditions (B, condition) -> (B, L, 2)."""
        return self.stack(self.spoken(said), condition).unflatten(2, (AT_ONCE, 2)).flatten(1, 2)


class AcousticModel(nn.Module):
    """The predictor, its prosody head and what both know of speakers in general."""

    typical: Tensor
    varying: Tensor

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.config = config
        width = config.condition_channels
        self.register_buffer("typical", torch.zeros(STATISTICS))  # of statistics over speakers
        self.register_buffer("varying", torch.ones(STATISTICS))
        self.condition = nn.Sequential(nn.Linear(STATISTICS, width), nn.GELU(), nn.Linear(width, width))
        self.spoken = Spoken(config, config.channels)
        self.melody = nn.Linear(PROSODY, config.channels)
        self.stack = Stack(config.channels, config.hidden_channels, config.n_blocks, AT_ONCE * (FEATURES - 1), config)
        self.prosody = ProsodyModel(config)

    def set_typical(self, speakers: Tensor) -> None:
        """Take note of the statistics (speakers, 40) of speakers in general."""
        self.typical.copy_(speakers.mean(0))
        self.varying.copy_(speakers.std(0, correction=0).clamp(min=LEAST_SPREAD))

    def who(self, reference: Tensor) -> Tensor:
        """Statistics (B, 40) to a condition (B, condition)."""
        return self.condition((reference - self.typical) / self.varying)

    def forward(self, said: Saying, reference: Tensor, prosody: Tensor) -> Tensor:
        """Statistics (B, 40) and prosody (B, L, 2) to features (B, L, 20); pitch is as the prosody says."""
        melody = self.melody(prosody.unflatten(1, (-1, AT_ONCE)).flatten(2))
        rest = self.stack(self.spoken(said) + melody, self.who(reference))
        rest = rest.unflatten(2, (AT_ONCE, FEATURES - 1)).flatten(1, 2)  # (B, L, 19)
        relative = torch.cat([rest[..., :PITCH], prosody[..., :1], rest[..., PITCH:]], 2)
        mean, spread = reference[:, None].chunk(2, dim=2)
        return mean + spread * relative

    def predict_prosody(self, said: Saying, reference: Tensor) -> Tensor:
        """(B, L, 2), from statistics (B, 40)."""
        prosody: Tensor = self.prosody(said, self.who(reference).detach())
        return prosody
