"""How well a small base speaks: the table of its model card, on any voice folders.

    python benchmarks/nano.py --voices ../shared/data/voices/en_vctk_p226 ../shared/data/voices/en_libri_533
    python benchmarks/nano.py --timings --voices ...   # speed alone, when nothing else runs
    python benchmarks/nano.py --voices ... --table docs/nano.md --reports work/*/evaluate/*/report/report.json

What is stored for the same weights is not measured again; several processes with `--only` can share the voices.
A voice folder has `metadata.csv` with `file|language|text` (or `file_name,text`); its speaker must not have been
trained on. Phone error rates are of the words that PocketSphinx hears, spelled by the dictionary. It gave the training
data their phone times, but taught no network to speak; human recordings of the same speaker stand beside. "By the
gate's ear" is nano's own content encoder, the judge of `voxline evaluate`, and the only one for Mandarin.
Speakers are compared by GE2E alone: every other encoder of speakers fetches its weights from a hub on first use.
Random weights and shuffled tokens are the controls: what speaks as badly as they do is broken.
Signals are compared at 16 kHz.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # this file's name would hide nothing, its neighbours' might

import numpy as np  # noqa: E402
import torch  # noqa: E402

from models.adapters.lora import merge  # noqa: E402
from models.clip_tensors import ClipTensors  # noqa: E402
from models.encoders.content import PhoneEncoder  # noqa: E402
from models.encoders.ge2e import embed_speaker  # noqa: E402
from models.learners.prior import PriorLearner  # noqa: E402
from models.loading.bases import load_base  # noqa: E402
from models.loading.listening import ContentListener, grid_of  # noqa: E402
from models.loading.networks import load_content_encoder, load_synthesizer, load_text2semantic  # noqa: E402
from models.phones.phone_classes import sounds_of_symbols  # noqa: E402
from models.sound.spectrogram import Spectrogram  # noqa: E402
from models.speaking.options import VoiceOptions  # noqa: E402
from models.speaking.rendering import vits_renderer  # noqa: E402
from models.speaking.voice import Manner, Reference, Sentence, Voice  # noqa: E402
from models.synthesizer.vits import Synthesizer  # noqa: E402
from models.text2semantic.decoding import Decoder  # noqa: E402
from models.text2semantic.transcribed import follow_text  # noqa: E402
from pipeline.io.audio import read_audio, resample, write_audio  # noqa: E402
from pipeline.pretrain.align import WORD, Recogniser  # noqa: E402
from pipeline.pretrain.prepare import normalise_level  # noqa: E402
from pipeline.records.settings import FinetuneSettings  # noqa: E402
from pipeline.signal.dnsmos import measure_dnsmos  # noqa: E402
from pipeline.signal.quality import (  # noqa: E402
    align_globally,
    mel_cepstral_distortion,
    pesq_wb,
    pitch_error,
    stoi,
)
from pipeline.signal.speaker import speaker_mel  # noqa: E402
from pipeline.stages.evaluate.studio import gate_sentences  # noqa: E402
from pipeline.stages.finetune import Training  # noqa: E402
from pipeline.text.edits import edit_distance  # noqa: E402
from pipeline.text.english import word_phones  # noqa: E402
from pipeline.text.frontend import phonemize  # noqa: E402
from pipeline.text.symbols import symbol_ids  # noqa: E402

RATE_HZ = 16_000
MAX_DELAY = 1600
HELD_OUT = 3
CONTROLS = 8  # sentences by broken voices
RESYNTHESISED = 6  # recordings spoken again from their tokens
PROMPT_S = (2.5, 6.5)
SECONDS = (1.2, 16.0)  # of a recording


@dataclass
class Recording:
    file: str
    language: str
    text: str
    wave: np.ndarray
    tensors: ClipTensors
    tokens_heard: torch.Tensor  # without the transcript's help

    @property
    def seconds(self) -> float:
        return len(self.wave) / RATE_HZ


class Networks:
    """The base's networks, and a synthesizer with random weights as the control."""

    def __init__(self, name: str) -> None:
        self.base, self.cache = load_base(name), Path()
        self.synthesizer = load_synthesizer(self.base, self.cache)
        self.content = load_content_encoder(self.base, self.cache)
        self.text2semantic = load_text2semantic(self.base, self.cache)
        torch.manual_seed(0)
        self.untrained = Synthesizer(self.base.synthesizer).eval()
        self.spectrogram = Spectrogram(self.base.synthesizer.spectrogram)

    @torch.no_grad()
    def features(self, wave: np.ndarray, text: str, language: str) -> tuple[ClipTensors, torch.Tensor]:
        sound = torch.from_numpy(wave)
        spec = self.spectrogram(sound[None])[0]
        content = self.content(sound[None])
        frames = min(spec.shape[1], content.shape[2]) // 2 * 2
        hop, guide = self.base.hop_samples, self.text2semantic.guide
        heard, phones = content[0, :, :frames], torch.tensor(symbol_ids(phonemize(text, language).symbols))
        said = heard if guide is None else follow_text(heard, phones, guide, 2)
        tensors = ClipTensors(
            wave=sound[: frames * hop],
            acoustic_features=spec[:, :frames],
            tokens=self.synthesizer.extract_tokens(said[None])[0, 0],
            phones=phones,
            speaker=embed_speaker(torch.from_numpy(speaker_mel(wave))),
        )
        return tensors, self.synthesizer.extract_tokens(heard[None])[0, 0]


