"""Does validation find what is wrong with recordings it has never seen, and leave good ones alone?

    python -m benchmarks.detection                 # every kind of fault, several voices and strengths
    python -m benchmarks.detection --kind dropouts --show
    python -m benchmarks.detection --rounds 2 --json out.json

Each kind of fault of `$VOXLINE_SHARED/data/negative/cases.csv` is made again from other recordings (corpus and voices),
with other strengths, seeds and lengths. A folder counts as found when its verdict is the expected one (or stricter, as
the case list allows) for the expected reason. `--kind none` gives the false alarms: folders of recordings as they are.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from scipy.signal import butter, lfilter, sosfilt

from pipeline.io.audio import read_audio, resample
from pipeline.io.recordings import list_recordings
from pipeline.records.clip_report import ClipReport
from pipeline.records.settings import ValidateSettings
from pipeline.stages.validate.stage import judge_folder, one_thread_each
from pipeline.stages.validate.tools import Terms, Tools, load_tools

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("VOXLINE_SHARED", ROOT.parent / "shared"))
SETTINGS = ValidateSettings()
STRICTNESS = {"pass": 0, "warn": 1, "repair": 2, "reject": 3}
SHOWN = ("snr_db", "range_snr_db", "rt60_s", "silero_share", "bandwidth_hz", "dnsmos_bak", "dnsmos_ovr", "phone_error",
         "within_similarity", "speaker_similarity")  # fmt: skip
Wave = np.ndarray  # mono float32 (n,)


@dataclass(frozen=True)
class Sentence:
    path: Path
    text: str
    language: str

    def read(self) -> tuple[Wave, int]:
        audio = read_audio(self.path)
        return audio.mono, audio.sample_rate_hz

    def at_16k(self) -> Wave:
        wave, rate = self.read()
        return resample(wave, rate, 16000)


@cache
def speakers() -> dict[str, tuple[Sentence, ...]]:
    """Sentences of 2.5 s and more by speaker; those of the case list's own recordings are left out."""
    found: dict[str, list[Sentence]] = {}
    corpus = SHARED / "data" / "corpus"
    with (corpus / "manifest.csv").open(encoding="utf-8") as stream:
        for line in csv.DictReader(stream, delimiter="|", quoting=csv.QUOTE_NONE):
            if float(line["seconds"]) >= 2.5 and line["speaker"] not in ("LJ", "2033"):
                sentence = Sentence(corpus / line["file"], line["text"], line["language"])
                found.setdefault(line["speaker"], []).append(sentence)
    for voice in ("en_vctk_p225", "en_vctk_p226", "en_libri_2609"):
        folder = SHARED / "data" / "voices" / voice
        with (folder / "metadata.csv").open(encoding="utf-8") as stream:
            for line in csv.DictReader(stream, delimiter="|", quoting=csv.QUOTE_NONE):
                found.setdefault(voice, []).append(Sentence(folder / line["file"], line["text"], line["language"]))
    return {speaker: tuple(sentences) for speaker, sentences in found.items()}


ENGLISH = ("19", "26", "27", "slt", "1688", "3005", "en_vctk_p225", "en_vctk_p226", "en_libri_2609")


