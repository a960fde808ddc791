"""evaluate: is this voice good enough to be published?

Copy-synthesis and resynthesis of recordings that training never saw, and sentences nobody recorded; every measurement
goes to `signal/gate.py`, which decides. The report is written whatever the verdict.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.adapters.lora import adapters_off
from models.encoders.content import PhoneEncoder
from models.encoders.ge2e import embed_speaker
from models.judges.transcriber import load_recogniser
from models.loading.bases import Base, find_base
from models.loading.family import family_of
from models.loading.networks import choose_device, load_bert, load_content_encoder
from models.loading.voices import AdapterFolders, load_resynthesizer, load_voice
from models.phones.phone_classes import sounds_of_symbols
from models.phones.symbols import phones_to_ids
from models.speaking.resynthesis import Resynthesizer
from models.speaking.voice import Reference, Sentence, Speech
from pipeline.errors import TransientError
from pipeline.io.audio import encode_audio, read_at_rates, resample
from pipeline.io.files import write_atomically
from pipeline.io.report import Sound, render_html, render_junit
from pipeline.records.adapter import ADAPTER_FOLDER, AdapterRecord
from pipeline.records.clip_report import ClipReport
from pipeline.records.feature import FEATURES_FILE, FeatureRecord
from pipeline.records.job import Input, Job
from pipeline.records.quality import JUNIT_FILE, REPORT_FILE, AudioFile, Check, Floors, QualityReport, Sample
from pipeline.records.reference import REFERENCE_AUDIO, REFERENCE_FOLDER, REFERENCE_RECORD, ReferenceClip
from pipeline.records.settings import EvaluateSettings
from pipeline.signal import gate, quality
from pipeline.signal.dnsmos import measure_dnsmos
from pipeline.signal.speaker import speaker_mel
from pipeline.text.edits import edit_distance
from pipeline.text.frontend import phonemize_for_synthesis
from pipeline.text.languages import known_language

SENTENCES = Path(__file__).resolve().parent.parent / "templates" / "gate_sentences.json"
MEASURE_RATE_HZ = 16_000
MAX_DELAY_S = 0.1
REFERENCE_S = (
    3.0,
    10.0,
)  # what the text-to-semantic network was trained to be prompted with (docs/networks/speaking.md)
REFERENCE_BEST_S = 5.0
PHONES_PER_S = (4.0, 30.0)  # outside, nobody is speaking
SILENT_DBFS = -50.0

Wave = npt.NDArray[np.float32]  # mono (n,)


@dataclass(frozen=True)
class HeldOut:
    """What became of one held-out clip, all at the base's rate."""

    clip: str
    text: str
    recording: Wave
    copy: Wave
    adapted: Wave
    bare: Wave
    shuffled: Wave


@dataclass(frozen=True)
class FreeSentence:
    """One sentence that nobody recorded."""

    name: str
    text: str
    symbols: tuple[str, ...]
    wave: Wave
    problems: tuple[str, ...]


class Inputs(TypedDict):
    """The recordings, what was extracted of them, and the adapters under test."""

    validate: Input[ClipReport]
    extract: Input[FeatureRecord]
    finetune: Input[AdapterRecord]


class Parameters(TypedDict):
    """``base``: its name. ``floors``: ``Floors`` as plain data."""

    base: str
    version: str
    language: str
    floors: dict[str, Any]


EvaluateJob = Job[EvaluateSettings, Inputs, Parameters]


