"""Where speech is: WebRTC's detector, with silero as a second opinion.

WebRTC (a Gaussian mixture over six bands) finds every sound that has the spectrum of speech; it is fast and misses
little, but music and babble pass. Silero (a small recurrent network) knows what speech is. Regions come from the
first, doubt from the second.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.signal.frames import ANALYSIS_RATE_HZ, HOP_SAMPLES, Flags, Floats, Frames
from pipeline.signal.packaged import silero_file

Scalar = TypeVar("Scalar", bound=np.generic)
Detector = Callable[[Floats], Floats]  # mono 16 kHz (n,) -> probability of speech for every 32 ms, (n // 512,)

WEBRTC_FRAME_SAMPLES = 480  # 30 ms, the longest it takes
WEBRTC_MODE = 2
SILERO_FRAME_SAMPLES = 512
SILERO_CONTEXT_SAMPLES = 64
SILERO_SPEECH = 0.5
SILERO_PAUSE = 0.35


@dataclass(frozen=True)
class Speech:
    """The two opinions on the 10 ms grid of `Frames`, (frames,) each."""

    webrtc: Flags
    silero: Floats  # probability

    @property
    def sure(self) -> Flags:
        """Both hear speech."""
        return self.webrtc & (self.silero >= SILERO_SPEECH)

    @property
    def pause(self) -> Flags:
        """Neither does."""
        return ~self.webrtc & (self.silero < SILERO_PAUSE)


@dataclass(frozen=True)
class Region:
    """Part of a clip, in seconds."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


def webrtc_flags(samples: Floats, mode: int = WEBRTC_MODE) -> Flags:
    """One flag per 30 ms of mono 16 kHz samples at a usual level; (n // 480,)."""
    import _webrtcvad  # the module behind `webrtcvad`, whose Python half imports pkg_resources and warns

    detector = _webrtcvad.create()
    _webrtcvad.init(detector)
    _webrtcvad.set_mode(detector, mode)
    count = len(samples) // WEBRTC_FRAME_SAMPLES
    pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    size = 2 * WEBRTC_FRAME_SAMPLES
    process = _webrtcvad.process
    flags = [
        process(detector, ANALYSIS_RATE_HZ, pcm[at : at + size], WEBRTC_FRAME_SAMPLES)
        for at in range(0, count * size, size)
    ]
    return np.array(flags, dtype=bool)


def kept_seconds(regions: Sequence[Region], pause_max_s: float) -> float:
    """Speech with its natural pauses: regions, and of every pause between them what is kept in training."""
    pauses = [after.start_s - before.end_s for before, after in pairwise(regions)]
    return sum(region.duration_s for region in regions) + sum(min(pause, pause_max_s) for pause in pauses)


def regions_of(flags: Flags, frame_s: float, pause_max_s: float, burst_min_s: float) -> tuple[Region, ...]:
    """Speech regions: bursts shorter than `burst_min_s` are no speech, pauses up to `pause_max_s` belong to it."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    merged: list[list[int]] = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if (end - start) * frame_s < burst_min_s:
            continue
        if merged and (start - merged[-1][1]) * frame_s <= pause_max_s:
            merged[-1][1] = int(end)
        else:
            merged.append([int(start), int(end)])
    return tuple(Region(start * frame_s, end * frame_s) for start, end in merged)


def silero_probabilities(samples: Floats) -> Floats:
    """Probability of speech for every 32 ms of mono 16 kHz samples, (n // 512,)."""
    count = len(samples) // SILERO_FRAME_SAMPLES
    if count == 0:
        return np.zeros(0, np.float32)
    padded = np.zeros(SILERO_CONTEXT_SAMPLES + count * SILERO_FRAME_SAMPLES, np.float32)
    padded[SILERO_CONTEXT_SAMPLES:] = samples[: count * SILERO_FRAME_SAMPLES]
    width = SILERO_CONTEXT_SAMPLES + SILERO_FRAME_SAMPLES
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)[::SILERO_FRAME_SAMPLES]
    state = np.zeros((1, 1, 128), np.float32)
    feeds = {"input": np.ascontiguousarray(windows), "h": state, "c": state}
    probabilities: Floats = _silero_session().run(["speech_probs"], feeds)[0]
    return probabilities


@cache
def _silero_session() -> Any:
    import onnxruntime

    path = silero_file()
    if path is None:
        raise ModuleNotFoundError("silero_vad")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def find_speech(frames: Frames, silero: Detector = silero_probabilities) -> Speech:
    """Both detectors on one clip. `silero`: the network as it comes, or the same in less time
    (`models/judges/silero.py`)."""
    count = frames.power.shape[1]
    webrtc = on_grid(webrtc_flags(frames.samples), WEBRTC_FRAME_SAMPLES, count)
    return Speech(webrtc, on_grid(silero(frames.samples), SILERO_FRAME_SAMPLES, count))


def on_grid(values: npt.NDArray[Scalar], frame_samples: int, count: int) -> npt.NDArray[Scalar]:
    """Values per detector frame on the 10 ms grid: each of `count` frames takes the value at its centre."""
    if not len(values):
        return np.zeros(count, values.dtype)
    centres = np.arange(count) * HOP_SAMPLES + HOP_SAMPLES // 2
    gridded: npt.NDArray[Scalar] = values[np.minimum(centres // frame_samples, len(values) - 1)]
    return gridded
