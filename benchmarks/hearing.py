"""Ways to ask Whisper for the words of short recordings: CPU seconds and character errors of each.

    OMP_NUM_THREADS=1 python benchmarks/hearing.py ~/.cache/voxline/artifacts/whisper-base SHARED/data/corpus [CLIPS]

Errors are counted in letters as they are written (Mandarin simplified), as other programs count them.
"""

import csv
import re
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from models.judges.whisper import SAMPLE_RATE_HZ, Whisper, log_mels
from pipeline.io.audio import read_audio, resample
from pipeline.text.edits import edit_distance

WINDOW_FRAMES = 1500
GAP_S = 1.0


def recordings(corpus: Path, most: int) -> list[tuple[np.ndarray, str, str]]:
    """Samples, language and text: clips of 2 to 12 s, as many languages as there are in turn."""
    rows: dict[str, list] = {}
    for manifest in sorted(corpus.glob("*/manifest.csv")):
        for row in csv.DictReader(manifest.open(encoding="utf-8"), delimiter="|"):
            if row["text"] and 2 < float(row["seconds"]) < 12:
                rows.setdefault(row["language"], []).append((manifest.parent / row["file"], row))
    chosen = [one for found in rows.values() for one in found[:: max(1, len(found) * len(rows) // most)]]
    clips = []
    for path, row in chosen:
        audio = read_audio(path)
        clips.append((resample(audio.mono, audio.sample_rate_hz, SAMPLE_RATE_HZ), row["language"], row["text"]))
    return clips


def written(text: str, language: str) -> str:
    if language == "en":
        return " ".join(re.findall(r"[a-z0-9']+", text.lower()))
    from opencc import OpenCC

    return "".join(re.findall(r"\w", OpenCC("t2s").convert(text)))


class Ways:
    """Every way answers the texts of clips of one language."""

    def __init__(self, whisper: Whisper) -> None:
        self.whisper = whisper

    def _ask(self, vectors: np.ndarray, language: str, beams: int) -> str:
        whisper = self.whisper
        names = ("startoftranscript", language, "transcribe", "notimestamps")
        prompt = [whisper._pieces.token_to_id(f"<|{name}|>") for name in names]
        told = whisper._model.generate(whisper._array(vectors), [prompt], beam_size=beams, max_length=224)[0]
        return whisper._pieces.decode([token for token in told.sequences_ids[0] if token < whisper._end])

    def long(self, clips: list[np.ndarray], language: str) -> list[str]:
        return [self._ask(self.whisper._encode(log_mels(clip, WINDOW_FRAMES)), language, 1) for clip in clips]

    def short(
        self, clips: list[np.ndarray], language: str, *, tail: int = 25, beams: int = 1, filled: bool = True
    ) -> list[str]:
        texts = []
        for clip in clips:
            vectors = self.whisper._encode(log_mels(clip, -(-len(clip) // 320) + tail))
            rest = self.whisper._silence[:, vectors.shape[1] if filled else WINDOW_FRAMES :]
            texts.append(self._ask(np.concatenate([vectors, rest], axis=1), language, beams))
        return texts

    def packed(self, clips: list[np.ndarray], language: str) -> list[str]:
        """Several clips with a second between them in one window; what is written between time stamps is the clip's
        that is due there."""
        texts, group = [""] * len(clips), []
        for number, clip in enumerate(clips):
            begin_s = group[-1][1] + len(clips[group[-1][0]]) / SAMPLE_RATE_HZ + GAP_S if group else 0.0
            if begin_s + len(clip) / SAMPLE_RATE_HZ > 29.5:
                self._unpack(clips, group, texts, language)
                group, begin_s = [], 0.0
            group.append((number, begin_s))
        self._unpack(clips, group, texts, language)
        return texts

    def _unpack(self, clips: list, group: list, texts: list[str], language: str) -> None:
        whisper, window = self.whisper, np.zeros(30 * SAMPLE_RATE_HZ, np.float32)
        for number, begin_s in group:
            first = round(begin_s * SAMPLE_RATE_HZ)
            window[first : first + len(clips[number])] = clips[number]
        names = ("startoftranscript", language, "transcribe")
        prompt = [whisper._pieces.token_to_id(f"<|{name}|>") for name in names]
        vectors = whisper._array(whisper._encode(log_mels(window, WINDOW_FRAMES)))
        first_stamp, owner = whisper._pieces.token_to_id("<|notimestamps|>") + 1, group[0][0]
        for token in whisper._model.generate(vectors, [prompt], beam_size=1, max_length=400)[0].sequences_ids[0]:
            if token >= first_stamp:
                at_s = (token - first_stamp) * 0.02 + GAP_S / 2
                owner = max((one for one in group if one[1] <= at_s), key=lambda one: one[1])[0]
            elif token < whisper._end:
                texts[owner] += whisper._pieces.decode([token])


def main() -> None:
    clips = recordings(Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 16)
    ways = Ways(Whisper(Path(sys.argv[1]), 1))
    tried = {
        "windows of 30 s": ways.long,
        "as long as the clip": lambda *one: ways.short(*one, tail=0),
        "half a second longer": ways.short,
        "the same, five beams": lambda *one: ways.short(*one, beams=5),
        "the same, no silence behind": lambda *one: ways.short(*one, filled=False),
        "packed into 30 s": ways.packed,
    }
    for name, way in tried.items():
        told = [name]
        began = time.process_time()
        for language in sorted({one[1] for one in clips}):
            own = [one for one in clips if one[1] == language]
            pairs = list(zip(own, way([one[0] for one in own], language), strict=True))
            texts = [(written(one[2], language), written(heard, language)) for one, heard in pairs]
            errors = sum(edit_distance(heard, said) for said, heard in texts)
            told.append(f"{language} {errors / sum(len(said) for said, _ in texts):.3f}")
        print(f"{' '.join(told)}  {(time.process_time() - began) / len(clips):.2f} CPU s a clip", flush=True)


if __name__ == "__main__":
    main()