class Studio:
    """The voice under test on one device: its networks with and without adapter, its features, its reference clip."""

    def __init__(self, job: EvaluateJob, base: Base) -> None:
        self.base, self.cache = base, job.machine.cache
        self.device = choose_device(job.machine.device)
        self.features = job.inputs["extract"].record
        self.adapter = job.inputs["finetune"].record
        self.adapter_folder = job.inputs["finetune"].folder / ADAPTER_FOLDER
        self.stored = load_file(job.inputs["extract"].folder / FEATURES_FILE)
        self.recordings = family_of(base).recordings(base, self.device)
        self.prepared = job.inputs["validate"].folder
        self._clips: dict[int, dict[str, Tensor]] = {}
        self.heldout = [self.features.index_of(clip) for clip in self.adapter.heldout_clips]
        self.training = [self.features.index_of(clip) for clip in self.adapter.training_clips]
        self.reference = self.training[choose_reference([self.features.clips[i].duration_s for i in self.training])]

    def wave(self, index: int) -> Wave:
        return self.clip(index)["wave"].numpy()

    @cached_property
    def resynthesizer(self) -> Resynthesizer:
        """With the adapter in place, so that it can be switched off."""
        return load_resynthesizer(self.base, self.cache, self.device, self.adapter_folder / "synthesizer")

    def clip(self, index: int) -> dict[str, Tensor]:
        """Tensors of a clip by name: what extraction stored, and what the recording itself says."""
        if index not in self._clips:
            start, clip = f"{index}.", self.features.clips[index]
            stored = {name.removeprefix(start): one for name, one in self.stored.items() if name.startswith(start)}
            self._clips[index] = stored | self.recordings.of(read_at_rates(self.prepared / clip.clip), clip.frames)
        return self._clips[index]

    def reference_clip(self) -> ReferenceClip:
        """What is published for others to speak with."""
        clip, speaker = self.features.clips[self.reference], self.clip(self.reference).get("speaker")
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


def resound(studio: Studio, index: int, seed: int) -> HeldOut:
    """A held-out clip through every path: copied, from its tokens, by the bare base, from shuffled tokens."""
    again, tensors, reference = studio.resynthesizer, studio.clip(index), studio.clip(studio.reference)
    tokens = tensors["tokens"]
    shuffled = tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))]
    with adapters_off(again.network):
        bare = again.speak(tokens, tensors, reference, seed)
    clip = studio.features.clips[index]
    return HeldOut(
        clip=clip.clip,
        text=clip.text,
        recording=studio.wave(index),
        copy=_wave(again.copy(tensors)),
        adapted=_wave(again.speak(tokens, tensors, reference, seed)),
        bare=_wave(bare),
        shuffled=_wave(again.speak(shuffled, tensors, reference, seed)),
    )


def _wave(sound: Tensor) -> Wave:
    return sound.float().cpu().numpy()


def speak_sentences(studio: Studio, language: str, job: EvaluateJob) -> list[FreeSentence]:
    """The gate's sentences by the voice as it would be published."""
    folders = AdapterFolders(studio.adapter_folder / "text2semantic", studio.adapter_folder / "synthesizer")
    voice = load_voice(studio.base, studio.cache, studio.device, folders)
    symbols = studio.base.text.symbols
    clip = studio.reference_clip()
    reference = Reference(
        wave=studio.clip(studio.reference)["wave"],
        sample_rate_hz=clip.sample_rate_hz,
        phones=torch.tensor(phones_to_ids(list(clip.symbols), symbols)),
        bert=studio.clip(studio.reference).get("bert"),
        speaker=None if clip.speaker is None else torch.tensor(clip.speaker),
    )
    bert = load_bert(studio.base, studio.cache, studio.device)
    settings = job.settings
    texts = gate_sentences(language)[: settings.sentences]
    spoken: list[FreeSentence] = []
    for text in job.reporter.track(texts, description=f"{job.voice}: free speech"):
        phones = phonemize_for_synthesis(text, known_language(language))
        ids = torch.tensor(phones_to_ids(list(phones.symbols), symbols))
        sentence = Sentence(ids, bert.of(phones.bert_spans) if bert else None)
        for seed in range(settings.seeds):
            if job.is_stopping():
                raise TransientError("stopped while speaking", hint="run again")
            speech = voice.speak([sentence], reference, seed=seed)
            name = f"{len(spoken) + 1:02d}"
            spoken.append(FreeSentence(name, text, phones.symbols, speech.wave.numpy(), _problems(speech)))
    return spoken


def _problems(speech: Speech) -> tuple[str, ...]:
    return tuple(str(problem) for sentence in speech.sentences for problem in sentence.attempts[-1].problems)


def gate_sentences(language: str) -> list[str]:
    """Sentences of a language that no corpus holds; English ones for a language without a list."""
    table: dict[str, list[str]] = json.loads(SENTENCES.read_text(encoding="utf-8"))
    return table.get(language, table["en"])


# -- measuring ------------------------------------------------------------------------------------------------------


