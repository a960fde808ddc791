"""A folder with DeepFilterNet, as its authors publish it; torch-free, so that its digest can be taken without it.

Either the checkpoint of its training (`config.ini`, `checkpoints/model_<epoch>.ckpt.best`) or its export (`config.ini`
and three ONNX graphs), which `voxline artifacts pull deepfilternet3` fetches.
"""

import hashlib
from pathlib import Path

from models.errors import WeightsError

GRAPHS = ("enc.onnx", "erb_dec.onnx", "df_dec.onnx")


def weights_files(folder: Path) -> tuple[Path, ...]:
    """Configuration, then the three graphs or the newest best checkpoint. Raises WeightsError naming what is absent."""
    config = folder / "config.ini"
    if not config.is_file():
        raise WeightsError(f"{folder}: no config.ini; a DeepFilterNet folder has it beside checkpoints/")
    graphs = tuple(folder / name for name in GRAPHS)
    if all(graph.is_file() for graph in graphs):
        return config, *graphs
    checkpoints = sorted((folder / "checkpoints").glob("model_*.ckpt.best"), key=_epoch)
    if not checkpoints:
        raise WeightsError(f"{folder}: no checkpoints/model_<epoch>.ckpt.best")
    return config, checkpoints[-1]


def weights_digest(folder: Path) -> str:
    """sha256 over configuration and weights. Raises WeightsError as `weights_files` does."""
    hasher = hashlib.sha256()
    for path in weights_files(folder):
        hasher.update(path.read_bytes())
    return hasher.hexdigest()


def _epoch(path: Path) -> int:
    digits = path.name.split(".")[0].split("_")[-1]
    return int(digits) if digits.isdecimal() else -1
