"""What Whisper's encoder hears in a prepared corpus, and what its decoder reads from vectors that stand for it.

    python scripts/whisper_teacher.py hear WHISPER FOLDER                       # writes FOLDER/teacher.f16
    python scripts/whisper_teacher.py read WHISPER FOLDER                       # character errors of teacher.f16
    python scripts/whisper_teacher.py read WHISPER FOLDER --vectors tokens.npz  # of vectors made from tokens instead

FOLDER is a prepared corpus (`sound.npy`, `clips.json`), WHISPER one of Whisper converted for CTranslate2. `hear` writes
50 vectors a second as float16, clip after clip, and continues where it was stopped. `read` is a gauge of tokens that
needs no vocoder: Whisper's own decoder loses 4 % of the letters on its encoder's vectors. Needs `faster-whisper`, which
need not be in the project's own environment.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from pipeline.text.edits import edit_distance  # noqa: E402

HOP_SAMPLES = 320
WIDTH = 512
LONGEST = 1500  # frames of Whisper's window, 30 s
Vectors = NDArray[np.float32]


class Whisper:
    """Encoder and decoder of one CTranslate2 folder, one thread."""

    def __init__(self, folder: Path) -> None:
        import ctranslate2
        from faster_whisper.feature_extractor import FeatureExtractor
        from faster_whisper.tokenizer import Tokenizer
        from tokenizers import Tokenizer as Pieces

        self._view = ctranslate2.StorageView.from_array
        self._model: Any = ctranslate2.models.Whisper(
            str(folder), device="cpu", compute_type="float32", intra_threads=1, inter_threads=1
        )
        self._mel = FeatureExtractor()
        pieces = Pieces.from_file(str(folder / "tokenizer.json"))
        self._words = {code: Tokenizer(pieces, True, task="transcribe", language=code) for code in ("en", "zh")}
        self._silence = self.hear(np.zeros(LONGEST * HOP_SAMPLES, np.float32))

    def hear(self, samples: Vectors) -> Vectors:
        """Vectors (T, 512) of samples; the window is as long as the clip."""
        frames = len(samples) // HOP_SAMPLES
        mel = self._mel(samples, padding=0)[:, : 2 * frames]
        mel = np.pad(mel, ((0, 0), (0, 2 * frames - mel.shape[1])), mode="edge")
        heard = self._model.encode(self._view(np.ascontiguousarray(mel[None], dtype=np.float32)))
        vectors: Vectors = np.array(heard)[0]
        return vectors

    def read(self, vectors: Vectors, language: str) -> str:
        """Text of vectors (T, 512). Silence behind them, without it the decoder does not find an end."""
        words = self._words[language]
        window = self._view(np.ascontiguousarray(np.concatenate([vectors, self._silence[len(vectors) :]])[None]))
        prompt = [*words.sot_sequence, words.no_timestamps]
        found = self._model.generate(window, [prompt], beam_size=1, max_length=224)[0].sequences_ids[0]
        return str(words.decode([token for token in found if token < words.eot]))


def hear(whisper: Whisper, folder: Path) -> None:
    """Write teacher.f16 for the clips of a prepared corpus."""
    clips = json.loads((folder / "clips.json").read_text(encoding="utf-8"))
    sound = np.load(folder / "sound.npy", mmap_mode="r")
    path = folder / "teacher.f16"
    ends = np.cumsum([0] + [clip["samples"] // HOP_SAMPLES for clip in clips]) * WIDTH * 2  # bytes
    stored = path.stat().st_size if path.exists() else 0
    first = int(np.searchsorted(ends, stored, side="right")) - 1
    with path.open("r+b" if stored else "wb") as file:
        file.truncate(int(ends[first]))
        file.seek(int(ends[first]))
        for number, clip in enumerate(clips[first:], first + 1):
            samples = sound[clip["start"] : clip["start"] + clip["samples"]] / np.float32(32768)
            file.write(whisper.hear(samples.astype(np.float32)).astype(np.float16).tobytes())
            if number % 50 == 0:
                print(f"{number} of {len(clips)}", flush=True)


def read(whisper: Whisper, folder: Path, made: Path | None) -> None:
    """Character errors by speaker; `made` is an .npz of vectors by the clip's place in clips.json."""
    clips = json.loads((folder / "clips.json").read_text(encoding="utf-8"))
    ends = np.cumsum([0] + [clip["samples"] // HOP_SAMPLES for clip in clips])
    heard = np.memmap(folder / "teacher.f16", np.float16, "r").reshape(-1, WIDTH)
    vectors = np.load(made) if made else {str(at): heard[ends[at] : ends[at + 1]] for at in range(len(clips))}
    counts: dict[str, list[int]] = {}
    for at, clip in enumerate(clips):
        if str(at) in vectors and clip["text"]:
            said = letters(clip["text"], clip["language"])
            found = whisper.read(vectors[str(at)].astype(np.float32), clip["language"])
            errors = min(edit_distance(letters(found, clip["language"]), said), len(said))
            for name in (clip["speaker"], f"all {clip['language']}"):
                count = counts.setdefault(name, [0, 0])
                count[0], count[1] = count[0] + errors, count[1] + len(said)
    for name, (errors, total) in sorted(counts.items()):
        print(f"{name}: {errors / max(total, 1):.3f} of {total} letters")


def letters(text: str, language: str) -> str:
    """What counts: words of English without case and marks, characters of Mandarin."""
    return " ".join(re.findall(r"[a-z0-9']+", text.lower())) if language == "en" else "".join(re.findall(r"\w", text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("hear", "read"))
    parser.add_argument("whisper", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vectors", type=Path, help="made from tokens")
    options = parser.parse_args()
    whisper = Whisper(options.whisper)
    if options.task == "hear":
        hear(whisper, options.folder)
    else:
        read(whisper, options.folder, options.vectors)


if __name__ == "__main__":
    main()
