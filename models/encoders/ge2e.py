"""GE2E speaker embedding (Wan et al. 2018) with the weights of Resemblyzer: a voice as 256 numbers.

The network is three LSTM layers and a linear layer over 1.6 s of a 40-band mel spectrogram, which the caller computes.
The weights lie in `models/ge2e/`; `tests/models/encoders/test_ge2e.py` compares both with what Resemblyzer computes.
"""

from __future__ import annotations

from functools import cache

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.configs.ge2e import WEIGHTS
from models.weights import load_weights

SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 400
HOP_SAMPLES = 160
MELS = 40
PARTIAL_FRAMES = 160  # 1.6 s
EMBEDDING_SIZE = 256


class SpeakerEncoder(nn.Module):
    """Mel power spectrogram (B, 160, 40) -> unit vectors (B, 256), no entry negative."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, EMBEDDING_SIZE)

    def forward(self, mel: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(mel)  # (layers, B, 256)
        raw = torch.relu(self.linear(hidden[-1]))
        return raw / raw.norm(dim=1, keepdim=True).clamp_min(1e-9)


@cache
def load_speaker_encoder(dtype: torch.dtype = torch.float32) -> SpeakerEncoder:
    """The encoder, on the CPU and ready to listen."""
    encoder = SpeakerEncoder()
    load_weights(encoder, load_file(WEIGHTS), WEIGHTS.name)
    return encoder.eval().to(dtype)


def partial_starts(frames: int, step_frames: int) -> list[int]:
    """First frames of overlapping partials of 1.6 s; at least one, and the last one at least three quarters full."""
    starts = list(range(0, max(1, frames - PARTIAL_FRAMES + step_frames + 1), step_frames))
    if len(starts) > 1 and frames - starts[-1] < 0.75 * PARTIAL_FRAMES:
        starts.pop()
    return starts


@torch.inference_mode()
def embed_partials(mel: Tensor, step_frames: int, batch: int = 64, dtype: torch.dtype = torch.float32) -> Tensor:
    """Embeddings of all partials of one recording: mel power (frames, 40) -> (partials, 256).

    bfloat16 takes half the time where the processor has it, and moves the mean of a recording by a cosine of 0.0003.
    """
    starts = partial_starts(len(mel), step_frames)
    missing = starts[-1] + PARTIAL_FRAMES - len(mel)
    padded = nn.functional.pad(mel, (0, 0, 0, max(0, missing)))
    partials = torch.stack([padded[start : start + PARTIAL_FRAMES] for start in starts])
    encoder, partials = load_speaker_encoder(dtype), partials.to(dtype)
    return torch.cat([encoder(partials[at : at + batch]).float() for at in range(0, len(partials), batch)])


def embed_speaker(mel: Tensor) -> Tensor:
    """One unit vector (256,) for a recording: the mean over its partials, 1.3 per second as resemblyzer takes them."""
    mean = embed_partials(mel, step_frames=77).mean(0)
    return mean / mean.norm().clamp_min(1e-9)
