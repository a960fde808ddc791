"""GPT-SoVITS files: what lies in them, which version wrote them, and how to write ones it loads
(docs/networks/files.md).

The only module that knows upstream's file layouts. Reading goes through `models.upstream.torch_archive`, never through
`torch.load`; what we keep ourselves is safetensors and JSON.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from models.configs.synthesizer import SynthesizerConfig
from models.configs.text2semantic import Text2SemanticConfig
from models.errors import WeightsError, shorten
from models.upstream.torch_archive import read_torch_archive

Version = Literal["v1", "v2", "v3", "v4", "v2Pro", "v2ProPlus"]
Kind = Literal["text2semantic", "synthesizer", "synthesizer-lora", "training", "weights"]

# The two bytes in the place of the zip's "PK": model version, and whether the file is a LoRA file.
HEADERS: dict[bytes, tuple[Version, bool]] = {
    b"00": ("v1", False),
    b"01": ("v2", False),
    b"02": ("v3", False),
    b"03": ("v3", True),
    b"04": ("v4", True),
    b"05": ("v2Pro", False),
    b"06": ("v2ProPlus", False),
}
# What upstream's own writer puts there; it writes v1 and v2 as plain zips, and has no code for a merged v4.
WRITTEN: dict[tuple[Version, bool], bytes] = {
    ("v1", False): b"PK",
    ("v2", False): b"PK",
    ("v2Pro", False): b"05",
    ("v2ProPlus", False): b"06",
    ("v3", False): b"02",
    ("v3", True): b"03",
    ("v4", True): b"04",
}
# The pretrained files are known by the MD5 of their first 8192 bytes.
PRETRAINED: dict[str, Version] = {
    "dc3c97e17592963677a4a1681f30c653": "v1",
    "6642b37f3dbb1f76882b69937c95a5f3": "v2",
    "43797be674a37c1c83ee81081941ed0f": "v3",
    "4f26b9476d0c5033e04162c486074374": "v4",
    "c7e9fce2223f3db685cdfa1e6368728a": "v2Pro",
    "66b313e39455b57ab1b0bc0b239c9d0a": "v2ProPlus",
}
TEXT2SEMANTIC_PREFIX = "model."
TRAINING_ONLY = "enc_q."  # left out of the files people exchange
V1_SYMBOLS = 322
WIDE_DECODER = 768  # first width of v2ProPlus's decoder


@dataclass(frozen=True)
class UpstreamFile:
    """One file of GPT-SoVITS, or of a network it uses."""

    path: Path
    kind: Kind
    weights: dict[str, Tensor]
    """Under the names of our networks: a text-to-semantic file's prefix is already gone."""
    version: Version | None = None
    """Of a synthesizer; None for other networks."""
    config: dict[str, Any] = field(default_factory=dict)
    info: str = ""
    lora_rank: int | None = None


def read_upstream(path: Path) -> UpstreamFile:
    """Read any weights file of GPT-SoVITS: s1 `.ckpt`, s2 `.pth`, LoRA, vocoder, speaker encoder.

    Raises:
        WeightsError: not such a file, damaged, or not safe to read; the message names the file and the reason.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(8192)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}") from error
    header = beginning[:2]
    if header != b"PK" and header not in HEADERS:
        raise WeightsError(f"{path}: not a GPT-SoVITS file: it begins with {header!r}, not with PK or a version")
    content = read_torch_archive(path, header)
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: not a GPT-SoVITS file: it holds a {type(content).__name__}")
    if "weight" in content:
        return _read_weight_file(path, content, header, hashlib.md5(beginning, usedforsecurity=False).hexdigest())
    kind: Kind = "training" if isinstance(content.get("model"), dict) else "weights"
    inner = {"training": "model", "weights": "generator"}[kind]
    return UpstreamFile(path, kind, _tensors(path, content[inner] if isinstance(content.get(inner), dict) else content))


def _read_weight_file(path: Path, content: dict[str, Any], header: bytes, md5: str) -> UpstreamFile:
    weights = _tensors(path, content["weight"])
    config = content["config"] if isinstance(content.get("config"), dict) else {}
    info = shorten(content["info"]) if isinstance(content.get("info"), str) else ""
    rank = content.get("lora_rank")
    if rank is not None and (type(rank) is not int or rank < 1):
        raise WeightsError(f"{path}: lora_rank is not a positive whole number")
    if all(name.startswith(TEXT2SEMANTIC_PREFIX) for name in weights):
        stripped = {name.removeprefix(TEXT2SEMANTIC_PREFIX): value for name, value in weights.items()}
        return UpstreamFile(path, "text2semantic", stripped, config=config, info=info)
    version, is_lora = HEADERS.get(header) or (PRETRAINED.get(md5) or version_of(weights), rank is not None)
    if is_lora and rank is None:
        raise WeightsError(f"{path}: its first bytes say LoRA, but it names no lora_rank")
    kind: Kind = "synthesizer-lora" if is_lora else "synthesizer"
    return UpstreamFile(path, kind, weights, version, config, info, rank)


def _tensors(path: Path, state: Any) -> dict[str, Tensor]:
    """The state dict, if it is one: names to tensors, and at least one of them."""
    if not isinstance(state, dict) or not state:
        raise WeightsError(f"{path}: holds no weights")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{path}: {shorten(name)!r} is a {type(value).__name__}, not a named tensor")
    return state


def version_of(weights: Mapping[str, Tensor]) -> Version:
    """The model version of a synthesizer by its parts, where the file does not say.

    A merged v4 cannot be told from v3, by anyone: upstream writes v4 as LoRA files only.
    """
    if any(name.startswith("cfm.") for name in weights):
        return "v3"
    if "sv_emb.weight" in weights:
        first = weights.get("dec.conv_pre.weight")
        return "v2ProPlus" if first is not None and first.shape[0] >= WIDE_DECODER else "v2Pro"
    symbols = weights.get("enc_p.text_embedding.weight")
    return "v1" if symbols is not None and symbols.shape[0] == V1_SYMBOLS else "v2"


# -- writing ------------------------------------------------------------------------------------------------------


def write_text2semantic(path: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any], info: str) -> None:
    """Write an s1 `.ckpt`: half precision, `model.` in front of every name.

    Args:
        weights: the state dict of `Text2Semantic`. config: see `text2semantic_config`.
    """
    named = OrderedDict((TEXT2SEMANTIC_PREFIX + name, _half(name, value)) for name, value in weights.items())
    _write(path, OrderedDict(weight=named, config=dict(config), info=info), b"PK")


def write_synthesizer(
    path: Path,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    info: str,
    version: Version,
    *,
    lora_rank: int | None = None,
) -> None:
    """Write an s2 `.pth`: half precision, without the posterior encoder, with upstream's first two bytes.

    Args:
        weights: the merged state dict with weight norm's pairs, or for v3 and v4 what
            `models.adapters.lora.upstream_lora_weights` made. config: see `synthesizer_config`.

    Raises:
        WeightsError: upstream has no layout for this, as for a merged v4.
    """
    header = WRITTEN.get((version, lora_rank is not None))
    if header is None:
        what = "a LoRA file" if lora_rank is not None else "merged weights"
        raise WeightsError(f"{path}: GPT-SoVITS has no file layout for {what} of {version}")
    kept = OrderedDict((name, _half(name, value)) for name, value in weights.items() if TRAINING_ONLY not in name)
    content: OrderedDict[str, Any] = OrderedDict(weight=kept, config=dict(config), info=info)
    if lora_rank is not None:
        content["lora_rank"] = lora_rank
    _write(path, content, header)


def _half(name: str, value: Tensor) -> Tensor:
    half = value.detach().to("cpu", torch.float16).contiguous()
    if not half.isfinite().all() and value.isfinite().all():
        raise WeightsError(f"{name}: {value.abs().max().item():g} does not fit half precision")
    return half


def _write(path: Path, content: OrderedDict[str, Any], header: bytes) -> None:
    """Put the file in its place only when it is whole."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getbuffer()
    data[:2] = header  # the zip's own first two bytes; upstream puts PK back before it loads
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(data)
    os.chmod(file.name, 0o644)  # noqa: PTH101
    os.replace(file.name, path)  # noqa: PTH105


