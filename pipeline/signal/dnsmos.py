"""DNSMOS P.835: what listeners would say about the speech, the background and the whole, from one to five.

Reddy et al., ICASSP 2022; the ONNX files are those in the speechmos package. They are run directly, because that
package compiles librosa at its first call. It hears noise, music and reverberation; it does not hear a narrow band
and hardly clipping.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from pipeline.signal.frames import ANALYSIS_RATE_HZ, Floats
from pipeline.signal.packaged import dnsmos_file

WINDOW_SAMPLES = 144_160  # 9.01 s
MOST_WINDOWS = 12  # of a recording of half an hour
_BATCH = 4
# Calibration of the raw outputs to P.835 votes, highest power first (the model's publication).
_SIG = (-0.08397278, 1.22083953, 0.0052439)
_BAK = (-0.13166888, 1.60915514, -0.39604546)
_OVR = (-0.06766283, 1.11546468, 0.04602535)


@dataclass(frozen=True)
class Opinion:
    """Mean opinion scores, 1 to 5: speech, background, overall."""

    sig: float
    bak: float
    ovr: float


def measure_dnsmos(samples: Floats, hop_s: float = 1.0) -> Opinion:
    """Mono 16 kHz in [-1, 1], (n,); shorter clips are repeated, longer ones averaged over windows every `hop_s`."""
    windows = _windows(np.clip(samples, -1, 1), int(hop_s * ANALYSIS_RATE_HZ))
    raw = np.concatenate([_run("sig_bak_ovr", windows[at : at + _BATCH]) for at in range(0, len(windows), _BATCH)])
    return calibrated(raw)


def calibrated(raw: Floats) -> Opinion:
    """The opinion of a clip from the network's outputs for its windows, (windows, 3)."""
    sig, bak, ovr = (float(np.polyval(c, raw[:, i]).mean()) for i, c in enumerate((_SIG, _BAK, _OVR)))
    return Opinion(sig, bak, ovr)


def own_windows(samples: Floats) -> list[Floats]:
    """The clip once, in equal pieces of about 9 s, at most `MOST_WINDOWS` of them spread over it.

    The original repeats a clip of 4 s until the network's window is full, and pays for the window. The network takes a
    maximum over time, so repetition changes little: without it the scores of short clips are 0.1 lower.
    """
    clipped = np.clip(samples, -1, 1)
    count = max(1, round(len(clipped) / WINDOW_SAMPLES))
    edges = np.linspace(0, len(clipped), count + 1).astype(int)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_WINDOWS)).round().astype(int))
    return [np.ascontiguousarray(clipped[edges[i] : edges[i + 1]]) for i in chosen]


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


def _run(name: str, batch: Floats) -> Floats:
    output: Floats = _session(name).run(None, {"input_1": batch})[0]
    return output


@cache
def _session(name: str) -> Any:
    import onnxruntime

    path = dnsmos_file(name)
    if path is None:
        raise ModuleNotFoundError("speechmos")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # recordings are judged side by side
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
