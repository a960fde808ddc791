"""Which fetched networks listen to speech, and which of them are here. Light: stage keys are made of it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pipeline.io.artifacts.cache import artifact_folder, artifact_table, is_pulled

EARS = {"speaker": "ecapa-voxceleb", "listener": "distillmos", "words": "whisper-base"}  # ear -> artifact
PACKAGES = {"words": "ctranslate2"}  # ear -> what runs it, where that is not voxline


def ear_digests(cache: Path) -> dict[str, str]:
    """Ear -> digest of its weights, of those that are here and can run; by the table, without reading them."""
    table = artifact_table()
    here = {ear: table[name] for ear, name in EARS.items() if is_pulled(table[name], cache)}
    runs = {ear for ear in here if ear not in PACKAGES or find_spec(PACKAGES[ear]) is not None}
    return {ear: artifact.in_cache[0].sha256 for ear, artifact in here.items() if ear in runs}


def ear_folder(cache: Path, ear: str) -> Path:
    """Where its files lie."""
    return artifact_folder(cache, EARS[ear])
