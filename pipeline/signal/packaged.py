"""Networks that lie inside installed packages, found without importing those packages."""

from importlib.util import find_spec
from pathlib import Path


def silero_file() -> Path | None:
    """silero-vad for 16 kHz, None where the package is not installed."""
    return _inside("silero_vad", "data/silero_vad_16k_sequence.onnx")


def dnsmos_file(name: str = "sig_bak_ovr") -> Path | None:
    """DNSMOS P.835 (or `model_v8`, P.808) of the package speechmos, None where that is not installed."""
    return _inside("speechmos", f"dnsmos_models/{name}.onnx")


def _inside(package: str, file: str) -> Path | None:
    found = find_spec(package)
    return None if found is None or found.origin is None else Path(found.origin).parent / file