class Maker:
    """Draws recordings and writes one folder; everything follows from the seed."""

    def __init__(self, folder: Path, seed: int, strength: int) -> None:
        self.folder = folder
        self.random = np.random.default_rng(seed)
        self.strength = strength
        self.lines: list[tuple[str, str, str]] = []
        (folder / "wavs").mkdir(parents=True, exist_ok=True)

    def pick(self, *values: Any) -> Any:
        """One of the strengths, weak to strong; the rounds go through them."""
        return values[self.strength % len(values)]

    def speaker(self, among: tuple[str, ...] = ENGLISH) -> str:
        return str(self.random.choice(among))

    def sentences(self, count: int, speaker: str | None = None) -> list[Sentence]:
        every = speakers()[speaker or self.speaker()]
        return [every[i] for i in self.random.choice(len(every), min(count, len(every)), replace=False)]

    def one(self) -> tuple[Wave, int, Sentence]:
        sentence = self.sentences(1)[0]
        return *sentence.read(), sentence

    def noise(self, size: int, exponent: float) -> Wave:
        """Noise whose power falls with frequency to the given exponent: 0 white, 1 pink, 2 brown."""
        spectrum = np.fft.rfft(self.random.standard_normal(size))
        bins = np.arange(len(spectrum))
        spectrum *= np.maximum(bins, max(1, size // 800)) ** (-exponent / 2)
        wave = np.fft.irfft(spectrum, size)
        return (wave / wave.std()).astype(np.float32)

    def write(self, name: str, wave: np.ndarray, rate: int, text: str | None = None, language: str = "en",
              subtype: str = "PCM_16", container: str | None = None) -> Path:  # fmt: skip
        """`wave`: (n,) or (n, channels)."""
        path = self.folder / "wavs" / name
        kind = container or ("FLAC" if name.endswith(".flac") else "WAV")
        soundfile.write(path, wave, rate, subtype=subtype, format=kind)
        if text:
            self.lines.append((f"wavs/{name}", language, text))
        return path

    def copy(self, sentence: Sentence, name: str | None = None, text: str | None = None) -> Path:
        path = self.folder / "wavs" / (name or sentence.path.name)
        path.write_bytes(sentence.path.read_bytes())
        shown = sentence.text if text is None else text
        if shown:
            self.lines.append((f"wavs/{path.name}", sentence.language, shown))
        return path

    def finish(self, encoding: str = "utf-8", end: str = "\n") -> None:
        if self.lines:
            rows = ["file|language|text", *("|".join(line) for line in self.lines)]
            (self.folder / "metadata.csv").write_bytes((end.join(rows) + end).encode(encoding))


def active_rms(wave: Wave) -> float:
    """Level of the speech without its pauses, for stated signal-to-noise ratios."""
    count = len(wave) // 320
    power = np.square(wave[: count * 320].reshape(count, 320)).mean(axis=1)
    return float(np.sqrt(power[power > 0.05 * power.max()].mean()))


def fit(wave: Wave, peak: float = 0.9) -> Wave:
    return (wave * (peak / max(float(np.abs(wave).max()), 1e-9))).astype(np.float32)


# --- one function per kind: weak to strong as the strength goes up ------------------------------------------------
def none(make: Maker) -> None:
    speaker = make.speaker((*ENGLISH, "S0150"))
    for sentence in make.sentences(4, speaker):
        make.copy(sentence)


def noisy(make: Maker) -> None:
    exponent, snr_db = make.pick((1, 5), (0, 3), (2, 0), (1, 0), (0, 5))
    for number, sentence in enumerate(make.sentences(2)):
        wave = sentence.at_16k()
        noise = make.noise(len(wave), exponent) * np.float32(active_rms(wave) * 10 ** (-snr_db / 20))
        make.write(f"n{number}.wav", fit(wave + noise), 16000, sentence.text)


def noisy_babble(make: Maker) -> None:
    talkers, snr_db = make.pick((6, 3), (8, 0), (5, 0), (10, 2))
    others = [name for name in speakers() if name.isdigit() and len(speakers()[name]) == 1]
    for number, sentence in enumerate(make.sentences(2)):
        wave = sentence.at_16k()
        babble = np.zeros(len(wave), np.float32)
        for other in make.random.choice(others, talkers, replace=False):
            voice = speakers()[str(other)][0].at_16k()
            babble += np.resize(voice / np.float32(active_rms(voice)), len(wave))
        babble *= np.float32(active_rms(wave) * 10 ** (-snr_db / 20) / babble.std())
        make.write(f"b{number}.wav", fit(wave + babble), 16000, sentence.text)


def tune(make: Maker, seconds: float, rate: int, beat_s: float) -> Wave:
    """Chords and a melody of decaying harmonics, with a drum on the beat."""
    wave = np.zeros(int(seconds * rate) + rate, np.float32)
    scale = 220 * 2 ** (np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16]) / 12)
    for beat, at in enumerate(np.arange(0, seconds - 0.1, beat_s)):
        start = int(at * rate)
        t = np.arange(int(min(4 * beat_s, 1.5) * rate)) / rate
        notes = [make.random.choice(scale) * 2] + ([scale[0] / 2, scale[2], scale[4]] if beat % 4 == 0 else [])
        for pitch in notes:
            decay = np.exp(-t * make.random.uniform(2, 6))
            tone = sum(np.sin(2 * np.pi * pitch * k * t) / k**1.3 for k in range(1, 9) if pitch * k < rate / 2.2)
            end = min(len(wave), start + len(t))
            wave[start:end] += (decay * tone)[: end - start].astype(np.float32)
        hit = make.random.standard_normal(int(0.08 * rate)) * np.exp(-np.arange(int(0.08 * rate)) / (0.015 * rate))
        wave[start : start + len(hit)] += (1.2 * hit).astype(np.float32)
    return fit(wave[: int(seconds * rate)], 0.7)