def read_recordings(folder: Path) -> Iterator[tuple[str, str, str, np.ndarray]]:
    """File, language, text and samples at 16 kHz of the recordings that are neither too short nor too long."""
    text = (folder / "metadata.csv").read_text(encoding="utf-8").splitlines()
    for row in csv.DictReader(text, delimiter="|" if "|" in text[0] else ","):
        name, spoken = row.get("file") or row["file_name"], row["text"]
        audio = read_audio(folder / name)
        wave = normalise_level(resample(audio.mono, audio.sample_rate_hz, RATE_HZ).astype(np.float32))
        if SECONDS[0] < len(wave) / RATE_HZ < SECONDS[1]:
            yield name, row.get("language") or "en", spoken if spoken.rstrip()[-1:] in ".?!" else spoken + ".", wave


def read_voice(folder: Path, networks: Networks, limit: int) -> list[Recording]:
    return [
        Recording(name, language, text, wave, *networks.features(wave, text, language))
        for name, language, text, wave in islice(read_recordings(folder), limit)
    ]


def speaker_of(folder: Path, limit: int) -> torch.Tensor:
    """Mean vector of a voice's recordings."""
    waves = [wave for *_, wave in islice(read_recordings(folder), limit)]
    vectors = [embed_speaker(torch.from_numpy(speaker_mel(wave))) for wave in waves]
    return torch.nn.functional.normalize(torch.stack(vectors).mean(0), dim=0)


def condition(network: Synthesizer, clip: Recording) -> torch.Tensor:
    return network.condition(clip.tensors.acoustic_features[None], speaker=clip.tensors.speaker[None])


@torch.no_grad()
def copy_synthesis(network: Synthesizer, clips: Sequence[Recording]) -> dict[str, Any]:
    """Posterior and decoder alone, the clip as its own reference."""
    scores = []
    for clip in clips:
        ge = condition(network, clip)
        wave = network.copy_synthesis(clip.tensors.acoustic_features[None], ge)[0, 0].float().numpy()
        pair = align_globally(clip.wave, wave, MAX_DELAY)
        scores.append((pesq_wb(pair.reference, pair.other) or 1.0, stoi(pair.reference, pair.other, RATE_HZ) or 0.0))
    return copies([round(s[0], 3) for s in scores], [round(s[1], 4) for s in scores])


def copies(pesqs: list[float], stois: list[float]) -> dict[str, Any]:
    each = {"pesq_wb": pesqs, "stoi": stois}
    return {"clips": len(pesqs), "pesq_wb": spread(pesqs), "stoi": spread(stois), "each": each}


def last_of(scores: dict[str, Any], count: int) -> dict[str, Any]:
    return copies(scores["each"]["pesq_wb"][-count:], scores["each"]["stoi"][-count:])


@torch.no_grad()
def resynthesis(
    network: Synthesizer, clips: Sequence[Recording], judge: Judge, shuffle: bool = False, kind: str = "tokens"
) -> dict[str, Any]:
    """Tokens and phones through prior, flow and decoder, another clip as the reference.

    `kind`: "tokens" as the transcript corrects them, or "tokens_heard".
    """
    rows = []
    for index, clip in enumerate(clips):
        tokens = clip.tensors.tokens if kind == "tokens" else clip.tokens_heard
        if shuffle:
            tokens = shuffled(tokens, index)
        ge = condition(network, clips[index - 1])
        wave = network.decode(tokens[None, None], clip.tensors.phones[None], ge)[0, 0].float().numpy()
        pair = align_globally(clip.wave, wave, MAX_DELAY)
        pitch = pitch_error(clip.wave, wave, RATE_HZ)
        rows.append(
            {
                "stoi": stoi(pair.reference, pair.other, RATE_HZ) or 0.0,
                "mcd_db": mel_cepstral_distortion(clip.wave, wave, RATE_HZ) or float("nan"),
                "f0_correlation": pitch.correlation if pitch and pitch.correlation is not None else 0.0,
                "f0_rmse_cents": pitch.rmse_cents if pitch else float("nan"),
                "phone_error_rate": judge.error_rate(wave, clip.text, clip.language),
            }
        )
    return {key: round(float(np.nanmean([row[key] for row in rows])), 4) for key in rows[0]}


