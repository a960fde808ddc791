"""Writes ge2e.json: what Resemblyzer itself computes for the first clip of voices/sample.

    pip install resemblyzer==0.1.4 && python tests/golden/reference_ge2e.py

Resemblyzer needs a C compiler (webrtcvad 2.0.10), so it is no dependency of the tests.
"""

import json
from pathlib import Path

from resemblyzer import VoiceEncoder
from resemblyzer.audio import wav_to_mel_spectrogram

from pipeline.io.audio import read_audio, resample

HERE = Path(__file__).resolve().parent
SHOWN_FRAMES = slice(0, None, 40)
SHOWN_PARTIALS = 3


def main() -> None:
    audio = read_audio(sorted((HERE.parents[1] / "voices" / "sample" / "wavs").glob("*"))[0])
    samples = resample(audio.mono, audio.sample_rate_hz, 16_000)
    mel = wav_to_mel_spectrogram(samples)
    _, partials, _ = VoiceEncoder("cpu", verbose=False).embed_utterance(samples, return_partials=True)
    golden = {
        "frames": len(mel),
        "mel_max": float(mel.max()),
        "every_40th_frame": [[float(f"{value:.7g}") for value in frame] for frame in mel[SHOWN_FRAMES]],
        "partials": [[round(float(value), 7) for value in one] for one in partials[:SHOWN_PARTIALS]],
        "partials_made": len(partials),
    }
    (HERE / "ge2e.json").write_text(json.dumps(golden) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
