"""Speak Mandarin to train on: Kokoro says the sentences of a list, Whisper refuses what it cannot read back.

    python scripts/speak_corpus.py --texts recipes/mandarin_sentences.txt --kokoro kokoro --whisper whisper-base \\
        --out data/kokoro_zh

Synthetic speech teaches words and prosody, never timbre (a source with `synthetic: true` in a recipe), and is not
shipped. `--kokoro` is a folder with, at any depth, `kokoro.onnx` (sha256 8fbea51e...), `vocab.json` and the voices
as `*.bin`; where they are to be had is said in docs/pretraining.md. `--whisper` is a folder of Whisper converted for
CTranslate2. Needs `misaki[zh]` beside the project's own packages; any environment will do.

Sentence i is said by voice i mod 7 at a tempo of its own, so the same call makes the same clips. A killed run
continues. `--part 0/2` and `--part 1/2` share the work between two processes; the last call, without it, says what
is missing and writes `manifest.csv`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import soundfile  # noqa: E402
import soxr  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from pypinyin import Style, lazy_pinyin  # noqa: E402

from models.judges.whisper import load_whisper  # noqa: E402
from pipeline.text.edits import edit_distance  # noqa: E402

NETWORK_SHA256 = "8fbea51ea711f2af382e88c833d9e288c6dc82ce5e98421ea61c058ce21a34cb"
# The Mandarin voices of Kokoro 1.0 but zf_xiaoni, whom Whisper misreads in 43 % of the syllables.
VOICES = ("zf_xiaobei", "zf_xiaoxiao", "zf_xiaoyi", "zm_yunjian", "zm_yunxi", "zm_yunxia", "zm_yunyang")
SLOWEST, FASTEST = 0.85, 1.15
KOKORO_HZ, STORED_HZ = 24_000, 16_000
STYLE_NUMBERS = 256
MOST_ERRORS = 0.1  # of a clip's syllables
HAN = re.compile("[\u4e00-\u9fff]")
LICENCE = "Apache-2.0 (Kokoro-82M, synthetic)"

Hear = Callable[[NDArray[np.float32]], str]


@dataclass(frozen=True)
class Line:
    """One sentence, who says it and how fast."""

    number: int
    text: str
    voice: str
    tempo: float

    @property
    def file(self) -> str:
        return f"{self.voice}/{self.number:04d}.flac"


class Kokoro:
    """Kokoro-82M 1.0 by ONNX Runtime, on one thread."""

    def __init__(self, folder: Path) -> None:
        from misaki.zh import ZHG2P

        network = next(folder.rglob("kokoro.onnx"))
        with network.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != NETWORK_SHA256:
                raise SystemExit(f"{network}: not the network of Kokoro 1.0 in float32")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])
        self._ids: dict[str, int] = json.loads(next(folder.rglob("vocab.json")).read_text(encoding="utf-8"))["vocab"]
        self._styles = {
            name: np.fromfile(next(folder.rglob(f"{name}.bin")), np.float32).reshape(-1, 1, STYLE_NUMBERS)
            for name in VOICES
        }
        self._read: Any = ZHG2P()

    def __call__(self, line: Line) -> NDArray[np.float32]:
        """Samples at STORED_HZ."""
        phones = self._read(line.text)[0]
        ids = [self._ids[phone] for phone in phones if phone in self._ids]
        style = self._styles[line.voice]
        feeds = {
            "input_ids": np.array([[0, *ids, 0]]),
            "style": style[min(len(ids), len(style) - 1)],
            "speed": np.array([line.tempo], np.float32),
        }
        spoken = self._session.run(None, feeds)[0].ravel()
        stored: NDArray[np.float32] = soxr.resample(spoken, KOKORO_HZ, STORED_HZ).astype(np.float32)
        return stored


def read_lines(path: Path) -> list[Line]:
    """The sentences of a file, one a line; # begins a comment."""
    texts = [text.strip() for text in path.read_text(encoding="utf-8").splitlines()]
    texts = [text for text in texts if text and not text.startswith("#")]
    for text in texts:
        if re.search("[0-9A-Za-z]", text):
            raise SystemExit(f"{path}: {text!r} has digits or Latin letters, which may be read in several ways")
    return [Line(i, text, VOICES[i % len(VOICES)], _tempo(text)) for i, text in enumerate(texts)]


def _tempo(text: str) -> float:
    share = zlib.crc32(text.encode()) % 1000 / 999
    return round(SLOWEST + (FASTEST - SLOWEST) * share, 3)


def syllables(text: str) -> list[str]:
    """Pinyin without tones of what is Han in a text: homophones are no errors."""
    return lazy_pinyin("".join(HAN.findall(text)), style=Style.NORMAL)


def speak(lines: Sequence[Line], kokoro: Path, out: Path) -> None:
    """Say what is not said yet."""
    missing = [line for line in lines if not (out / line.file).exists()]
    if not missing:
        return
    say = Kokoro(kokoro)
    for line in missing:
        path = out / line.file
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        soundfile.write(partial, say(line), STORED_HZ, format="FLAC")
        partial.replace(path)


def heard_well(lines: Sequence[Line], hear: Hear, out: Path) -> Iterator[tuple[Line, float]]:
    """Lines that can be read back, and their seconds. What was heard is kept in `heard.csv`."""
    journal = out / "heard.csv"
    journal.touch()
    known = dict(line.split("|", 1) for line in journal.read_text(encoding="utf-8").splitlines())
    refused = 0
    for line in lines:
        samples = soundfile.read(out / line.file, dtype="float32")[0]
        if line.file not in known:
            known[line.file] = hear(samples).replace("|", " ").replace("\n", " ")
            with journal.open("a", encoding="utf-8") as file:
                file.write(f"{line.file}|{known[line.file]}\n")
        said = syllables(line.text)
        if edit_distance(said, syllables(known[line.file])) > MOST_ERRORS * len(said):
            refused += 1
            continue
        yield line, len(samples) / STORED_HZ
    print(f"{refused} of {len(lines)} clips refused")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--kokoro", type=Path, required=True)
    parser.add_argument("--whisper", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", help="k/n: only speak every n-th sentence, from the k-th on")
    options = parser.parse_args()
    lines = read_lines(options.texts)
    if options.part:
        first, every = map(int, options.part.split("/"))
        speak(lines[first::every], options.kokoro, options.out)
        return
    speak(lines, options.kokoro, options.out)
    whisper = load_whisper(options.whisper)
    partial, seconds = options.out / "manifest.partial", 0.0
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="|", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
        writer.writerow(["file", "speaker", "language", "text", "seconds", "license"])
        for line, duration in heard_well(lines, lambda samples: whisper.hear(samples, "zh").text, options.out):
            writer.writerow([line.file, f"kokoro_{line.voice}", "zh", line.text, f"{duration:.3f}", LICENCE])
            seconds += duration
    partial.replace(options.out / "manifest.csv")
    print(f"{seconds / 60:.1f} minutes kept")


if __name__ == "__main__":
    main()
