"""Golden values of FARGAN and its analysis: what opus 1.5.2 computes on three stretches of the sample voice.

    ./configure --enable-deep-plc --disable-rtcd --disable-intrinsics CFLAGS="-O2 -DHIGH_ACCURACY"   # in opus 1.5.2
    make fargan_demo
    python tests/golden/make_golden_fargan.py path/to/fargan_demo

HIGH_ACCURACY is opus' own switch for exact tanh and sigmoid; without it and with vector instructions the same program makes
speech that correlates with this one's to 0.83 to 0.94, because its noise grows out of rounding.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("fargan.safetensors")
STRETCHES = ((1, 0.3), (8, 0.3), (12, 1.3))  # number of the clip, start in seconds
SECONDS = 0.8
ROW, USED, WARM_UP = 36, 20, 5  # numbers of a frame in opus' files, those that matter, frames eaten before speech


def stretch(number: int, start_s: float) -> NDArray[np.int16]:
    """Samples of 16 bits at 16 kHz."""
    from pipeline.io.audio import read_audio, resample

    audio = read_audio(REPOSITORY / "voices" / "sample" / "wavs" / f"{number:03d}.flac")
    samples = resample(audio.mono, audio.sample_rate_hz, 16000)[int(start_s * 16000) :][: int(SECONDS * 16000)]
    return np.round(samples * 32767).astype(np.int16)


def run(program: Path, task: str, given: NDArray[np.generic], dtype: type[np.generic]) -> NDArray[np.generic]:
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "in", Path(folder) / "out"
        given.tofile(source)
        subprocess.run([str(program.resolve()), task, str(source), str(result)], check=True)
        return np.fromfile(result, dtype)


def compute(program: Path, samples: NDArray[np.int16]) -> dict[str, NDArray[np.generic]]:
    """Features of samples, and speech of the features with the first frame in place of silence before them."""
    rows = run(program, "-features", samples, np.float32).reshape(-1, ROW)
    speech = run(program, "-fargan-synthesis", np.concatenate([rows[:1].repeat(WARM_UP, 0), rows]), np.int16)
    return {"features": rows[:, :USED].copy(), "speech": speech}


def main() -> None:
    golden = {}
    for number, start_s in STRETCHES:
        for name, value in compute(Path(sys.argv[1]), stretch(number, start_s)).items():
            golden[f"{number}.{name}"] = value
    save_file(golden, GOLDEN)
    print(GOLDEN, GOLDEN.stat().st_size)


if __name__ == "__main__":
    main()