class Judge:
    """Counts phone errors: of what PocketSphinx hears, and of what nano's own encoder hears."""

    def __init__(self, encoder: PhoneEncoder) -> None:
        self.recogniser, self.encoder, self.ids = Recogniser(), encoder, dict[str, int]()

    def number(self, sounds: Sequence[str]) -> list[int]:
        return [self.ids.setdefault(sound, len(self.ids)) for sound in sounds]

    def phones(self, text: str) -> list[int]:
        words = [word_phones(word.strip("'")) for word in WORD.findall(text.lower())]
        return self.number([sound for word in words for phone in word for sound in sounds_of_symbols()[phone]])

    def error_rate(self, wave: np.ndarray, text: str, language: str) -> float:
        """By PocketSphinx; not a number in a language that it does not know."""
        if language != "en":
            return float("nan")
        level = normalise_level(wave.astype(np.float32)) if len(wave) > 3200 else wave
        heard = self.recogniser.words((np.clip(level, -1, 1) * 32767).astype(np.int16))
        wanted = self.phones(text)
        return min(1.0, edit_distance(self.phones(heard), wanted) / len(wanted))

    def gate_error_rate(self, wave: np.ndarray, text: str, language: str) -> float:
        """By the content encoder, as the gate counts."""
        symbols = phonemize(text, language).symbols
        wanted = self.number([sound for symbol in symbols for sound in sounds_of_symbols()[symbol]])
        heard = self.encoder.recognise(torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32)))
        return edit_distance(self.number(heard), wanted) / len(wanted)


@dataclass
class Spoken:
    """Sentences by one voice: what was said, by which tokens, and how it sounds."""

    texts: list[str]
    phones: list[torch.Tensor]
    tokens: list[torch.Tensor]
    waves: list[np.ndarray]
    seconds: float  # that it took
    unsound: int
    tried_again: int


def reference_of(prompt: Recording) -> Reference:
    return Reference(torch.from_numpy(prompt.wave), RATE_HZ, prompt.tensors.phones, speaker=prompt.tensors.speaker)


def speak(voice: Voice, prompt: Recording, sentences: Sequence[str]) -> Spoken:
    """Sentences nobody of the voice has read."""
    reference = reference_of(prompt)
    voice.prepare(reference)
    spoken = Spoken(list(sentences), [], [], [], 0.0, 0, 0)
    for index, text in enumerate(sentences):
        begun = time.perf_counter()
        phones = torch.tensor(symbol_ids(phonemize(text, prompt.language).symbols))
        speech = voice.speak([Sentence(phones)], reference, Manner(seed=index))
        spoken.seconds += time.perf_counter() - begun
        attempts = speech.sentences[0].attempts
        spoken.phones.append(phones)
        spoken.tokens.append(torch.tensor(attempts[-1].tokens))
        spoken.waves.append(speech.wave.numpy())
        spoken.unsound += not speech.is_sound
        spoken.tried_again += len(attempts) - 1
    return spoken


@torch.no_grad()
def speak_again(network: Synthesizer, spoken: Spoken, prompt: Recording, count: int, shuffle: bool = False) -> Spoken:
    """The same tokens by another network, or in random order: the controls."""
    ge, waves = condition(network, prompt), []
    for index, (tokens, phones) in enumerate(zip(spoken.tokens[:count], spoken.phones, strict=False)):
        said = shuffled(tokens, index) if shuffle else tokens
        waves.append(network.decode(said[None, None], phones[None], ge)[0, 0].float().numpy())
    return Spoken(spoken.texts[:count], spoken.phones[:count], spoken.tokens[:count], waves, 0.0, 0, 0)


def shuffled(tokens: torch.Tensor, seed: int) -> torch.Tensor:
    return tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))]


