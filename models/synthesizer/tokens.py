"""What both kinds of synthesizer begin with: semantic tokens from content features, a speaker from a spectrogram.

Letters: B batch, D width of the content features, T 50 Hz frames, F spectrogram bins, G width of the condition ge.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.blocks.style import StyleEncoder
from models.configs.synthesizer import SynthesizerConfig
from models.synthesizer.quantizer import Quantizer


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """Clips as synthesizers are trained on them, each its own reference; rows padded on the right.

    Tokens come as codes because codebook and `ssl_proj` are frozen in training (`extract_tokens` makes them).
    """

    spec: Tensor  # (B, F, T)
    spec_lengths: Tensor  # (B,)
    text: Tensor  # (B, S) phone ids
    text_lengths: Tensor  # (B,)
    codes: Tensor  # (B, 1, T // 2)
    speaker: Tensor | None = None  # (B, speaker_dim) where the base takes a speaker vector


class SemanticTokens(nn.Module):
    """Content features to tokens and back, by a frozen codebook."""

    ssl_proj: nn.Conv1d
    quantizer: Quantizer

    def _add_quantizer(self, ssl_dim: int, codebook_size: int, frames_per_token: int) -> None:
        """Make `ssl_proj` and `quantizer`, in the order of the files."""
        self.frames_per_token = frames_per_token
        self.ssl_proj = nn.Conv1d(ssl_dim, ssl_dim, frames_per_token, stride=frames_per_token)
        self.quantizer = Quantizer(codebook_size, ssl_dim)

    @torch.no_grad()
    def extract_tokens(self, ssl: Tensor) -> Tensor:
        """Semantic tokens of content features: (B, D, T) -> (B, 1, T // 2), int64."""
        return self.quantizer.encode(self.ssl_proj(ssl))

    def token_frames(self, codes: Tensor) -> Tensor:
        """Codebook vectors at the frame rate: (B, 1, T // 2) -> (B, D, T)."""
        return self.quantizer.decode(codes).repeat_interleave(self.frames_per_token, dim=-1)


class TokensAndSpeaker(SemanticTokens):
    """Base of `Synthesizer` and `CfmSynthesizer`; each adds the parts where its files have them."""

    ref_enc: StyleEncoder

    def __init__(self, numbers: SynthesizerConfig) -> None:
        super().__init__()
        self.numbers = numbers  # of the parts that both kinds have

    def _add_parts(self) -> None:
        """Make `ref_enc`, `ssl_proj` and `quantizer`, in the order of the files."""
        numbers = self.numbers
        self.ref_enc = StyleEncoder(
            numbers.style_bins, numbers.style_hidden, numbers.gin_channels, numbers.style_heads, numbers.style_dropout
        )
        self._add_quantizer(numbers.ssl_dim, numbers.codebook_size, numbers.frames_per_token)

    def condition(self, spec: Tensor, lengths: Tensor | None = None) -> Tensor:
        """ref_enc of reference spectrograms, their lowest bins: (B, F, T) -> (B, G, 1)."""
        if lengths is None:
            lengths = torch.full((spec.shape[0],), spec.shape[-1], device=spec.device)
        return self.ref_enc(spec[:, : self.numbers.style_bins], lengths)
