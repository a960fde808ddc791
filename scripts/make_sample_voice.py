"""Renders voices/sample with flite's `rms` voice (Debian package flite): each of SENTENCES becomes one FLAC file.

    apt-get install flite && .venv/bin/python scripts/make_sample_voice.py

The recordings are synthetic, so the consent names no person, and they may be given away.
"""

from __future__ import annotations

import csv
import subprocess
import tempfile
from pathlib import Path

import soundfile

FOLDER = Path(__file__).resolve().parent.parent / "voices" / "sample"

SENTENCES = (
    "Good morning, and welcome to the first lecture of the new term.",
    "Please open your books on page 42, and read the second paragraph.",
    "Did you remember to bring the keys to the laboratory?",
    "The train to Edinburgh leaves at half past seven from platform nine.",
    "Doctor Rosalind Franklin took a photograph that changed biology.",
    "In 1969, three people flew to the moon, and two of them walked on it.",
    "The quick brown fox jumps over the lazy dog, as everybody knows.",
    "How many cups of coffee does a good idea need?",
    "We measured 17 samples, and 5 of them were thrown away.",
    "Her voice was calm, clear, and just a little amused.",
    "Turn left at the bridge, then follow the river for two miles.",
    "Why would anyone paint a perfectly good door bright yellow?",
    "The weather on Thursday will be cold, with showers in the afternoon.",
    "Ada Lovelace wrote the first program before there was a computer.",
    "Nothing travels faster than light, except perhaps bad news.",
    "Could you spell your surname for me, please?",
    "The museum opens at ten, and the last tour begins at 4 o'clock.",
    "A small boat with a red sail drifted slowly across the bay.",
    "My neighbour George keeps bees, chickens, and one very old horse.",
    "The answer is not 12, and it is not 13 either.",
    "If you think about it, every map is a kind of story.",
    "She sold the house, bought a van, and drove to Portugal.",
    "Is there any milk left, or should I go to the shop?",
    "The judge thanked the jury, and the long trial was finally over.",
    "Fresh bread, sharp cheese, and a ripe pear make a fine lunch.",
    "Seven hundred voices sang together in the old cathedral.",
    "You can choose the blue one, the green one, or both of them.",
    "Would you rather be early, or exactly on time?",
    "The engine coughed twice, shook itself, and began to run.",
    "Thank you for listening, and see you all again next week.",
)


def render(text: str, path: Path) -> float:
    """Speak one sentence into a FLAC file; returns its length in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "spoken.wav"
        subprocess.run(["flite", "-voice", "rms", "-t", text, "-o", str(wav)], check=True)
        samples, rate_hz = soundfile.read(wav, dtype="int16")
        soundfile.write(path, samples, rate_hz, format="FLAC")
    return len(samples) / rate_hz


def main() -> None:
    (FOLDER / "wavs").mkdir(parents=True, exist_ok=True)
    seconds = 0.0
    with (FOLDER / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["file_name", "text"])
        for number, text in enumerate(SENTENCES, start=1):
            name = f"wavs/{number:03d}.flac"
            seconds += render(text, FOLDER / name)
            writer.writerow([name, text])
    print(f"{len(SENTENCES)} sentences, {seconds:.1f} s")


if __name__ == "__main__":
    main()