def free_speech(
    spoken: Spoken, own: str, language: str, speakers: dict[str, torch.Tensor], judge: Judge, folder: Path | None = None
) -> dict[str, Any]:
    """How free sentences sound; per sentence, too, so that the number of sentences can be judged."""
    vectors = torch.stack([embed_speaker(torch.from_numpy(speaker_mel(wave))) for wave in spoken.waves])
    names = [name for name in speakers if name != own]
    others = torch.stack([speakers[name] for name in names])
    own_likeness, other_likeness = vectors @ speakers[own], vectors @ others.T  # (S,), (S, O)
    pairs = list(zip(spoken.waves, spoken.texts, strict=True))
    each = {
        "phone_errors": [round(judge.error_rate(wave, text, language), 4) for wave, text in pairs],
        "gate_phone_errors": [round(judge.gate_error_rate(wave, text, language), 4) for wave, text in pairs],
        "dnsmos_ovr": [round(measure_dnsmos(wave).ovr, 3) for wave in spoken.waves],
        "ge2e": [round(value, 4) for value in own_likeness.tolist()],
    }
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        for index, wave in enumerate(spoken.waves):
            write_audio(folder / f"free-{index:02d}.wav", wave, RATE_HZ)
    return {
        "sentences": len(spoken.texts),
        "phone_error_rate": mean(each["phone_errors"]),
        "gate_phone_error_rate": mean(each["gate_phone_errors"]),
        "dnsmos_ovr": spread(each["dnsmos_ovr"]),
        "ge2e_own": mean(each["ge2e"]),
        "ge2e_nearest_other": round(float(other_likeness.mean(0).max()), 4),
        "ge2e_others": dict(zip(names, [round(value, 4) for value in other_likeness.mean(0).tolist()], strict=True)),
        "own_is_nearest": round(float((own_likeness > other_likeness.amax(1)).float().mean()), 4),
        "rtf": round(spoken.seconds / sum(len(wave) / RATE_HZ for wave in spoken.waves), 4),
        "tried_again": spoken.tried_again,
        "unsound": spoken.unsound,
        "each": each,
    }


def finetune(networks: Networks, clips: Sequence[Recording]) -> tuple[Synthesizer, float]:
    """The synthesizer as the stage finetune makes it, merged; the last clips are held out. Also the seconds it took.

    The text-to-semantic network of nano is not fine-tuned.
    """
    tensors = [clip.tensors for clip in clips]
    learner = PriorLearner(copy.deepcopy(networks.synthesizer), torch.device("cpu"))
    begun = time.perf_counter()
    training = Training("synthesizer", learner, FinetuneSettings(), torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "synthesizer.safetensors"
        for _ in training.run(tensors[:-HELD_OUT], tensors[-HELD_OUT:], checkpoint, lambda: False):
            pass
    spent_s = time.perf_counter() - begun
    print(clips[0].file, training.progress.curves, file=sys.stderr)
    return merge(learner.network), spent_s


def build_voice(networks: Networks, synthesizer: Synthesizer) -> Voice:
    renderer = vits_renderer(copy.deepcopy(synthesizer), torch.device("cpu"), VoiceOptions())
    grid = grid_of(renderer.synthesizer)
    listener = ContentListener(networks.content, renderer.synthesizer, grid, torch.device("cpu"))
    return Voice(Decoder(networks.text2semantic), renderer, listener.hear)


def spread(values: Sequence[float]) -> dict[str, float]:
    array = np.array(values)
    return {
        "mean": round(float(array.mean()), 4),
        "min": round(float(array.min()), 4),
        "p5": round(float(np.percentile(array, 5)), 4),
    }


def measure_voice(
    folder: Path, networks: Networks, clips: list[Recording], speakers: dict[str, torch.Tensor],
    options: argparse.Namespace, judge: Judge,
) -> dict[str, Any]:  # fmt: skip
    held_out = clips[-HELD_OUT:]
    prompts = [clip for clip in clips[:-HELD_OUT] if PROMPT_S[0] < clip.seconds < PROMPT_S[1]] or clips[:1]
    sentences = sentences_in(clips[0].language)[: options.sentences]
    result: dict[str, Any] = {"voice": folder.name, "language": clips[0].language, "clips": len(clips)}
    result["human"] = human(clips, folder.name, speakers, judge)
    result["copy_synthesis"] = copy_synthesis(networks.synthesizer, clips)
    result["copy_synthesis_held_out"] = last_of(result["copy_synthesis"], HELD_OUT)
    result["copy_synthesis_untrained"] = copy_synthesis(networks.untrained, held_out)
    result["resynthesis"] = resynthesis(networks.synthesizer, clips[-RESYNTHESISED:], judge)
    result["resynthesis_untrained"] = resynthesis(networks.untrained, held_out, judge)
    result["resynthesis_shuffled"] = resynthesis(networks.synthesizer, held_out, judge, shuffle=True)
    result["resynthesis_heard"] = resynthesis(networks.synthesizer, held_out, judge, kind="tokens_heard")
    name, language, prompt = folder.name, clips[0].language, prompts[0]

    def judged(spoken: Spoken, audio: str = "") -> dict[str, Any]:
        place = options.audio / audio if options.audio and audio else None
        return free_speech(spoken, name, language, speakers, judge, place)

    bare = speak(build_voice(networks, networks.synthesizer), prompt, sentences)
    result["free_speech"] = judged(bare, name)
    result["free_speech_untrained"] = judged(speak_again(networks.untrained, bare, prompt, CONTROLS))
    result["free_speech_shuffled"] = judged(speak_again(networks.synthesizer, bare, prompt, CONTROLS, shuffle=True))
    if options.finetune:
        synthesizer, spent_s = finetune(networks, clips)
        result["finetune_s"] = round(spent_s, 1)
        result["copy_synthesis_finetuned"] = copy_synthesis(synthesizer, held_out)
        result["resynthesis_finetuned"] = resynthesis(synthesizer, held_out, judge)
        result["resynthesis_held_out"] = resynthesis(networks.synthesizer, held_out, judge)
        tuned = speak(build_voice(networks, synthesizer), prompt, sentences)
        result["free_speech_finetuned"] = judged(tuned, f"{name}-finetuned")
        pairs = zip(*(result[kind]["each"]["ge2e"] for kind in ("free_speech_finetuned", "free_speech")), strict=True)
        result["nearer_than_bare"] = round(float(np.mean([tuned > untuned for tuned, untuned in pairs])), 4)
    return result


def sentences_in(language: str) -> list[str]:
    """Sentences that nobody of the voices has read: 30 English ones, the gate's in other languages."""
    if language == "en":
        return (HERE / "nano_sentences.txt").read_text(encoding="utf-8").splitlines()
    return gate_sentences(language)


def human(clips: Sequence[Recording], own: str, speakers: dict[str, torch.Tensor], judge: Judge) -> dict[str, Any]:
    """The speaker's recordings by the same tools, and how near the nearest other speaker's mean vector is."""
    vectors = torch.stack([clip.tensors.speaker for clip in clips])
    others = [float(vector @ speakers[own]) for name, vector in speakers.items() if name != own]
    return {
        "phone_error_rate": mean([judge.error_rate(clip.wave, clip.text, clip.language) for clip in clips]),
        "gate_phone_error_rate": mean([judge.gate_error_rate(clip.wave, clip.text, clip.language) for clip in clips]),
        "dnsmos_ovr": spread([measure_dnsmos(clip.wave).ovr for clip in clips]),
        "ge2e_own": mean((vectors @ speakers[own]).tolist()),
        "ge2e_nearest_other": round(max(others), 4) if others else None,
    }


def mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)