def music(make: Maker) -> None:
    make.write("tune.wav", tune(make, make.pick(8.0, 15.0, 20.0), 22050, make.pick(0.5, 0.25, 0.4, 0.6)), 22050)


def animals(make: Maker) -> None:
    rate = 22050
    for number in range(2):
        wave = 0.003 * make.noise(8 * rate, 1)
        at = 0.3
        while at < 7.3:
            low, high = make.pick((2000, 5000), (300, 900), (1500, 3500), (120, 500))
            length = make.random.uniform(0.08, 0.6)
            t = np.arange(int(length * rate)) / rate
            sweep = np.linspace(make.random.uniform(low, high), make.random.uniform(low, high), len(t))
            phase = 2 * np.pi * np.cumsum(sweep) / rate
            call = np.sin(phase) + 0.3 * np.sin(2 * phase)
            wave[int(at * rate) : int(at * rate) + len(t)] += (0.4 * np.hanning(len(t)) * call).astype(np.float32)
            at += length + make.random.uniform(0.05, 0.5)
        make.write(f"calls{number}.wav", fit(wave, 0.6), rate)


def noise_alone(make: Maker) -> None:
    rate = 16000
    make.write("noise.wav", 0.1 * make.noise(8 * rate, make.pick(0, 2, 1)), rate)
    t = np.arange(6 * rate) / rate
    pitch = make.pick(1000, 220, 3000, 120)
    wobble = 1 + 0.3 * np.sin(2 * np.pi * 3 * t)
    make.write("tone.wav", (0.3 * wobble * np.sin(2 * np.pi * pitch * t)).astype(np.float32), rate)


def two_speakers_folder(make: Maker) -> None:
    pairs = (("19", "27"), ("26", "en_vctk_p226"), ("1688", "3005"), ("slt", "en_vctk_p225"), ("27", "en_libri_2609"))
    for speaker in make.pick(*pairs):
        for sentence in make.sentences(4, speaker):
            make.copy(sentence)


def two_speakers_one_file(make: Maker) -> None:
    first, second = make.pick(("19", "26"), ("27", "1688"), ("slt", "en_vctk_p226"), ("en_vctk_p225", "3005"))
    voices = [fit(make.sentences(1, speaker)[0].at_16k()[: make.pick(5, 7, 4) * 16000]) for speaker in (first, second)]
    pause = np.zeros(int(make.pick(0.5, 0.3, 0.8) * 16000), np.float32)
    make.write("both.wav", np.concatenate([voices[0], pause, voices[1]]), 16000)


def clipped(make: Maker) -> None:
    wave, rate, sentence = make.one()
    gain = 10 ** (make.pick(18, 24, 12, 30) / 20) / float(np.abs(wave).max())
    make.write("clipped.wav", np.clip(wave * gain, -1, 1), rate, sentence.text)


def clipped_then_lowered(make: Maker) -> None:
    wave, rate, sentence = make.one()
    gain = 10 ** (make.pick(12, 18, 15, 10) / 20) / float(np.abs(wave).max())
    make.write("clipped.wav", make.pick(0.3, 0.1, 0.5, 0.2) * np.clip(wave * gain, -1, 1), rate, sentence.text)


