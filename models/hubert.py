"""HuBERT's transformer (Hsu et al. 2021) with the parameter names of the transformers package.

Written here because importing that package's model takes three seconds, more than a minute of speech takes to encode.
`tests/models/test_content.py` compares both, output for output. Letters: B batch, T frames, C channels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from models.configs.content import PhoneEncoderConfig

_NORM_EPS = 1e-5
_INITIAL_STD = 0.02


class FeatureProjection(nn.Module):
    """From the front end's channels to the transformer's: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: PhoneEncoderConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.channels, eps=_NORM_EPS)
        self.projection = nn.Linear(config.channels, config.channels)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.dropout(self.projection(self.layer_norm(x)))
        return projected


class PositionalConvolution(nn.Module):
    """A wide grouped convolution says where a frame is: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: PhoneEncoderConfig) -> None:
        super().__init__()
        width, kernel = config.channels, config.position_kernel
        conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=config.position_groups)
        nn.init.kaiming_normal_(conv.weight)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.conv = weight_norm(conv, name="weight", dim=2)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.shape[1]
        moved = self.conv(x.transpose(1, 2))[:, :, :frames]  # (B, T, C) -> (B, C, T); an even kernel gives one too many
        return F.gelu(moved).transpose(1, 2)  # (B, C, T) -> (B, T, C)


class Attention(nn.Module):
    """Self-attention over all frames: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: PhoneEncoderConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        width = config.channels
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, width = x.shape
        split = (batch, frames, self.heads, width // self.heads)
        # (B, T, C) -> (B, heads, T, C / heads)
        query, key, value = (
            projection(x).view(split).transpose(1, 2) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        projected: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(batch, frames, width))
        return projected


class FeedForward(nn.Module):
    """(B, T, C) -> (B, T, C)."""

    def __init__(self, config: PhoneEncoderConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.channels, config.feedforward)
        self.output_dense = nn.Linear(config.feedforward, config.channels)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.dropout(F.gelu(self.intermediate_dense(x)))
        outer: Tensor = self.dropout(self.output_dense(inner))
        return outer


class Layer(nn.Module):
    """Norms come after the additions: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: PhoneEncoderConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.dropout = nn.Dropout(config.dropout)
        self.layer_norm = nn.LayerNorm(config.channels, eps=_NORM_EPS)
        self.feed_forward = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.channels, eps=_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer_norm(x + self.dropout(self.attention(x)))
        normed: Tensor = self.final_layer_norm(x + self.feed_forward(x))
        return normed


class Encoder(nn.Module):
    """(B, T, C) -> (B, T, C)."""

    def __init__(self, config: PhoneEncoderConfig) -> None:
        super().__init__()
        self.pos_conv_embed = PositionalConvolution(config)
        self.layer_norm = nn.LayerNorm(config.channels, eps=_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.layers)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.layer_norm(x + self.pos_conv_embed(x)))
        for layer in self.layers:
            x = layer(x)
        return x


class Hubert(nn.Module):
    """A front end (B, N) -> (B, C, T), then HuBERT's transformer: (B, N) -> (B, T, C)."""

    def __init__(self, config: PhoneEncoderConfig, feature_extractor: nn.Module) -> None:
        super().__init__()
        self.masked_spec_embed = nn.Parameter(torch.rand(config.channels))  # in the files; only masks would use it
        self.feature_projection = FeatureProjection(config)
        self.encoder = Encoder(config)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=_INITIAL_STD)
                nn.init.zeros_(module.bias)
        self.feature_extractor = feature_extractor

    def forward(self, wave: Tensor) -> Tensor:
        return self.from_features(self.feature_extractor(wave))

    def from_features(self, features: Tensor) -> Tensor:
        """From the front end's output (B, C, T) on."""
        hidden: Tensor = self.encoder(self.feature_projection(features.transpose(1, 2)))  # (B, C, T) -> (B, T, C)
        return hidden