TABLE = (
    ("copy-synthesis PESQ-WB, mean / lowest", "copy_synthesis.pesq_wb.mean", "copy_synthesis.pesq_wb.min", "3.3"),
    ("copy-synthesis STOI, mean / lowest", "copy_synthesis.stoi.mean", "copy_synthesis.stoi.min", "0.92"),
    ("held-out clips, PESQ-WB: bare / fine-tuned", "copy_synthesis_held_out.pesq_wb.mean",
     "copy_synthesis_finetuned.pesq_wb.mean", "3.5 fine-tuned"),
    ("held-out clips, STOI: bare / fine-tuned", "copy_synthesis_held_out.stoi.mean",
     "copy_synthesis_finetuned.stoi.mean", "not falling"),
    ("control, random weights: PESQ-WB / STOI", "copy_synthesis_untrained.pesq_wb.mean",
     "copy_synthesis_untrained.stoi.mean", ""),
    ("resynthesis STOI, held-out clips: bare / fine-tuned", "resynthesis_held_out.stoi", "resynthesis_finetuned.stoi",
     ""),
    ("the same by tokens that the transcript did not correct", "resynthesis_heard.stoi", "", ""),
    ("controls: random weights / shuffled tokens", "resynthesis_untrained.stoi", "resynthesis_shuffled.stoi", ""),
    ("resynthesis MCD, dB / pitch correlation", "resynthesis.mcd_db", "resynthesis.f0_correlation", ""),
    ("phone errors: recordings / resynthesis", "human.phone_error_rate", "resynthesis.phone_error_rate", ""),
    ("phone errors of free speech: bare / fine-tuned", "free_speech.phone_error_rate",
     "free_speech_finetuned.phone_error_rate", "recordings + 0.15; + 0.08"),
    ("controls: random weights / shuffled tokens", "free_speech_untrained.phone_error_rate",
     "free_speech_shuffled.phone_error_rate", ""),
    ("by the gate's ear: recordings / fine-tuned", "human.gate_phone_error_rate",
     "free_speech_finetuned.gate_phone_error_rate", ""),
    ("controls by the gate's ear: random weights / shuffled tokens", "free_speech_untrained.gate_phone_error_rate",
     "free_speech_shuffled.gate_phone_error_rate", ""),
    ("DNSMOS OVR: recordings", "human.dnsmos_ovr.mean", "", ""),
    ("DNSMOS OVR of free speech: bare / fine-tuned", "free_speech.dnsmos_ovr.mean",
     "free_speech_finetuned.dnsmos_ovr.mean", "2.7"),
    ("controls: random weights / shuffled tokens", "free_speech_untrained.dnsmos_ovr.mean",
     "free_speech_shuffled.dnsmos_ovr.mean", ""),
    ("GE2E to the speaker: recordings / nearest other speaker's", "human.ge2e_own", "human.ge2e_nearest_other", ""),
    ("GE2E of free speech: bare / fine-tuned", "free_speech.ge2e_own", "free_speech_finetuned.ge2e_own", "above bare"),
    ("GE2E of fine-tuned speech to the nearest other speaker", "free_speech_finetuned.ge2e_nearest_other", "", ""),
    ("own speaker nearest of all, share of sentences: bare / fine-tuned", "free_speech.own_is_nearest",
     "free_speech_finetuned.own_is_nearest", "0.95"),
    ("sentences nearer than the bare base's", "nearer_than_bare", "", ""),
    ("sentences / of them damaged in the end", "free_speech_finetuned.sentences", "free_speech_finetuned.unsound", "0"),
    ("idle machine: text to waveform, real-time factor", "timings.rtf", "", "0.15"),
    ("idle machine: fine-tuning, s / of speech, s", "timings.finetune_s", "timings.speech_s", "60 of 60-90"),
)  # fmt: skip
"""Rows of the table: what is shown, one or two numbers of the report, the goal."""