def near_silence(make: Maker) -> None:
    wave, rate, _ = make.one()
    make.write("quiet.wav", fit(wave, 10 ** (make.pick(-75, -80, -72) / 20)), rate, subtype="PCM_24")
    make.write("zeros.wav", np.zeros(3 * rate, np.float32), rate)


def quiet(make: Maker) -> None:
    wave, rate, sentence = make.one()
    make.write("quiet.wav", fit(wave, 10 ** (make.pick(-40, -42, -38) / 20)), rate, sentence.text)


def telephone(wave: Wave, rate: int) -> Wave:
    narrow = resample(wave, rate, 8000)
    return np.asarray(sosfilt(butter(4, [300, 3400], "bandpass", fs=8000, output="sos"), narrow), np.float32)


def telephone_8k(make: Maker) -> None:
    wave, rate, sentence = make.one()
    subtype = make.pick("ULAW", "ALAW", "PCM_16")
    make.write("phone.wav", fit(telephone(wave, rate)), 8000, sentence.text, subtype=subtype)


def slow_rate(make: Maker) -> None:
    target = make.pick(8000, 11025, 12000)
    for number, sentence in enumerate(make.sentences(4)):
        wave, rate = sentence.read()
        make.write(f"r{number}.wav", fit(resample(wave, rate, target))[:target], target)


def fake_rate(make: Maker) -> None:
    wave, rate, sentence = make.one()
    target = make.pick(48000, 44100, 16000, 22050)
    narrow = make.pick(telephone(wave, rate), resample(wave, rate, 8000))
    make.write("fake.wav", fit(resample(narrow, 8000, target)), target, sentence.text)


def dual_mono(make: Maker) -> None:
    wave, rate, sentence = make.one()
    make.write("s.wav", np.stack([wave, make.pick(0.8, 1.0, 0.5, 0.3) * wave], axis=1), rate, sentence.text)


def antiphase(make: Maker) -> None:
    wave, rate, sentence = make.one()
    make.write("s.wav", np.stack([wave, -make.pick(1.0, 0.8, 0.6) * wave], axis=1), rate, sentence.text)


def stereo_two_speakers(make: Maker) -> None:
    first, second = make.pick(("19", "26"), ("slt", "27"), ("en_vctk_p225", "en_vctk_p226"))
    left, right = (fit(make.sentences(1, speaker)[0].at_16k()) for speaker in (first, second))
    size = min(len(left), len(right))
    make.write("s.wav", np.stack([left[:size], right[:size]], axis=1), 16000)


def multichannel(make: Maker) -> None:
    wave, rate, sentence = make.one()
    gains = make.random.uniform(0.3, 1.0, make.pick(4, 3, 6))
    make.write("m.wav", wave[:, None] * gains[None, :].astype(np.float32), rate, sentence.text)


def wrong_extension(make: Maker) -> None:
    wave, rate, sentence = make.one()
    container, subtype, name = make.pick(
        ("FLAC", "PCM_16", "a.wav"), ("MP3", "MPEG_LAYER_III", "a.wav"), ("WAV", "PCM_16", "a.flac"),
        ("OGG", "VORBIS", "a.mp3"),
    )  # fmt: skip
    make.write(name, wave, rate, sentence.text, subtype=subtype, container=container)


def truncated(make: Maker) -> None:
    wave, rate, _ = make.one()
    for name, keep in (
        ("a.wav", make.pick(20, 40, 12)),
        ("b.wav", make.pick(0.5, 0.9)),
        ("c.flac", make.pick(0.4, 0.7)),
    ):
        path = make.write(name, wave, rate)
        data = path.read_bytes()
        path.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])


def lying_header(make: Maker) -> None:
    wave, rate, _ = make.one()
    path = make.write("a.wav", wave, rate)
    data = bytearray(path.read_bytes())
    at, value = make.pick((40, 0xFFFFFFF0), (24, 0), (40, 0x7FFFFFFF), (22, 0))
    data[at : at + 4] = int(value).to_bytes(4, "little")
    path.write_bytes(bytes(data))


