"""The voice under test: what it makes of held-out recordings, and how it speaks sentences that nobody recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch

from models.adapters.lora import adapters_off
from models.clip_tensors import ClipTensors, unpack_clips
from models.loading.bases import Base, find_base
from models.loading.family import family_of
from models.loading.networks import choose_device, load_bert
from models.loading.voices import AdapterFolders, load_resynthesizer, load_voice
from models.phones.symbols import phones_to_ids
from models.speaking.rendering import Renderer
from models.speaking.resynthesis import Resynthesizer
from models.speaking.voice import Manner, Reference, Sentence, Speech
from pipeline.errors import TransientError
from pipeline.io.audio import read_at_rates
from pipeline.records.adapter import ADAPTER_FOLDER, AdapterRecord
from pipeline.records.clip_report import ClipReport
from pipeline.records.feature import FEATURES_FILE, FeatureRecord
from pipeline.records.job import Input, Job
from pipeline.records.reference import ReferenceClip
from pipeline.records.settings import EvaluateSettings
from pipeline.text.frontend import phonemize_for_synthesis
from pipeline.text.languages import known_language

SENTENCES = Path(__file__).resolve().parents[2] / "templates" / "gate_sentences.json"
REFERENCE_S = (
    3.0,
    10.0,
)  # what the text-to-semantic network was trained to be prompted with (docs/networks/speaking.md)
REFERENCE_BEST_S = 5.0

Wave = npt.NDArray[np.float32]  # mono (n,)
PATHS = ("copy", "bare_copy", "adapted", "bare", "shuffled")  # of a held-out clip; bare: without the adapter


@dataclass(frozen=True)
class FreeSentence:
    """One sentence that nobody recorded. ``asked_s``: how long its tokens last; 0 where nothing was asked for."""

    name: str
    text: str
    symbols: tuple[str, ...]
    wave: Wave
    sample_rate_hz: int
    problems: tuple[str, ...]
    asked_s: float = 0.0


@dataclass(frozen=True)
class Casting:
    """Who speaks free sentences. By default the voice as it would be published; the gate's own tests put others there.

    Attributes:
        seed: of the first take. ``reference``: another one than the voice's.
        drawn_by: what draws the sound, around the base's own renderer.
    """

    seed: int = 0
    reference: Reference | None = None
    drawn_by: Callable[[Renderer], Renderer] | None = None


AS_PUBLISHED = Casting()


class Inputs(TypedDict):
    """The recordings, what was extracted of them, and the adapters under test."""

    validate: Input[ClipReport]
    extract: Input[FeatureRecord]
    finetune: Input[AdapterRecord]


class Parameters(TypedDict):
    """``base``: its name. ``floors``: limit by its name in the base's card. ``waived``: ids of checks."""

    base: str
    version: str
    language: str
    floors: dict[str, float]
    waived: list[str]


EvaluateJob = Job[EvaluateSettings, Inputs, Parameters]


def base_of(job: EvaluateJob) -> Base:
    """What the voice stands on."""
    return find_base(job.parameters["base"], job.machine.bases, job.machine.replaced_bases)


class Studio:
    """The voice under test on one device: its networks with and without adapter, its features, its reference clip."""

    def __init__(self, job: EvaluateJob, base: Base) -> None:
        self.base, self.cache = base, job.machine.cache
        self.device = choose_device(job.machine.device)
        self.features = job.inputs["extract"].record
        self.adapter = job.inputs["finetune"].record
        self.adapter_folder = job.inputs["finetune"].folder / ADAPTER_FOLDER
        self.extracted, _ = unpack_clips(job.inputs["extract"].folder / FEATURES_FILE)
        self.recordings = family_of(base).recordings(base, self.device)
        self.prepared = job.inputs["validate"].folder
        self._clips: dict[int, ClipTensors] = {}
        self.heldout = [self.features.index_of(clip) for clip in self.adapter.heldout_clips]
        self.training = [self.features.index_of(clip) for clip in self.adapter.training_clips]
        self.reference = self.training[choose_reference([self.features.clips[i].duration_s for i in self.training])]

    def wave(self, index: int) -> Wave:
        return self.clip(index).wave.numpy()

    @cached_property
    def resynthesizer(self) -> Resynthesizer:
        """With the adapter in place, so that it can be switched off."""
        return load_resynthesizer(self.base, self.cache, self.device, self.adapter_folder / "synthesizer")

    def clip(self, index: int) -> ClipTensors:
        """What extraction stored of a clip, and what the recording itself says."""
        if index not in self._clips:
            clip, at = self.features.clips[index], read_at_rates(self.prepared / self.features.clips[index].file)
            self._clips[index] = self.recordings.complete(self.extracted[index], at, clip.frames)
        return self._clips[index]

    def reference_sound(self) -> Reference:
        """The same for the networks that speak here."""
        clip, tensors = self.reference_clip(), self.clip(self.reference)
        return Reference(
            wave=tensors.wave,
            sample_rate_hz=clip.sample_rate_hz,
            phones=torch.tensor(phones_to_ids(list(clip.symbols), self.base.text.symbols)),
            bert=tensors.bert,
            speaker=None if clip.speaker is None else torch.tensor(clip.speaker),
        )

    def reference_clip(self) -> ReferenceClip:
        """What is published for others to speak with."""
        clip, speaker = self.features.clips[self.reference], self.clip(self.reference).speaker
        vector = None if speaker is None else tuple(round(float(value), 7) for value in speaker)
        return ReferenceClip(
            clip=clip.clip,
            text=clip.text,
            language=clip.language,
            symbols=clip.symbols,
            sample_rate_hz=self.features.sample_rate_hz,
            duration_s=clip.duration_s,
            speaker=vector,
        )