def text2semantic_config(config: Text2SemanticConfig) -> dict[str, Any]:
    """What upstream's loader reads out of an s1 file: `data.max_sec` and everything under `model`."""
    return {
        "data": {"max_sec": int(config.max_duration_s), "pad_val": config.end_token},
        "model": {
            "vocab_size": config.vocab_size,
            "phoneme_vocab_size": config.phoneme_vocab_size,
            "embedding_dim": config.hidden_dim,
            "hidden_dim": config.hidden_dim,
            "head": config.heads,
            "linear_units": config.feedforward_dim,
            "n_layer": config.layers,
            "dropout": config.embedding_dropout,
            "EOS": config.end_token,
            "random_bert": 0,
        },
        "inference": {"top_k": 15},
    }


def synthesizer_config(encoder: SynthesizerConfig, version: Version) -> dict[str, Any]:
    """The hyper-parameters upstream's loaders read out of an s2 file, as plain dictionaries.

    v3 and v4 carry the numbers of v2's decoder, which they do not have: their constructor asks for them.
    """
    decoder, spectrogram = encoder.decoder, encoder.spectrogram
    return {
        "train": {"segment_size": encoder.segment_frames * spectrogram.hop_samples, "text_low_lr_rate": 0.4},
        "data": {
            "max_wav_value": 32768.0,
            "sampling_rate": spectrogram.sample_rate_hz,
            "filter_length": spectrogram.n_fft,
            "hop_length": spectrogram.hop_samples,
            "win_length": spectrogram.win_samples,
            "n_mel_channels": encoder.mel.n_mels,
            "mel_fmin": encoder.mel.f_min_hz,
            "mel_fmax": encoder.mel.f_max_hz,
            "add_blank": True,
            "n_speakers": 300,
            "cleaned_text": True,
        },
        "model": {
            "inter_channels": encoder.inter_channels,
            "hidden_channels": encoder.hidden_channels,
            "filter_channels": encoder.filter_channels,
            "n_heads": encoder.n_heads,
            "n_layers": encoder.n_layers,
            "kernel_size": encoder.kernel_size,
            "p_dropout": encoder.p_dropout,
            "resblock": "1",
            "resblock_kernel_sizes": list(decoder.resblock_kernel_sizes),
            "resblock_dilation_sizes": [list(row) for row in decoder.resblock_dilation_sizes],
            "upsample_rates": list(decoder.upsample_rates),
            "upsample_initial_channel": decoder.upsample_initial_channel,
            "upsample_kernel_sizes": list(decoder.upsample_kernel_sizes),
            "n_layers_q": 3,
            "use_spectral_norm": False,
            "gin_channels": encoder.gin_channels,
            "semantic_frame_rate": "25hz",
            "freeze_quantizer": True,
            "version": version,
        },
        "s2_ckpt_dir": "",
        "content_module": "cnhubert",
        "save_weight_dir": "",
        "name": "voxline",
        "version": version,
    }