def zero_length(make: Maker) -> None:
    (make.folder / "wavs" / "a.wav").write_bytes(b"")
    make.write("b" + make.pick(".wav", ".flac"), np.zeros(0, np.float32), 16000)


def not_finite(make: Maker) -> None:
    for number, (count, value) in enumerate(((make.pick(3, 50, 1), np.nan), (1, -np.inf), (2, 1e30))):
        wave, rate, _ = make.one()
        bad = wave.copy()
        bad[make.random.integers(0, len(bad), count)] = value
        make.write(f"f{number}.wav", bad, rate, subtype="FLOAT")


def over_full_scale(make: Maker) -> None:
    wave, rate, sentence = make.one()
    make.write("o.wav", fit(wave, make.pick(4.0, 1.5, 20.0)), rate, sentence.text, subtype="FLOAT")


FORMATS = (
    ("a.wav", "PCM_U8", "WAV"),
    ("b.wav", "PCM_24", "WAV"),
    ("c.wav", "DOUBLE", "WAV"),
    ("d.aiff", "PCM_16", "AIFF"),
    ("e.wav", "PCM_32", "WAVEX"),
    ("f.ogg", "VORBIS", "OGG"),
    ("g.mp3", "MPEG_LAYER_III", "MP3"),
    ("h.au", "PCM_16", "AU"),
    ("i.caf", "PCM_16", "CAF"),
    ("j.w64", "PCM_16", "W64"),
)


def odd_formats(make: Maker) -> None:
    for sentence, (name, subtype, container) in zip(make.sentences(len(FORMATS)), FORMATS, strict=False):
        wave, rate = sentence.read()
        make.write(name, fit(wave, 0.8), rate, sentence.text, subtype=subtype, container=container)


def dc_offset(make: Maker) -> None:
    wave, rate, sentence = make.one()
    offset = make.pick(0.3, 0.1, 0.05, -0.2)
    make.write("dc.wav", fit(wave, 0.95 - abs(offset)) + np.float32(offset), rate, sentence.text)


def hum(make: Maker) -> None:
    wave, rate, sentence = make.one()
    t = np.arange(len(wave)) / rate
    mains = make.pick(50, 60)
    lines = sum(
        np.sin(2 * np.pi * mains * k * t + make.random.uniform(0, 6)) / k for k in range(1, make.pick(8, 5, 12))
    )
    lines *= active_rms(wave) * 10 ** (-make.pick(5, 3, 0, 7) / 20) / lines.std()
    make.write("hum.wav", fit(wave + lines.astype(np.float32)), rate, sentence.text)


def reverberant(make: Maker) -> None:
    wave, rate, sentence = make.one()
    rt60_s = make.pick(1.5, 1.2, 2.0, 1.0)
    size = int(rt60_s * rate)
    tail = make.random.standard_normal(size) * 10 ** (-3 * np.arange(size) / size)
    length = 1 << int(np.ceil(np.log2(len(wave) + size)))
    wet = np.fft.irfft(np.fft.rfft(wave, length) * np.fft.rfft(tail, length))[: len(wave)]
    make.write("room.wav", fit(wet), rate, sentence.text)


