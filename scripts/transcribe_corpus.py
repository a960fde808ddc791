"""Write down what is said in the clips of a manifest that have no transcript: Whisper hears, Moonshine checks.

    python scripts/transcribe_corpus.py --manifest ../shared/data/corpus/manifest.csv --whisper whisper-base \\
        --moonshine moonshine/package --out recipes/transcripts.csv

A text is kept where both recognisers heard nearly the same (`--agree`). It is Whisper's, with its punctuation.
`--whisper` is a folder of Whisper converted for CTranslate2. `--moonshine` is one that has, at any depth,
`encoder_model.onnx` and `decoder_model_merged.onnx` of Moonshine tiny and `llama-tokenizer.js`, whose words it uses.
Needs `faster-whisper`, `onnxruntime`, `soundfile` and `soxr`, which need not be in the project's own environment.
"""

from __future__ import annotations

import argparse
import base64
import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import soundfile  # noqa: E402
import soxr  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from pipeline.text.edits import edit_distance  # noqa: E402

SAMPLE_RATE_HZ = 16000
TOKENS_PER_SECOND = 6  # of Moonshine; more is a loop
END = 2  # of Moonshine's text, 1 is its beginning
ORIGIN = (
    "Texts of clips without a transcript, made by scripts/transcribe_corpus.py: heard by Whisper base, kept where",
    "Moonshine tiny heard nearly the same; cer_between is the share of letters they differ in. Licence of the clips:",
)
FIELDS = ("file", "text", "cer_between", "seconds")

Recognise = Callable[[NDArray[np.float32]], str]


def load_whisper(folder: Path) -> Recognise:
    """English Whisper, beam of five, one thread."""
    from faster_whisper import WhisperModel

    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1, num_workers=1)

    def recognise(samples: NDArray[np.float32]) -> str:
        segments, _ = model.transcribe(samples, language="en", beam_size=5, condition_on_previous_text=False)
        return " ".join(segment.text.strip() for segment in segments)

    return recognise


def load_moonshine(folder: Path) -> Recognise:
    """Moonshine tiny, the likeliest token at each step."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    encoder, decoder = (
        onnxruntime.InferenceSession(str(next(folder.rglob(name))), options, providers=["CPUExecutionProvider"])
        for name in ("encoder_model.onnx", "decoder_model_merged.onnx")
    )
    pieces = read_vocabulary(next(folder.rglob("llama-tokenizer.js")))

    def recognise(samples: NDArray[np.float32]) -> str:
        hidden = encoder.run(None, {"input_values": samples[None]})[0]
        tokens = decode(decoder, hidden, int(len(samples) / SAMPLE_RATE_HZ * TOKENS_PER_SECOND))
        return "".join(pieces[token] for token in tokens).replace("\u2581", " ").strip()

    return recognise


def read_vocabulary(path: Path) -> list[str]:
    """Pieces of words in the order of their numbers, out of the tokenizer's JavaScript, which is not run."""
    match = re.search(r'llama_vocab_base64\s*=\s*"([A-Za-z0-9+/=]+)"', path.read_text(encoding="utf-8"))
    if match is None:
        raise SystemExit(f"{path}: no vocabulary in it")
    return base64.b64decode(match.group(1)).decode("utf-8").split("\n")


def decode(decoder: Any, hidden: NDArray[np.float32], longest: int) -> list[int]:
    """Tokens for the encoder's output; the attention of past tokens is kept."""
    named = {place.name: place for place in decoder.get_inputs()}
    names = [place.name for place in decoder.get_outputs()]
    past = {
        name: np.zeros((0, place.shape[1], 1, place.shape[3]), np.float32)
        for name, place in named.items()
        if name.startswith("past_key_values")
    }
    tokens: list[int] = []
    last = 1
    for step in range(longest):
        feeds = {"input_ids": np.array([[last]]), "encoder_hidden_states": hidden, "use_cache_branch": [step > 0]}
        outputs = dict(zip(names, decoder.run(None, feeds | past), strict=True))
        last = int(outputs["logits"][0, -1].argmax())
        if last == END:
            break
        tokens.append(last)
        for name in past:  # what was made of the sound stays as the first step made it
            if step == 0 or ".decoder." in name:
                past[name] = outputs[name.replace("past_key_values", "present")]
    return tokens


def letters(text: str) -> str:
    """What two recognisers should agree on."""
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))


def read_samples(path: Path) -> NDArray[np.float32]:
    """A recording, mono at 16 kHz."""
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    resampled: NDArray[np.float32] = soxr.resample(samples.mean(axis=1), rate_hz, SAMPLE_RATE_HZ).astype(np.float32)
    return resampled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--whisper", type=Path, required=True)
    parser.add_argument("--moonshine", type=Path, required=True)
    parser.add_argument("--agree", type=float, default=0.1, help="highest share of letters heard differently")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with options.manifest.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file, delimiter="|", quoting=csv.QUOTE_NONE))
    wanted = [line for line in lines if line["language"] == "en" and not line["text"]]
    whisper, moonshine = load_whisper(options.whisper), load_moonshine(options.moonshine)
    kept = 0
    with options.out.open("w", encoding="utf-8", newline="") as file:
        file.writelines(f"# {line}\n" for line in (*ORIGIN, *sorted({line["license"] for line in wanted})))
        writer = csv.writer(file, delimiter="|", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
        writer.writerow(FIELDS)
        for line in wanted:
            samples = read_samples(options.manifest.parent / line["file"])
            text, check = whisper(samples), moonshine(samples)
            difference = edit_distance(letters(text), letters(check)) / max(len(letters(text)), 1)
            print(f"{line['file']} {difference:.3f}\n  {text}\n  {check}", flush=True)
            if difference <= options.agree:
                writer.writerow([line["file"], text.replace("|", " "), f"{difference:.3f}", line["seconds"]])
                kept += 1
    print(f"{kept} of {len(wanted)} clips kept")


if __name__ == "__main__":
    main()
