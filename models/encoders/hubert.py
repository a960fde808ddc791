"""HuBERT (Hsu et al. 2021) with the parameter names of the transformers package, and its files.

Written here because importing that package's model takes three seconds, more than a minute of speech takes to encode.
`tests/models/encoders/test_content.py` compares both, output for output. Letters: B batch, T frames, C channels, N
samples.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from models.blocks.linear import Linear
from models.errors import WeightsError
from models.weights import load_weights

_NORM_EPS = 1e-5
_INITIAL_STD = 0.02
_PARTS = ("feature_extractor.", "feature_projection.", "encoder.", "masked_spec_embed")  # a file may hold more


class Sizes(Protocol):
    """Numbers of the transformer."""

    @property
    def channels(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def feedforward(self) -> int: ...
    @property
    def position_kernel(self) -> int: ...
    @property
    def position_groups(self) -> int: ...
    @property
    def dropout(self) -> float: ...


@dataclass(frozen=True)
class FileSizes:
    """The same from a pretrained file, where nothing is trained any more."""

    channels: int
    layers: int
    heads: int
    feedforward: int
    position_kernel: int
    position_groups: int
    dropout: float = 0.0


class WaveFrontEnd(nn.Module):
    """HuBERT's own front end, convolutions over the samples: (B, N) -> (B, C, T)."""

    def __init__(self, channels: Sequence[int], kernels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        sizes = zip((1, *channels[:-1]), channels, kernels, strides, strict=True)
        self.conv_layers = nn.ModuleList(
            FrontLayer(*numbers, is_normed=index == 0) for index, numbers in enumerate(sizes)
        )

    def forward(self, wave: Tensor) -> Tensor:
        x = wave[:, None]
        for layer in self.conv_layers:
            x = layer(x)
        return x


class FrontLayer(nn.Module):
    """(B, C, T) -> (B, C', T'); the first of them is normalised over time."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, is_normed: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride=stride, bias=False)
        self.layer_norm = nn.GroupNorm(outputs, outputs) if is_normed else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.gelu(x if self.layer_norm is None else self.layer_norm(x))


class FeatureProjection(nn.Module):
    """From the front end's channels to the transformer's: (B, T, C) -> (B, T, C)."""

    def __init__(self, inputs: int, config: Sizes) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(inputs, eps=_NORM_EPS)
        self.projection = Linear(inputs, config.channels)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.dropout(self.projection(self.layer_norm(x)))
        return projected


class PositionalConvolution(nn.Module):
    """A wide grouped convolution says where a frame is: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: Sizes) -> None:
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

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        width = config.channels
        self.q_proj, self.k_proj = Linear(width, width), Linear(width, width)
        self.v_proj, self.out_proj = Linear(width, width), Linear(width, width)

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

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.intermediate_dense = Linear(config.channels, config.feedforward)
        self.output_dense = Linear(config.feedforward, config.channels)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.dropout(F.gelu(self.intermediate_dense(x)))
        outer: Tensor = self.dropout(self.output_dense(inner))
        return outer


class Layer(nn.Module):
    """Norms come after the additions: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: Sizes) -> None:
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

    def __init__(self, config: Sizes) -> None:
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

    def __init__(self, config: Sizes, feature_extractor: nn.Module, inputs: int | None = None) -> None:
        """inputs: channels of the front end, where they are not the transformer's."""
        super().__init__()
        self.masked_spec_embed = nn.Parameter(torch.rand(config.channels))  # in the files; only masks would use it
        self.feature_projection = FeatureProjection(inputs or config.channels, config)
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


def read_hubert(folder: Path) -> Hubert:
    """A pretrained HuBERT in eval mode. Raises `WeightsError` for a folder that is not one, or one of another kind."""
    path = folder / "config.json"
    if not path.is_file():
        raise WeightsError(f"{folder}: no config.json of a HuBERT model")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        state = load_file(folder / "model.safetensors")
        network = _build(told)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise WeightsError(f"{folder}: not a readable HuBERT model: {error}") from error
    named = {_own_name(name): value for name, value in state.items()}
    kept = {name: value for name, value in named.items() if name.startswith(_PARTS)}
    load_weights(network, kept, str(folder), absent=("masked_spec_embed",))
    return network.eval()


def _build(told: dict[str, object]) -> Hubert:
    """From the words of config.json; the base-size kind (norm after the additions), as GPT-SoVITS uses it."""
    expected = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False, "hidden_act": "gelu"}
    strange = {name: told.get(name, value) for name, value in expected.items() if told.get(name, value) != value}
    if strange:
        raise WeightsError(f"a HuBERT of another kind: {strange}")
    channels, kernels, strides = (_numbers(told[f"conv_{name}"]) for name in ("dim", "kernel", "stride"))
    sizes = FileSizes(
        *(
            _numbers([told[name]])[0]
            for name in (
                "hidden_size",
                "num_hidden_layers",
                "num_attention_heads",
                "intermediate_size",
                "num_conv_pos_embeddings",
                "num_conv_pos_embedding_groups",
            )
        )
    )
    return Hubert(sizes, WaveFrontEnd(channels, kernels, strides), channels[-1])


def _numbers(values: object) -> list[int]:
    if not isinstance(values, list) or not all(isinstance(value, int) and value > 0 for value in values):
        raise ValueError(f"{values} are not whole numbers")
    return values


def _own_name(name: str) -> str:
    """Older files keep the weight norm under other names, and files of a larger model a prefix."""
    name = name.removeprefix("hubert.")
    for theirs, ours in (("weight_g", "original0"), ("weight_v", "original1")):
        name = name.replace(f"pos_conv_embed.conv.{theirs}", f"pos_conv_embed.conv.parametrizations.weight.{ours}")
    return name