def dropouts(make: Maker) -> None:
    wave, rate, sentence = make.one()
    broken = wave.copy()
    share, length_s = make.pick((0.2, 0.04), (0.1, 0.02), (0.3, 0.06), (0.15, 0.01))
    for start in range(0, len(broken), rate // 10):
        if make.random.random() < share:
            at = start + make.random.integers(0, max(1, rate // 10 - int(length_s * rate)))
            broken[at : at + int(length_s * rate)] = 0
    make.write("gaps.wav", broken, rate, sentence.text)


def too_short(make: Maker) -> None:
    wave, rate, sentence = make.one()
    for number in range(6):
        at = make.random.integers(rate // 2, len(wave) - rate)
        make.write(
            f"s{number}.wav", wave[at : at + int(make.pick(0.18, 0.3, 0.5) * rate)], rate, sentence.text.split()[0]
        )


def one_long_file(make: Maker) -> None:
    speaker = make.pick("19", "27", "26", "en_vctk_p226")
    gap = np.zeros(int(make.pick(0.5, 0.3, 0.7) * 16000), np.float32)
    parts = [piece for sentence in make.sentences(10, speaker) for piece in (sentence.at_16k(), gap)]
    make.write("long.wav", np.concatenate(parts)[: 90 * 16000], 16000)


FOREIGN = {
    "fr": "Les enfants jouent dans le jardin avec leur chien et il fait beau pour tout le monde",
    "nl": "Het is niet zo ver van hier naar de stad en dat weet je ook wel voor een keer",
    "es": "El perro de la casa es muy grande y los niños juegan con él todos los días por la tarde",
    "it": "Il cane è nel giardino della casa e i bambini giocano con lui per tutto il giorno, non è vero",
    "de": "Der Hund ist nicht in dem Haus und die Kinder spielen mit ihm auf der Straße, das ist schön",
}


def unsupported_language(make: Maker) -> None:
    language = make.pick(*FOREIGN)
    tag = make.pick(language, "en")
    for sentence in make.sentences(6):
        words = FOREIGN[language].split()
        wanted = max(4, len(sentence.text.split()))
        path = make.copy(sentence, text="-")
        make.lines[-1] = (f"wavs/{path.name}", tag, " ".join(words[i % len(words)] for i in range(wanted)))


def wrong_transcripts(make: Maker) -> None:
    speaker = make.pick("19", "S0150", "slt", "27", "S0150", "en_vctk_p225")
    chosen = make.sentences(make.pick(4, 6, 5), speaker)
    shift = make.pick(1, 2)
    for number, sentence in enumerate(chosen):
        make.copy(sentence, text=chosen[(number + shift) % len(chosen)].text)


def two_swapped(make: Maker) -> None:
    """Two texts of eight exchanged: only these two recordings have to go."""
    speaker = make.pick("19", "S0150", "en_vctk_p226", "27")
    chosen = sorted(make.sentences(8, speaker), key=lambda sentence: len(sentence.text))
    chosen[3:5] = [
        Sentence(chosen[3].path, chosen[4].text, chosen[3].language),
        Sentence(chosen[4].path, chosen[3].text, chosen[4].language),
    ]
    for sentence in chosen:
        make.copy(sentence)


def wrong_tag(make: Maker) -> None:
    tag, speaker = make.pick(
        ("ja", "27"), ("zh", "19"), ("ko", "slt"), ("en", "S0150"), ("ja", "S0150"), ("ko", "S0150")
    )
    for sentence in make.sentences(3, speaker):
        make.copy(sentence)
        make.lines[-1] = (make.lines[-1][0], tag, sentence.text)


def bad_metadata(make: Maker) -> None:
    for sentence in make.sentences(2):
        make.copy(sentence)
    name = make.lines[0][0]
    make.lines += make.pick(
        [("../../secret.wav", "en", "outside")],
        [("/etc/passwd", "en", "absolute")],
        [("wavs/../../x.wav", "en", "outside"), (name, "en", "=cmd|calc")],
        [("~/x.wav", "en", "home"), ("C:\\x.wav", "en", "drive")],
    )


def legacy_encoding(make: Maker) -> None:
    for sentence in make.sentences(3, "S0150"):
        make.copy(sentence)
    make.finish(make.pick("gb18030", "utf-16", "gbk"), make.pick("\r\n", "\n"))
    make.lines.clear()


def duplicates(make: Maker) -> None:
    wave, rate, sentence = make.one()
    make.copy(sentence)
    make.write("again.wav", make.pick(1.0, 0.5, 0.8) * wave, rate, sentence.text)
    make.write("third.ogg", wave[make.pick(0, 400, 1600) :], rate, sentence.text, subtype="VORBIS", container="OGG")


def awkward_names(make: Maker) -> None:
    names = make.pick(("a b.flac", "-x.flac", "é.flac"), ("录音.flac", "a;b.flac", "x'y.flac"))
    for sentence, name in zip(make.sentences(3), names, strict=True):
        make.copy(sentence, name)


def half_noisy(make: Maker) -> None:
    chosen = make.sentences(14, make.pick("27", "19", "26"))
    seconds = 0.0
    for number, sentence in enumerate(chosen):
        wave = sentence.at_16k()
        seconds += len(wave) / 16000
        if number >= 3:
            noise = make.noise(len(wave), make.pick(1, 0)) * np.float32(
                active_rms(wave) * 10 ** (-make.pick(3, 6, 0) / 20)
            )
            wave = wave + noise
        make.write(f"h{number}.wav", fit(wave), 16000, sentence.text)


def whispered(make: Maker) -> None:
    """The envelope of speech, excited by noise (linear prediction of order 18), without its low end."""
    wave, rate, _ = make.one()
    wave = resample(wave, rate, 16000)[: 6 * 16000]
    size, hop = 480, 240
    out = np.zeros(len(wave) + size, np.float64)
    window = np.hanning(size)
    for at in range(0, len(wave) - size, hop):
        frame = wave[at : at + size] * window
        lags = np.correlate(frame, frame, "full")[size - 1 : size + 18]
        if lags[0] < 1e-7:
            continue
        matrix = np.array([[lags[abs(i - j)] for j in range(18)] for i in range(18)]) + 1e-3 * lags[0] * np.eye(18)
        predictor = np.linalg.solve(matrix, lags[1:19])
        excitation = make.random.standard_normal(size)
        voice = lfilter([1.0], np.concatenate([[1.0], -predictor]), excitation) * window
        out[at : at + size] += voice * np.sqrt(lags[0] / max(float(np.square(voice).sum()), 1e-9))
    thin = sosfilt(butter(2, 350, "highpass", fs=16000, output="sos"), out[: len(wave)])
    make.write("whisper.wav", fit(thin.astype(np.float32), 0.3) + 1e-4 * make.noise(len(wave), 0), 16000)


def text_tags(make: Maker) -> None:
    for sentence in make.sentences(2):
        words = sentence.text.split()
        tags = make.pick(("[noise]", "<LAUGH>"), ("[um]", "<unk>"), ("((cough))", "{laughs}"), ("<en>", "[breath]"))
        words[2:2] = [tags[0]]
        words.append(tags[1])
        make.copy(sentence, text=" ".join(words))


# kind -> (expected verdict, reason, maker); None: nothing may be rejected.
KINDS: dict[str, tuple[str | None, str, Callable[[Maker], None]]] = {
    "none": (None, "", none),
    "noisy": ("reject", "low_snr", noisy),
    "noisy_babble": ("reject", "low_snr", noisy_babble),
    "music": ("reject", "not_speech", music),
    "animals": ("reject", "not_speech", animals),
    "noise_alone": ("reject", "not_speech", noise_alone),
    "two_speakers_folder": ("reject", "multiple_speakers", two_speakers_folder),
    "two_speakers_one_file": ("reject", "multiple_speakers", two_speakers_one_file),
    "clipped": ("reject", "clipping", clipped),
    "clipped_then_lowered": ("reject", "clipping", clipped_then_lowered),
    "near_silence": ("reject", "silence", near_silence),
    "quiet": ("repair", "low_level", quiet),
    "telephone_8k": ("reject", "sample_rate_too_low", telephone_8k),
    "slow_rate": ("reject", "sample_rate_too_low", slow_rate),
    "fake_rate": ("reject", "bandwidth_too_low", fake_rate),
    "dual_mono": ("repair", "stereo", dual_mono),
    "antiphase": ("repair", "stereo_phase", antiphase),
    "stereo_two_speakers": ("reject", "multiple_speakers", stereo_two_speakers),
    "multichannel": ("repair", "channels", multichannel),
    "wrong_extension": ("repair", "extension_mismatch", wrong_extension),
    "truncated": ("reject", "corrupt", truncated),
    "lying_header": ("reject", "corrupt", lying_header),
    "zero_length": ("reject", "empty", zero_length),
    "not_finite": ("reject", "non_finite", not_finite),
    "over_full_scale": ("repair", "over_full_scale", over_full_scale),
    "odd_formats": ("repair", "format", odd_formats),
    "dc_offset": ("repair", "dc_offset", dc_offset),
    "hum": ("reject", "low_snr", hum),
    "reverberant": ("reject", "reverberant", reverberant),
    "dropouts": ("reject", "dropouts", dropouts),
    "too_short": ("reject", "too_short", too_short),
    "one_long_file": ("repair", "needs_slicing", one_long_file),
    "unsupported_language": ("reject", "unsupported_language", unsupported_language),
    "wrong_transcripts": ("reject", "text_audio_mismatch", wrong_transcripts),
    "two_swapped": ("repair", "text_audio_mismatch", two_swapped),
    "wrong_tag": ("reject", "text_audio_mismatch", wrong_tag),
    "bad_metadata": ("reject", "bad_metadata", bad_metadata),
    "legacy_encoding": ("repair", "encoding", legacy_encoding),
    "duplicates": ("repair", "duplicate", duplicates),
    "awkward_names": ("repair", "filename", awkward_names),
    "half_noisy": ("reject", "low_snr", half_noisy),
    "whispered": ("warn", "unvoiced_speech", whispered),
    "text_tags": ("repair", "text_markup", text_tags),
}


@dataclass(frozen=True)
class Outcome:
    """`found`: the verdict is the expected one or stricter, for the reason; `exact`: it is the expected one."""

    kind: str
    strength: int
    found: bool
    exact: bool
    report: ClipReport


def judge(kind: str, seed: int, strength: int, tools: Tools, folder: Path) -> Outcome:
    """Make one folder and judge it as `voxline validate FOLDER --language en` would."""
    expected, reason, build = KINDS[kind]
    make = Maker(folder, zlib.crc32(kind.encode()) + seed, strength)
    build(make)
    make.finish()
    listed = list_recordings(folder, "en")
    report = judge_folder(listed, Terms(SETTINGS, tools, kind))
    if expected is None:
        rejected = [result for result in report.clips if result.verdict == "reject"]
        is_clean = not rejected and report.verdict != "reject"
        return Outcome(kind, strength, is_clean, is_clean, report)
    exact = reason in report.reasons and report.verdict == expected
    stricter = STRICTNESS[report.verdict] >= STRICTNESS[expected] and expected != "warn"
    return Outcome(kind, strength, exact or (reason in report.reasons and stricter), exact, report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print what was found in every folder")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "detection.json")
    chosen = parser.parse_args()
    tools = load_tools(SETTINGS, Path("nowhere"))
    table: dict[str, Any] = {}
    with one_thread_each():
        for kind in chosen.kind:
            outcomes = []
            for number in range(chosen.rounds):
                with tempfile.TemporaryDirectory() as scratch:
                    outcome = judge(kind, chosen.seed + number, number, tools, Path(scratch) / kind)
                outcomes.append(outcome)
                if chosen.show or not outcome.found:
                    explain(outcome)
            found, exact = sum(one.found for one in outcomes), sum(one.exact for one in outcomes)
            table[kind] = {"folders": len(outcomes), "found": found, "exact": exact}
            expected, reason, _ = KINDS[kind]
            print(
                f"{kind:24} {expected or 'no reject':10} {reason:22} {found}/{len(outcomes)} (exactly: {exact})",
                flush=True,
            )
    total, found = (sum(row[key] for row in table.values()) for key in ("folders", "found"))
    print(f"{found} of {total}")
    if len(chosen.kind) == len(KINDS):
        chosen.json.write_text(json.dumps({"seed": chosen.seed, "kinds": table}, indent=1) + "\n")


def explain(outcome: Outcome) -> None:
    report = outcome.report
    mark = "ok  " if outcome.found else "MISS"
    print(f"    {mark} {outcome.kind} strength {outcome.strength}: {report.verdict} {report.reasons}")
    for result in report.clips:
        numbers = result.measures.model_dump(include=set(SHOWN))
        told = "; ".join(f"{finding.code} {finding.severity} {finding.value}" for finding in result.findings)
        print(f"         {result.clip.file_name[:40]:40} {result.verdict:7} {list(numbers.values())} | {told}")
    for finding in report.findings:
        print(f"         folder: {finding.code} {finding.severity} {finding.value} {finding.detail}")


if __name__ == "__main__":
    main()
