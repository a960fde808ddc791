"""DeepFilterNet 3 (Schröter et al. 2023) takes noise off speech, with local weights in either published layout.

The package deepfilternet computes what the network hears and turns its answer into sound. The network is the package's
own where the folder has a checkpoint, and its authors' ONNX graphs where it has those. Nothing is downloaded.
"""

from __future__ import annotations

import configparser
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.compat import prepare_deepfilternet
from models.configs.deepfilter import weights_files
from models.errors import WeightsError

Samples = npt.NDArray[np.float32]  # mono (samples,)

KNOWN_MODELS = ("deepfilternet", "deepfilternet2", "deepfilternet3")
_MAX_CONFIG_BYTES = 1 << 16
_BLOCK_S = 30.0
_OVERLAP_S = 1.0


class Denoiser:
    """DeepFilterNet with the weights of a folder."""

    def __init__(self, folder: Path) -> None:
        config, *weights = weights_files(folder)
        self._model, self._state = _load(config, weights)
        self.sample_rate_hz = int(self._state.sr())

    def __call__(self, samples: Samples) -> Samples:
        """Noise taken off mono samples at `sample_rate_hz`, (n,) -> (n,); long ones in blocks that fade over."""
        block, overlap = round(_BLOCK_S * self.sample_rate_hz), round(_OVERLAP_S * self.sample_rate_hz)
        total, weights = np.zeros(len(samples), np.float32), np.zeros(len(samples), np.float32)
        start = 0
        while start < len(samples):
            end = min(len(samples), start + block)
            if len(samples) - end < overlap:
                end = len(samples)  # a last block of its own would be too short to hear anything
            weight = _fade(end - start, overlap, rise=start > 0, fall=end < len(samples))
            total[start:end] += self._enhance(samples[start:end]) * weight
            weights[start:end] += weight
            start = end if end == len(samples) else end - overlap
        return total / np.maximum(weights, np.float32(1e-6))

    @torch.inference_mode()
    def _enhance(self, samples: Samples) -> Samples:
        from df.enhance import enhance

        cleaned: Samples = enhance(self._model, self._state, torch.from_numpy(samples.copy())[None, :])[0].cpu().numpy()
        return np.pad(cleaned, (0, max(0, len(samples) - len(cleaned))))[: len(samples)]


def _fade(length: int, overlap: int, *, rise: bool, fall: bool) -> Samples:
    weight = np.ones(length, np.float32)
    ramp = np.linspace(0.001, 1, min(overlap, length), dtype=np.float32)
    if rise:
        weight[: len(ramp)] *= ramp
    if fall:
        weight[-len(ramp) :] *= ramp[::-1]
    return weight


def filter_bank(numbers: Any) -> Any:
    """The analysis and synthesis that belong to a network of these numbers (df's own, of the loaded configuration)."""
    from libdf import DF

    return DF(
        sr=numbers.sr,
        fft_size=numbers.fft_size,
        hop_size=numbers.hop_size,
        nb_bands=numbers.nb_erb,
        min_nb_erb_freqs=numbers.min_nb_freqs,
    )


class Graphs(torch.nn.Module):
    """The exported network: an encoder, gains for 32 bands, and filters over five frames for the lowest 96 frequencies.

    As the package's network: spectrum (1, 1, T, 481, 2), bands (1, 1, T, 32), lowest frequencies (1, 1, T, 96, 2) ->
    the spectrum without noise, first of a tuple. The export leaves out that the network sees two frames ahead.
    """

    widened: torch.Tensor  # (32, 481)

    def __init__(self, paths: list[Path], state: Any, numbers: Any) -> None:
        super().__init__()
        from df.modules import erb_fb
        from df.multiframe import DF

        self._encoder, self._bands, self._filters = (_session(path) for path in paths)
        self.register_buffer("widened", erb_fb(state.erb_widths(), numbers.sr, inverse=True))
        self._filter = DF(num_freqs=numbers.nb_df, frame_size=numbers.df_order, lookahead=numbers.df_lookahead)
        self.nb_df, self._order, self._ahead = numbers.nb_df, numbers.df_order, numbers.conv_lookahead

    def forward(self, spectrum: torch.Tensor, bands: torch.Tensor, lowest: torch.Tensor) -> tuple[torch.Tensor]:
        ahead = (0, 0, -self._ahead, self._ahead)
        heard = {
            "feat_erb": torch.nn.functional.pad(bands, ahead).numpy(),
            "feat_spec": torch.nn.functional.pad(lowest.squeeze(1).permute(0, 3, 1, 2), ahead).numpy(),
        }
        e0, e1, e2, e3, embedding, c0, _ = self._encoder.run(None, heard)
        gains = self._bands.run(["m"], {"emb": embedding, "e3": e3, "e2": e2, "e1": e1, "e0": e0})[0]  # (1, 1, T, 32)
        filters = self._filters.run(["coefs"], {"emb": embedding, "c0": c0})[0]  # (1, T, 96, 10)
        taps = torch.from_numpy(filters).unflatten(3, (self._order, 2)).permute(0, 3, 1, 2, 4)  # (1, 5, T, 96, 2)
        cleaned = self._filter(spectrum.clone(), taps.contiguous())
        masked = spectrum * (torch.from_numpy(gains) @ self.widened)[..., None]
        return (torch.cat([cleaned[..., : self.nb_df, :], masked[..., self.nb_df :, :]], dim=-2),)


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # recordings are cleaned side by side
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - its errors have no common class but this one
        raise WeightsError(f"{path}: not an ONNX graph: {str(error)[:200]}") from None


def _load(config_file: Path, paths: list[Path]) -> tuple[Any, Any]:
    """The network and its filter-bank state. A checkpoint is read as plain tensors, whatever is pickled in it."""
    _check_config(config_file)
    prepare_deepfilternet()
    from df.config import config
    from df.model import ModelParams, init_model
    from loguru import logger

    logger.disable("df")
    config.load(str(config_file), config_must_exist=True, allow_defaults=True, allow_reload=True)
    state = filter_bank(ModelParams())
    if len(paths) > 1:
        return Graphs(paths, state, ModelParams()).eval(), state
    (checkpoint,) = paths
    model = init_model(state, run_df=True, train_mask=True)
    try:
        weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
        renamed = {name.replace("clc", "df"): tensor for name, tensor in weights.items()}  # older checkpoints
        missing, unexpected = model.load_state_dict(renamed, strict=False)
    except (pickle.UnpicklingError, RuntimeError, AttributeError, EOFError) as error:
        raise WeightsError(f"{checkpoint}: not a checkpoint of this network: {str(error)[:200]}") from None
    foreign = [name for name in unexpected if not name.endswith(".h0") and "erb_comp" not in name]
    if missing or foreign:
        raise WeightsError.keys_differ(str(checkpoint), missing, foreign)
    return model.eval(), state


def _check_config(path: Path) -> None:
    """The package imports a module by the name in this file, so only the names it has are let through."""
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise WeightsError(f"{path}: larger than {_MAX_CONFIG_BYTES} bytes")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (configparser.Error, UnicodeDecodeError) as error:
        raise WeightsError(f"{path}: {str(error)[:200]}") from None
    model = parser.get("train", "model", fallback="deepfilternet3")
    if model not in KNOWN_MODELS:
        raise WeightsError(f"{path}: model {model[:40]!r}; known are {', '.join(KNOWN_MODELS)}")