def flipped(voice: dict[str, Any], allowed: dict[str, float], count: int, draws: int = 4000) -> float:
    """Chance that the gate's verdict on free speech differs when `count` sentences decide instead of all of them."""
    human, each = voice["human"], voice["free_speech_finetuned"]["each"]
    margins = np.stack([
        np.array(each["dnsmos_ovr"]) - human["dnsmos_ovr"]["mean"] + allowed["dnsmos_ovr"],
        np.array(each["ge2e"]) - human["ge2e_own"] + allowed["ge2e"],
        human["gate_phone_error_rate"] + allowed["gate_phone_errors"] - np.array(each["gate_phone_errors"]),
    ])  # fmt: skip
    picks = np.random.default_rng(0).integers(margins.shape[1], size=(draws, count))
    verdicts = (margins[:, picks].mean(2) >= 0).all(0)
    return round(float((verdicts != (margins.mean(1) >= 0).all()).mean()), 3)


def render_floors(voices: Sequence[dict[str, Any]]) -> list[str]:
    """What the floors of base.yaml rest on: good fine-tunes of unheard speakers, and what is broken."""
    lines = ["## What the floors rest on", ""]
    voices = [voice for voice in voices if "free_speech_finetuned" in voice]
    for title, measure in (("PESQ-WB", "pesq_wb"), ("STOI", "stoi")):
        scores = [score for voice in voices for score in voice["copy_synthesis"]["each"][measure]]
        broken = max(voice["copy_synthesis_untrained"][measure]["mean"] for voice in voices)
        lines.append(
            f"- Copy-synthesis {title} of {len(scores)} clips: 5th percentile {np.percentile(scores, 5):.3f}, lowest"
            f" {min(scores):.3f}; random weights at best {broken:.3f}."
        )
    good = [voice["human"]["ge2e_own"] - voice["free_speech_finetuned"]["ge2e_own"] for voice in voices]
    human = {voice["voice"]: voice["human"]["ge2e_own"] for voice in voices}
    wrong = [
        human[other] - likeness
        for voice in voices
        for other, likeness in voice["free_speech_finetuned"]["ge2e_others"].items()
        if other in human
    ]
    lines.append(
        f"- GE2E that fine-tuned speech loses against recordings: {told(good)}; speech of a wrong speaker loses"
        f" {min(wrong):.3f} to {max(wrong):.3f} ({len(wrong)} pairs)."
    )
    for title, measure, sign in (("DNSMOS", "dnsmos_ovr", 1), ("Phone errors", "gate_phone_error_rate", -1)):
        good, random, mixed = (
            told(free_speech_loss(voices, kind, measure, sign)) for kind in ("finetuned", "untrained", "shuffled")
        )
        lines.append(
            f"- {title} by the gate's ear, how much worse than recordings: fine-tuned {good}; random weights {random};"
            f" shuffled tokens {mixed}."
        )
    return [*lines, ""]