def choose_reference(durations_s: Sequence[float]) -> int:
    """The clip nearest to five seconds, one between three and ten before any other."""
    low, high = REFERENCE_S
    fitting = [index for index, duration in enumerate(durations_s) if low <= duration <= high]
    return min(fitting or range(len(durations_s)), key=lambda index: abs(durations_s[index] - REFERENCE_BEST_S))


def resound(studio: Studio, index: int, seed: int) -> dict[str, Wave]:
    """What becomes of a held-out clip on each of `PATHS`, at the base's rate."""
    again, tensors, reference = studio.resynthesizer, studio.clip(index), studio.clip(studio.reference)
    tokens = tensors.tokens
    shuffled = tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))]
    with adapters_off(again.network):
        bare, bare_copy = again.speak(tokens, tensors, reference, seed), again.copy(tensors)
    sounds = {
        "copy": again.copy(tensors),
        "bare_copy": bare_copy,
        "adapted": again.speak(tokens, tensors, reference, seed),
        "bare": bare,
        "shuffled": again.speak(shuffled, tensors, reference, seed),
    }
    return {path: sounds[path].float().cpu().numpy() for path in PATHS}


def speak_sentences(studio: Studio, job: EvaluateJob, casting: Casting = AS_PUBLISHED) -> list[FreeSentence]:
    """The gate's sentences. Raises TransientError when stopped."""
    language = job.parameters["language"]
    folders = AdapterFolders.inside(studio.adapter_folder)
    voice = load_voice(studio.base, studio.cache, studio.device, folders)
    if casting.drawn_by is not None:
        voice.renderer = casting.drawn_by(voice.renderer)
    symbols, reference = studio.base.text.symbols, casting.reference or studio.reference_sound()
    bert = load_bert(studio.base, studio.cache, studio.device)
    settings = job.settings
    texts = gate_sentences(language)[: settings.sentences]
    spoken: list[FreeSentence] = []
    for text in job.reporter.track(texts, description=f"{job.voice}: free speech"):
        phones = phonemize_for_synthesis(text, known_language(language))
        ids = torch.tensor(phones_to_ids(list(phones.symbols), symbols))
        sentence = Sentence(ids, bert.of(phones.bert_spans) if bert else None)
        for seed in range(casting.seed, casting.seed + settings.seeds):
            if job.is_stopping():
                raise TransientError("stopped while speaking", hint="run again")
            speech = voice.speak([sentence], reference, Manner(seed=seed))
            name = f"{len(spoken) + 1:02d}"
            sound = speech.wave.numpy()
            asked_s = sum(len(one.attempts[-1].tokens) for one in speech.sentences) / voice.token_rate_hz
            rate_hz, problems = voice.sample_rate_hz, _problems(speech)
            spoken.append(FreeSentence(name, text, phones.symbols, sound, rate_hz, problems, asked_s))
    return spoken


def _problems(speech: Speech) -> tuple[str, ...]:
    return tuple(str(problem) for sentence in speech.sentences for problem in sentence.attempts[-1].problems)


def gate_sentences(language: str) -> list[str]:
    """Sentences of a language that no corpus holds; English ones for a language without a list."""
    table: dict[str, list[str]] = json.loads(SENTENCES.read_text(encoding="utf-8"))
    return table.get(language, table["en"])