def measure_pair(reference: Wave, other: Wave, sample_rate_hz: int) -> dict[str, float | None]:
    """PESQ-WB and STOI on one clock, MCD and pitch along their own time alignment."""
    first, second = (resample(one, sample_rate_hz, MEASURE_RATE_HZ) for one in (reference, other))
    aligned = quality.align_globally(first, second, int(MAX_DELAY_S * MEASURE_RATE_HZ))
    pitch = quality.pitch_error(first, second, MEASURE_RATE_HZ)
    return {
        "pesq_wb": quality.pesq_wb(aligned.reference, aligned.other),
        "stoi": quality.stoi(aligned.reference, aligned.other, MEASURE_RATE_HZ),
        "mcd_db": quality.mel_cepstral_distortion(first, second, MEASURE_RATE_HZ),
        "pitch_rmse_cents": pitch.rmse_cents if pitch else None,
        "pitch_correlation": pitch.correlation if pitch else None,
        "voicing_error": pitch.voicing_error if pitch else None,
    }


def copy_synthesis_scores(clips: Iterable[HeldOut], rate_hz: int) -> dict[str, dict[str, float | None]]:
    """Measure -> clip -> score, of each recording against its copy."""
    scores: dict[str, dict[str, float | None]] = {"pesq_wb": {}, "stoi": {}}
    for one in clips:
        first, second = (resample(wave, rate_hz, MEASURE_RATE_HZ) for wave in (one.recording, one.copy))
        aligned = quality.align_globally(first, second, int(MAX_DELAY_S * MEASURE_RATE_HZ))
        scores["pesq_wb"][one.clip] = quality.pesq_wb(aligned.reference, aligned.other)
        scores["stoi"][one.clip] = quality.stoi(aligned.reference, aligned.other, MEASURE_RATE_HZ)
    return scores


def resynthesis_checks(clips: Sequence[HeldOut], rate_hz: int) -> list[Check]:
    """Measure every path of every clip and hold them against each other."""
    paths = {
        path: {c.clip: measure_pair(c.recording, getattr(c, path), rate_hz) for c in clips}
        for path in ("adapted", "bare", "shuffled")
    }

    def scores(path: str, measure: str) -> dict[str, float | None]:
        return {clip: measured[measure] for clip, measured in paths[path].items()}

    def three(measure: str) -> gate.Resynthesis:
        return gate.Resynthesis(*(scores(path, measure) for path in ("adapted", "bare", "shuffled")))

    return gate.resynthesis_checks(
        three("stoi"), three("mcd_db"), {name: scores("adapted", name) for name in gate.SHOWN}
    )


@dataclass(frozen=True)
class Ears:
    """What listens to free speech and to the speaker's own recordings alike."""

    recogniser: PhoneEncoder | None
    transcribe: Callable[[Tensor], str] | None
    centroid: Tensor  # (256,)

    def similarity(self, speech: Wave) -> float | None:
        """Cosine to the speaker's training clips, of 16 kHz speech."""
        if len(speech) < MEASURE_RATE_HZ // 2 or not np.any(speech):
            return None
        return float(embed_speaker(torch.from_numpy(speaker_mel(speech))) @ self.centroid)

    def opinion(self, speech: Wave) -> float | None:
        if len(speech) < MEASURE_RATE_HZ // 2 or not np.any(speech):
            return None
        return measure_dnsmos(speech).ovr

    def phone_errors(self, speech: Wave, symbols: Sequence[str]) -> float | None:
        """Edits to get from what the recogniser hears to the phones of the text, per phone; None without one."""
        if self.recogniser is None:
            return None
        table = sounds_of_symbols()
        wanted = [sound for symbol in symbols for sound in table.get(symbol, ())]
        if not wanted or len(speech) < MEASURE_RATE_HZ // 4 or not all(symbol in table for symbol in symbols):
            return None
        heard = self.recogniser.recognise(torch.from_numpy(speech))
        return edit_distance(heard, wanted) / len(wanted)

    def character_errors(self, speech: Wave, text: str) -> float | None:
        """Edits to get from what a recogniser of another lineage reads to the text, per letter; None without one."""
        wanted = letters(text)
        if self.transcribe is None or not wanted or len(speech) < MEASURE_RATE_HZ // 4:
            return None
        return edit_distance(letters(self.transcribe(torch.from_numpy(speech))), wanted) / len(wanted)