def free_speech_loss(voices: Sequence[dict[str, Any]], kind: str, measure: str, sign: int) -> list[float]:
    """How much worse than the speaker's recordings, of every voice."""

    def value(part: dict[str, Any]) -> float:
        return float(part[measure]["mean"] if isinstance(part[measure], dict) else part[measure])

    return [sign * (value(voice["human"]) - value(voice[f"free_speech_{kind}"])) for voice in voices]


def told(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def render_stability(voices: Sequence[dict[str, Any]], allowed: dict[str, float]) -> list[str]:
    """How many sentences the gate needs: a bootstrap over the sentences measured here."""
    voices = [voice for voice in voices if "free_speech_finetuned" in voice]
    lines = [
        "## How many sentences the gate needs",
        "",
        "Chance that the gate's verdict on free speech (DNSMOS, GE2E and phone errors together) flips when so many",
        "sentences decide instead of all those measured above; bootstrap over sentences, the limits of `base.yaml`.",
        "",
        "| sentences | " + " | ".join(voice["voice"] for voice in voices) + " |",
        "|---" * (len(voices) + 1) + "|",
    ]
    for count in (4, 8, 12, 16, 24):
        lines.append(f"| {count} | " + " | ".join(f"{flipped(voice, allowed, count):.3f}" for voice in voices) + " |")
    return lines


GATE = (
    ("copy-synthesis PESQ-WB", "copy_synthesis.pesq_wb"),
    ("copy-synthesis STOI", "copy_synthesis.stoi"),
    ("STOI by its tokens, less that by shuffled ones", "resynthesis.tokens_matter"),
    ("DNSMOS OVR of free speech", "free_speech.dnsmos_ovr"),
    ("GE2E of free speech", "free_speech.similarity"),
    ("phone errors of free speech, nano's own encoder", "free_speech.phone_errors"),
)


def read_verdict(path: Path) -> dict[str, Any]:
    """What `voxline evaluate` wrote, as far as the table shows it."""
    found = json.loads(path.read_text(encoding="utf-8"))
    checks = {check["id"]: check for check in found["checks"]}
    rows = {id_: {key: checks[id_][key] for key in ("value", "limit", "status")} for _, id_ in GATE}
    return {"voice": found["voice"], "base_digest": found["base_digest"], "passed": found["passed"], "checks": rows}


def newest_verdicts(paths: Sequence[Path], digest: str) -> list[dict[str, Any]]:
    """One of every voice, with these weights."""
    found = [read_verdict(path) for path in sorted(paths, key=lambda path: path.stat().st_mtime)]
    return list({one["voice"]: one for one in found if one["base_digest"] == digest}.values())


def render_gate(verdicts: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "## Voices through the gate",
        "",
        "`voxline run VOICE` with the settings as they are; value (limit), a star where it blocks. nano was trained on",
        "other sentences of LJ, slt and S0150 (`zh`); the sample is synthetic; the others it never met.",
        "",
        "| | " + " | ".join(one["voice"] for one in verdicts) + " |",
        "|---" * (len(verdicts) + 1) + "|",
    ]
    for title, id_ in GATE:
        cells = []
        for one in verdicts:
            check = one["checks"][id_]
            star = "*" if check["status"] != "passed" else ""
            cells.append("-" if check["value"] is None else f"{check['value']:.3g} ({check['limit']:.3g}){star}")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines.append("| verdict | " + " | ".join("passed" if one["passed"] else "blocked" for one in verdicts) + " |")
    return lines


def look_up(report: dict[str, Any], path: str) -> str:
    value: Any = report
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return "-" if value is None or value != value else f"{value:.3g}"


def render_table(report: dict[str, Any]) -> str:
    """The report as a page of Markdown."""
    voices, machine = report["voices"], report["machine"]
    head = [f"{voice['voice']} ({voice['clips']} clips)" for voice in voices]
    lines = [
        "# nano, measured",
        "",
        "Made by `benchmarks/nano.py`; what the figures mean is said there and in `models/bases/nano/README.md`.",
        f"Command: `{report['command']}`. Base digest {report['base_digest'][:12]}.",
        "Machine: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in machine.items()) + ".",
        "",
        "| | " + " | ".join(head) + " | goal |",
        "|---" * (len(head) + 2) + "|",
    ]
    for title, first, second, goal in TABLE:
        cells = [" / ".join(look_up(voice, path) for path in (first, second) if path) for voice in voices]
        lines.append(f"| {title} | " + " | ".join(cells) + f" | {goal} |")
    verdicts = report.get("verdicts", [])
    gate = [*render_gate(verdicts), ""] if verdicts else []
    return "\n".join([*lines, "", *render_floors(voices), *render_stability(voices, report["allowed"]), "", *gate])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voices", type=Path, nargs="+", help="folders; without them nothing is measured anew")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="further speakers to be told from")
    parser.add_argument("--only", nargs="*", help="measure these now; the rest of the voices as stored, or not at all")
    parser.add_argument("--timings", action="store_true", help="measure speed alone, for an idle machine")
    parser.add_argument("--again", action="store_true", help="measure also what is stored")
    parser.add_argument("--base", default="nano")
    parser.add_argument("--sentences", type=int, default=30)
    parser.add_argument("--clips", type=int, default=40, help="at most this many recordings of a voice")
    parser.add_argument("--no-finetune", dest="finetune", action="store_false")
    parser.add_argument("--reports", type=Path, nargs="*", default=[], help="report.json of voices that were evaluated")
    parser.add_argument("--audio", type=Path, help="folder for what was spoken")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--table", type=Path, help="Markdown file to write the table to")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "nano.json", help="beside it: one per voice")
    options = parser.parse_args()
    report = measure(options) if options.voices else json.loads(options.output.read_text(encoding="utf-8"))
    if options.table:
        options.table.write_text(render_table(report), encoding="utf-8")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything of the table, each voice stored when it is done: several processes can share the voices."""
    torch.set_num_threads(options.threads)
    networks = Networks(options.base)
    folder = options.output.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"base_digest": networks.base.digest, "clips": options.clips}
    if not options.timings:
        wanted["sentences"] = options.sentences
    kind = "timings" if options.timings else "quality"
    for voice in options.voices:
        path = folder / f"{voice.name}.{kind}.json"
        if options.only is not None and voice.name not in options.only:
            continue
        if options.again or not is_stored(path, wanted):
            found = (
                measure_speed(voice, networks, options) if options.timings else measure_one(voice, networks, options)
            )
            path.write_text(json.dumps({**wanted, "found": found}, indent=1) + "\n", encoding="utf-8")
    card = networks.base.gate.floors
    report = {
        "command": " ".join(["python", "benchmarks/nano.py", *sys.argv[1:]]),
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                    "threads": options.threads, "python": platform.python_version(), "torch": torch.__version__,
                    "pocketsphinx": version("pocketsphinx"), "pesq": version("pesq"), "pystoi": version("pystoi")},
        "base": options.base,
        "base_digest": networks.base.digest,
        "allowed": {"dnsmos_ovr": card["dnsmos_loss"], "ge2e": card["similarity_loss"],
                    "gate_phone_errors": card["phone_errors_more"]},
        "voices": [stored(folder, voice.name, networks.base.digest) for voice in options.voices],
        "verdicts": newest_verdicts(options.reports, networks.base.digest),
    }  # fmt: skip
    report["voices"] = [voice for voice in report["voices"] if voice]
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def is_stored(path: Path, wanted: dict[str, Any]) -> bool:
    if not path.exists():
        return False
    content = json.loads(path.read_text(encoding="utf-8"))
    return all(content.get(key) == value for key, value in wanted.items())


def stored(folder: Path, name: str, digest: str) -> dict[str, Any]:
    """What is known of a voice with this base; empty where nothing is."""
    parts = {}
    for kind in ("quality", "timings"):
        path = folder / f"{name}.{kind}.json"
        if is_stored(path, {"base_digest": digest}):
            parts[kind] = json.loads(path.read_text(encoding="utf-8"))["found"]
    return {**parts["quality"], "timings": parts.get("timings")} if "quality" in parts else {}


def measure_one(folder: Path, networks: Networks, options: argparse.Namespace) -> dict[str, Any]:
    clips = read_voice(folder, networks, options.clips)
    speakers = {other.name: speaker_of(other, options.clips) for other in (*options.voices, *options.others)}
    return measure_voice(folder, networks, clips, speakers, options, Judge(networks.content))


def measure_speed(folder: Path, networks: Networks, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of fine-tuning and of eight sentences."""
    clips = read_voice(folder, networks, options.clips)
    synthesizer, spent_s = finetune(networks, clips)
    spoken = speak(build_voice(networks, synthesizer), clips[0], sentences_in(clips[0].language)[:CONTROLS])
    audio_s = sum(len(wave) for wave in spoken.waves) / RATE_HZ
    return {
        "finetune_s": round(spent_s, 1),
        "speech_s": round(sum(clip.seconds for clip in clips[:-HELD_OUT]), 1),
        "rtf": round(spoken.seconds / audio_s, 4),
        "load": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    main()
