"""Which networks a validation would ask, by the digests of their weights: part of the stage's key.

So other weights, a newer package or a tool that was not there before judge a voice again. Imports nothing heavy.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from models.configs.deepfilter import weights_digest
from models.configs.ge2e import WEIGHTS as GE2E_WEIGHTS
from models.errors import WeightsError
from models.loading.bases import load_base
from pipeline.io.artifacts.cache import artifact_folder, artifact_table, is_pulled
from pipeline.records.settings import ValidateSettings
from pipeline.signal.packaged import dnsmos_file, silero_file

RECOGNISER_BASE = "nano"
DENOISER, LIKENESS, WORDS = "deepfilternet3", "ecapa-voxceleb", "whisper-base"  # artifacts


def tool_digests(settings: ValidateSettings, cache: Path) -> dict[str, str]:
    """sha256 by tool, of those that the settings ask for and that are here."""
    files = {"silero": silero_file()}
    if settings.dnsmos:
        files["dnsmos"] = dnsmos_file()
    if settings.speakers:
        files["ge2e"] = GE2E_WEIGHTS
    if settings.acoustic:
        files["phones"] = recogniser_weights(cache)
    digests = {name: _digest(path) for name, path in files.items() if path is not None and path.is_file()}
    if settings.acoustic and words_folder(cache) is not None:
        digests["whisper"] = artifact_table()[WORDS].in_cache[0].sha256
    if settings.denoise != "off":
        try:
            digests["deepfilternet"] = weights_digest(denoiser_folder(settings, cache))
        except (WeightsError, OSError):  # told where they are loaded
            pass
        else:
            if likeness_weights(cache) is not None:
                digests["ecapa"] = artifact_table()[LIKENESS].in_cache[0].sha256
    return dict(sorted(digests.items()))


def denoiser_folder(settings: ValidateSettings, cache: Path) -> Path:
    """The folder of DeepFilterNet: of the settings, else what was pulled."""
    if settings.denoise_weights:
        return Path(settings.denoise_weights).expanduser()
    return artifact_folder(cache, DENOISER)


def likeness_weights(cache: Path) -> Path | None:
    """The ear that tells whether a cleaned voice is still the same, None where it was not pulled."""
    artifact = artifact_table()[LIKENESS]
    return artifact_folder(cache, LIKENESS) / artifact.in_cache[0].name if is_pulled(artifact, cache) else None


def words_folder(cache: Path) -> Path | None:
    """Whisper, None where it was not pulled or nothing runs it."""
    is_here = is_pulled(artifact_table()[WORDS], cache) and find_spec("ctranslate2") is not None
    return artifact_folder(cache, WORDS) if is_here else None


def recogniser_weights(cache: Path) -> Path | None:
    """The content encoder that hears phones, None where the base has none."""
    base = load_base(RECOGNISER_BASE)
    return base.weight_path("content", cache) if "content" in base.weights else None


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