def letters(text: str) -> str:
    """What is compared of a text: letters and digits without case, punctuation and spaces."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def is_complete(sentence: FreeSentence, sample_rate_hz: int) -> bool:
    """Reached its end by itself, at a human pace, audible and not clipped away."""
    duration_s = len(sentence.wave) / sample_rate_hz
    if sentence.problems or duration_s == 0 or not np.all(np.isfinite(sentence.wave)):
        return False
    level_dbfs = 10 * np.log10(max(float(np.mean(np.square(sentence.wave))), 1e-12))
    clipped = float(np.mean(np.abs(sentence.wave) >= 0.999))
    pace = len(sentence.symbols) / duration_s
    return PHONES_PER_S[0] <= pace <= PHONES_PER_S[1] and level_dbfs > SILENT_DBFS and clipped < 0.01


def free_speech_checks(studio: Studio, ears: Ears, spoken: Sequence[FreeSentence], floors: Floors) -> list[Check]:
    """Free sentences beside the speaker's held-out recordings, by the same tools."""
    rate_hz = studio.features.sample_rate_hz
    heard = {one.name: resample(one.wave, rate_hz, MEASURE_RATE_HZ) for one in spoken}
    texts = {one.name: one.symbols for one in spoken}
    clips = {studio.features.clips[i].clip: i for i in studio.heldout}
    recorded = {clip: resample(studio.wave(i), rate_hz, MEASURE_RATE_HZ) for clip, i in clips.items()}
    symbols = {clip: studio.features.clips[i].symbols for clip, i in clips.items()}

    def against(measure: Callable[[Wave], float | None]) -> gate.Against:
        return gate.Against({n: measure(w) for n, w in heard.items()}, {c: measure(w) for c, w in recorded.items()})

    errors = gate.Against(
        {name: ears.phone_errors(wave, texts[name]) for name, wave in heard.items()},
        {clip: ears.phone_errors(wave, symbols[clip]) for clip, wave in recorded.items()},
        absent="" if ears.recogniser else "the base brings no phone recogniser for this language",
    )
    said = {one.name: one.text for one in spoken}
    written = {clip: studio.features.clips[i].text for clip, i in clips.items()}
    misread = gate.Against(
        {name: ears.character_errors(wave, said[name]) for name, wave in heard.items()},
        {clip: ears.character_errors(wave, written[clip]) for clip, wave in recorded.items()},
        absent="" if ears.transcribe else "needs a speech recogniser: set evaluate.recogniser",
    )
    return gate.free_speech_checks(
        {one.name: float(is_complete(one, rate_hz)) for one in spoken},
        against(ears.opinion),
        against(ears.similarity),
        errors,
        misread,
        floors,
        needs_phone_errors=ears.recogniser is not None,
    )


def train_ears(studio: Studio, language: str, transcriber: str) -> Ears:
    """The recogniser, where the base has a trained one for this language, and the training clips' mean GE2E vector.

    ``transcriber``: a model of transformers, or empty.
    """
    rate_hz = studio.features.sample_rate_hz
    vectors = [
        embed_speaker(torch.from_numpy(speaker_mel(resample(studio.wave(i), rate_hz, MEASURE_RATE_HZ))))
        for i in studio.training
    ]
    centroid = torch.stack(vectors).mean(0)
    recogniser = None
    if language in studio.base.text.languages and "content" not in studio.base.random_roles:
        encoder = load_content_encoder(studio.base, studio.cache)
        recogniser = encoder if isinstance(encoder, PhoneEncoder) else None
    transcribe = load_recogniser(transcriber, studio.device, language) if transcriber else None
    return Ears(recogniser, transcribe, centroid / centroid.norm())


# -- the stage ------------------------------------------------------------------------------------------------------


