"""Reading and resampling clips (section `reading` of benchmarks/models.py)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.report import REPOSITORY, Measurement, median_s
from pipeline.io.audio import read_audio, resample, write_audio

UPSTREAM_MS, FLOOR_MS, GOAL = 69.3, 1.2, "<= 1.5 ms"
CLIPS = 40
RATES_HZ = (16_000, 32_000)  # of the content encoder and of the synthesizer


def measure(repeats: int) -> list[Measurement]:
    """Real clips (4 to 6 s at 16 or 22.05 kHz) where VOXLINE_SHARED has them, else one of 5.7 s; and 5 s of 48 kHz."""
    shared = Path(os.environ.get("VOXLINE_SHARED", REPOSITORY.parent / "shared")) / "data" / "voices"
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        clips = sorted(shared.rglob("*.wav"))[:CLIPS] or [_noise(made / "clip.wav", 5.7, 22_050)]
        long = [_noise(made / "48.wav", 5.0, 48_000)]
        return [
            _measured(f"{name} to {rate_hz // 1000} kHz", found, rate_hz, repeats)
            for name, found in ((f"a clip (mean of {len(clips)})", clips), ("5 s of 48 kHz", long))
            for rate_hz in RATES_HZ
        ]


def _noise(path: Path, duration_s: float, rate_hz: int) -> Path:
    samples = np.random.default_rng(1).normal(0, 0.1, int(duration_s * rate_hz)).astype(np.float32)
    write_audio(path, samples, rate_hz)
    return path


def _measured(name: str, clips: list[Path], rate_hz: int, repeats: int) -> Measurement:
    def work() -> None:
        for clip in clips:
            audio = read_audio(clip)
            resample(audio.mono, audio.sample_rate_hz, rate_hz)

    median, detail = median_s(work, repeats)
    value = round(median / len(clips) * 1000, 2)
    is_theirs = rate_hz == 32_000
    return Measurement(
        f"reading {name}",
        value,
        "ms",
        UPSTREAM_MS,
        FLOOR_MS if is_theirs else None,
        GOAL,
        detail=detail,
    )
