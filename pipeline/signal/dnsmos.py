"""DNSMOS P.835: what listeners would say about the speech, the background and the whole, from one to five.

Reddy et al., ICASSP 2022; the ONNX files are those in the speechmos package. They are run directly, because that
package compiles librosa at its first call. It hears noise, music and reverberation; it does not hear a narrow band
and hardly clipping.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.signal.frames import ANALYSIS_RATE_HZ, Floats
from pipeline.signal.mel import mel_power

WINDOW_SAMPLES = 144_160  # 9.01 s
_BATCH = 4
# Calibration of the raw outputs to P.835 votes, highest power first (the model's publication).
_SIG = (-0.08397278, 1.22083953, 0.0052439)
_BAK = (-0.13166888, 1.60915514, -0.39604546)
_OVR = (-0.06766283, 1.11546468, 0.04602535)


@dataclass(frozen=True)
class Opinion:
    """Mean opinion scores, 1 to 5: speech, background, overall, and the older P.808 model's single score."""

    sig: float
    bak: float
    ovr: float
    p808: float | None


def measure_dnsmos(samples: Floats, hop_s: float = 1.0, with_p808: bool = False) -> Opinion:
    """Mono 16 kHz in [-1, 1], (n,); shorter clips are repeated, longer ones averaged over windows every `hop_s`."""
    windows = _windows(np.clip(samples, -1, 1), int(hop_s * ANALYSIS_RATE_HZ))
    raw = np.concatenate([_run("sig_bak_ovr", windows[at : at + _BATCH]) for at in range(0, len(windows), _BATCH)])
    sig, bak, ovr = (float(np.polyval(c, raw[:, i]).mean()) for i, c in enumerate((_SIG, _BAK, _OVR)))
    p808 = None
    if with_p808:
        features = np.stack([_p808_features(window) for window in windows])
        p808 = float(_run("model_v8", features).mean())
    return Opinion(sig, bak, ovr, p808)


def _windows(samples: Floats, hop: int) -> Floats:
    """(windows, 144160); like the original, a short clip is doubled until it is long enough."""
    if not len(samples):
        raise ValueError("no samples")
    while len(samples) < WINDOW_SAMPLES:
        samples = np.concatenate([samples, samples])
    count = int(len(samples) // ANALYSIS_RATE_HZ - 9.01) + 1  # as the original counts its one-second hops
    starts = [at * ANALYSIS_RATE_HZ for at in range(0, count, max(1, hop // ANALYSIS_RATE_HZ))]
    windows: Floats = np.stack([samples[at : at + WINDOW_SAMPLES] for at in starts]).astype(np.float32)
    return windows


def _p808_features(window: Floats) -> Floats:
    """Log-mel of the window without its last 10 ms, (900, 120), scaled as the model expects."""
    power = mel_power(window[:-160], ANALYSIS_RATE_HZ, 321, 160, 120)
    level = 10 * np.log10(np.maximum(power, 1e-10) / max(float(power.max()), 1e-10))
    return np.asarray((np.maximum(level, -80.0) + 40) / 40, dtype=np.float32)


def _run(name: str, batch: Floats) -> Floats:
    output: Floats = _session(name).run(None, {"input_1": batch})[0]
    return output


def dnsmos_weights(name: str) -> Path | None:
    """The network's file in the installed speechmos package, None where that is not installed."""
    package = find_spec("speechmos")
    if package is None or package.origin is None:
        return None
    return Path(package.origin).parent / "dnsmos_models" / f"{name}.onnx"


@cache
def _session(name: str) -> Any:
    import onnxruntime

    path = dnsmos_weights(name)
    if path is None:
        raise ModuleNotFoundError("speechmos")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # recordings are judged side by side
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