def work(job: EvaluateJob) -> QualityReport:
    """Measure everything, decide, and write report/, sounds/ and reference/.

    A blocked gate is a report, not an error. Raises TransientError when stopped.
    """
    clock = time.perf_counter()
    if job.machine.threads:
        torch.set_num_threads(job.machine.threads)
    base = find_base(job.parameters["base"], job.machine.bases, job.machine.replaced_bases)
    studio = Studio(job, base)
    floors = Floors.model_validate(job.parameters["floors"])
    language = job.parameters["language"]
    clips = []
    for index in job.reporter.track(studio.heldout, description=f"{job.voice}: resynthesis"):
        if job.is_stopping():
            raise TransientError("stopped while measuring", hint="run again")
        clips.append(resound(studio, index, job.settings.seeds + index))
    spoken = speak_sentences(studio, language, job)
    rate_hz = studio.features.sample_rate_hz
    copies = copy_synthesis_scores(job.reporter.track(clips, description=f"{job.voice}: measuring copies"), rate_hz)
    checks = [
        *gate.base_checks(base.random_roles, language, base.text.languages),
        *gate.copy_synthesis_checks(copies["pesq_wb"], copies["stoi"], floors),
        *resynthesis_checks(clips, rate_hz),
        *free_speech_checks(studio, train_ears(studio, language, job.settings.recogniser), spoken, floors),
    ]
    passed, reasons = gate.verdict(checks)
    for check in checks:
        if check.evidence != "base" and check.limit is not None:
            job.reporter.log(f"{job.voice}: {check.line}")
    samples, sounds = _samples(clips, spoken, copies, rate_hz)
    report = QualityReport(
        voice=job.voice,
        version=job.parameters["version"],
        base=base.name,
        base_digest=base.digest,
        passed=passed,
        reasons=reasons,
        floors=floors,
        checks=tuple(checks),
        samples=tuple(samples),
        heldout_clips=studio.adapter.heldout_clips,
        duration_s=round(time.perf_counter() - clock, 2),
    )
    _write(job, studio, report, sounds)
    return report


def _samples(
    clips: Sequence[HeldOut],
    spoken: Sequence[FreeSentence],
    copies: dict[str, dict[str, float | None]],
    rate_hz: int,
) -> tuple[list[Sample], dict[str, Sound]]:
    """What the report plays; every sound is also a file."""
    sounds: dict[str, Sound] = {}

    def sound(name: str, role: str, title: str, wave: Wave) -> AudioFile:
        path = f"sounds/{name}-{role}.flac"
        sounds[path] = Sound(wave, rate_hz)
        return AudioFile(role=role, title=title, path=path)

    samples = []
    for number, one in enumerate(clips, 1):
        name = f"heldout-{number:02d}"
        recording = sound(name, "recording", "Recording", one.recording)
        copy = sound(name, "copy", "Copy-synthesis", one.copy)
        scores = {"PESQ-WB": copies["pesq_wb"][one.clip], "STOI": copies["stoi"][one.clip]}
        samples.append(
            Sample(name=one.clip, evidence="copy_synthesis", text=one.text, sounds=(recording, copy), scores=scores)
        )
        paths = (
            recording,
            sound(name, "adapted", "From tokens, with adapter", one.adapted),
            sound(name, "bare", "From tokens, bare base", one.bare),
        )
        samples.append(Sample(name=one.clip, evidence="resynthesis", text=one.text, sounds=paths))
    for one_sentence in spoken:
        played = sound(f"free-{one_sentence.name}", "spoken", "Spoken", one_sentence.wave)
        samples.append(
            Sample(
                name=f"Sentence {one_sentence.name}",
                evidence="free_speech",
                text=one_sentence.text,
                sounds=(played,),
                notes=one_sentence.problems,
            )
        )
    return samples, sounds


def _write(job: EvaluateJob, studio: Studio, report: QualityReport, sounds: dict[str, Sound]) -> None:
    for path, sound in sounds.items():
        samples = np.clip(sound.samples, -1.0, 1.0).astype(np.float32)
        write_atomically(job.folder / path, encode_audio(samples, sound.sample_rate_hz))
    page = render_html(report, studio.adapter, sounds, job.voxline_version)
    write_atomically(job.folder / REPORT_FILE, page.encode())
    write_atomically(job.folder / JUNIT_FILE, render_junit(report))
    write_atomically(job.folder / "report" / "report.json", report.model_dump_json(indent=1).encode())
    clip, folder = studio.reference_clip(), job.folder / REFERENCE_FOLDER
    write_atomically(folder / REFERENCE_AUDIO, encode_audio(studio.wave(studio.reference), clip.sample_rate_hz))
    write_atomically(folder / REFERENCE_RECORD, clip.model_dump_json(indent=1).encode())
