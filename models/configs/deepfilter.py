"""A folder with DeepFilterNet in its published layout; torch-free, so that its digest can be taken without it."""

import hashlib
from pathlib import Path

from models.errors import WeightsError


def weights_files(folder: Path) -> tuple[Path, Path]:
    """Configuration and newest best checkpoint. Raises WeightsError naming what is missing."""
    config = folder / "config.ini"
    if not config.is_file():
        raise WeightsError(f"{folder}: no config.ini; a DeepFilterNet folder has it beside checkpoints/")
    checkpoints = sorted((folder / "checkpoints").glob("model_*.ckpt.best"), key=_epoch)
    if not checkpoints:
        raise WeightsError(f"{folder}: no checkpoints/model_<epoch>.ckpt.best")
    return config, checkpoints[-1]


def weights_digest(folder: Path) -> str:
    """sha256 over configuration and checkpoint. Raises WeightsError as `weights_files` does."""
    hasher = hashlib.sha256()
    for path in weights_files(folder):
        hasher.update(path.read_bytes())
    return hasher.hexdigest()


def _epoch(path: Path) -> int:
    digits = path.name.split(".")[0].split("_")[-1]
    return int(digits) if digits.isdecimal() else -1
