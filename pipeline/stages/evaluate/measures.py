"""What each row of `records/metrics.py` measures: one function for each, found by the row's id.

Of copies and resyntheses a measure takes two sounds, of free speech one and the ears that hear it, of a base its facts.
What is measured twice is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.encoders.content import PhoneEncoder
from models.encoders.ge2e import embed_speaker
from models.judges.transcriber import load_recogniser
from models.loading.networks import load_phone_recogniser
from models.phones.phone_classes import sounds_of_symbols
from pipeline.io.audio import resample
from pipeline.records.metrics import Metric
from pipeline.signal import quality
from pipeline.signal.dnsmos import measure_dnsmos
from pipeline.signal.gate import Measured, Scores
from pipeline.signal.speaker import speaker_mel
from pipeline.stages.evaluate.studio import FreeSentence, HeldOut, Studio, Wave
from pipeline.text.edits import edit_distance

MEASURE_RATE_HZ = 16_000
MAX_DELAY_S = 0.1
PHONES_PER_S = (4.0, 30.0)  # outside, nobody is speaking
SILENT_DBFS = -50.0


# -- what is measured -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Foundation:
    """The base, and what is asked of it."""

    random_roles: tuple[str, ...]
    languages: tuple[str, ...]
    language: str


@dataclass(frozen=True, eq=False)
class Pair:
    """A recording and what became of it, at 16 kHz."""

    recording: Wave
    other: Wave

    @cached_property
    def aligned(self) -> quality.Aligned:
        return quality.align_globally(self.recording, self.other, int(MAX_DELAY_S * MEASURE_RATE_HZ))

    @cached_property
    def pitch(self) -> quality.PitchError | None:
        return quality.pitch_error(self.recording, self.other, MEASURE_RATE_HZ)

    @cached_property
    def stoi(self) -> float | None:
        return quality.stoi(self.aligned.reference, self.aligned.other, MEASURE_RATE_HZ)

    @cached_property
    def mcd_db(self) -> float | None:
        return quality.mel_cepstral_distortion(self.recording, self.other, MEASURE_RATE_HZ)


@dataclass(frozen=True, eq=False)
class Utterance:
    """Speech at 16 kHz with its text. ``sentence``: as it was spoken, where a voice spoke it."""

    wave: Wave
    symbols: tuple[str, ...]
    text: str
    sentence: FreeSentence | None = None


@dataclass(frozen=True)
class Ears:
    """What listens to free speech and to the speaker's own recordings alike; None: not here."""

    recogniser: PhoneEncoder | None
    transcribe: Callable[[Tensor], str] | None
    centroid: Tensor  # (256,)


# -- the measures ---------------------------------------------------------------------------------------------------


def has_trained_weights(base: Foundation) -> tuple[float, str]:
    roles = ", ".join(base.random_roles)
    told = f"random numbers stand in for: {roles}; such a base only tries the line" if roles else "all networks have"
    return float(not roles), told


def speaks_language(base: Foundation) -> tuple[float, str]:
    told = f"the voice is {base.language}, the base knows {', '.join(base.languages)}"
    return float(base.language in base.languages), told


def pesq_wb(pair: Pair) -> float | None:
    return quality.pesq_wb(pair.aligned.reference, pair.aligned.other)


def stoi(pair: Pair) -> float | None:
    return pair.stoi


def mcd_db(pair: Pair) -> float | None:
    return pair.mcd_db


def pitch_rmse_cents(pair: Pair) -> float | None:
    return pair.pitch.rmse_cents if pair.pitch else None


def pitch_correlation(pair: Pair) -> float | None:
    return pair.pitch.correlation if pair.pitch else None


def voicing_error(pair: Pair) -> float | None:
    return pair.pitch.voicing_error if pair.pitch else None


def completeness(said: Utterance, _: Ears) -> float | None:
    """Reached its end by itself, at a human pace, audible and not clipped away."""
    return float(is_complete(said.sentence)) if said.sentence else None


def is_complete(sentence: FreeSentence) -> bool:
    duration_s = len(sentence.wave) / sentence.sample_rate_hz
    if sentence.problems or duration_s == 0 or not np.all(np.isfinite(sentence.wave)):
        return False
    level_dbfs = 10 * np.log10(max(float(np.mean(np.square(sentence.wave))), 1e-12))
    clipped = float(np.mean(np.abs(sentence.wave) >= 0.999))
    pace = len(sentence.symbols) / duration_s
    return PHONES_PER_S[0] <= pace <= PHONES_PER_S[1] and level_dbfs > SILENT_DBFS and clipped < 0.01


def dnsmos_overall(said: Utterance, _: Ears) -> float | None:
    return measure_dnsmos(said.wave).ovr if _can_be_judged(said.wave) else None


def ge2e_similarity(said: Utterance, ears: Ears) -> float | None:
    """Cosine to the speaker's training clips."""
    if not _can_be_judged(said.wave):
        return None
    return float(embed_speaker(torch.from_numpy(speaker_mel(said.wave))) @ ears.centroid)


def _can_be_judged(speech: Wave) -> bool:
    return len(speech) >= MEASURE_RATE_HZ // 2 and bool(np.any(speech))


def phone_errors(said: Utterance, ears: Ears) -> float | None:
    """Edits to get from what the base's recogniser hears to the phones of the text, per phone."""
    table = sounds_of_symbols()
    wanted = [sound for symbol in said.symbols for sound in table.get(symbol, ())]
    if ears.recogniser is None or not wanted or len(said.wave) < MEASURE_RATE_HZ // 4:
        return None
    if not all(symbol in table for symbol in said.symbols):
        return None
    heard = ears.recogniser.recognise(torch.from_numpy(said.wave))
    return edit_distance(heard, wanted) / len(wanted)


def character_errors(said: Utterance, ears: Ears) -> float | None:
    """Edits to get from what a recogniser of another lineage reads to the text, per letter."""
    wanted = letters(said.text)
    if ears.transcribe is None or not wanted or len(said.wave) < MEASURE_RATE_HZ // 4:
        return None
    return edit_distance(letters(ears.transcribe(torch.from_numpy(said.wave))), wanted) / len(wanted)


def letters(text: str) -> str:
    """What is compared of a text: letters and digits without case, punctuation and spaces."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())


# A row's id -> its measure.
MEASURES: dict[str, Callable[..., Any]] = {
    "base.trained": has_trained_weights,
    "base.language": speaks_language,
    "copy_synthesis.pesq_wb": pesq_wb,
    "copy_synthesis.stoi": stoi,
    "resynthesis.stoi_change": stoi,
    "resynthesis.mcd_change": mcd_db,
    "resynthesis.tokens_matter": stoi,
    "resynthesis.pesq_wb": pesq_wb,
    "resynthesis.stoi": stoi,
    "resynthesis.mcd_db": mcd_db,
    "resynthesis.pitch_rmse_cents": pitch_rmse_cents,
    "resynthesis.pitch_correlation": pitch_correlation,
    "resynthesis.voicing_error": voicing_error,
    "free_speech.complete": completeness,
    "free_speech.dnsmos_ovr": dnsmos_overall,
    "free_speech.similarity": ge2e_similarity,
    "free_speech.phone_errors": phone_errors,
    "free_speech.cer": character_errors,
}


# -- measuring ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measuring:
    """Everything there is to measure, by clip or sentence.

    ``pairs``: path (copy, adapted, bare, shuffled) -> clip -> what became of it on that path.
    """

    foundation: Foundation
    pairs: Mapping[str, Mapping[str, Pair]]
    spoken: Mapping[str, Utterance]
    recorded: Mapping[str, Utterance]
    ears: Ears


def measure(metric: Metric, takes: Measuring) -> Measured:
    """The numbers of one row."""
    tool = MEASURES[metric.id]
    if metric.evidence == "base":
        value, told = tool(takes.foundation)
        return Measured({takes.foundation.language: value}, told=told)
    if metric.evidence == "free_speech":
        absent = metric.absent if metric.ear and getattr(takes.ears, metric.ear) is None else ""
        others = takes.recorded if metric.against == "recordings" else {}
        return Measured(_heard(tool, takes.spoken, takes.ears), _heard(tool, others, takes.ears), absent)
    path = "copy" if metric.evidence == "copy_synthesis" else "adapted"
    return Measured(_compared(tool, takes.pairs[path]), _compared(tool, takes.pairs.get(metric.against, {})))


def _heard(tool: Callable[..., float | None], said: Mapping[str, Utterance], ears: Ears) -> Scores:
    return {name: tool(one, ears) for name, one in said.items()}


def _compared(tool: Callable[..., float | None], pairs: Mapping[str, Pair]) -> Scores:
    return {clip: tool(pair) for clip, pair in pairs.items()}


def take(
    studio: Studio, clips: Sequence[HeldOut], spoken: Sequence[FreeSentence], language: str, ears: Ears
) -> Measuring:
    """All sounds at the rate at which they are measured."""
    rate_hz = studio.features.sample_rate_hz

    def plain(wave: Wave) -> Wave:
        return resample(wave, rate_hz, MEASURE_RATE_HZ)

    paths = ("copy", "adapted", "bare", "shuffled")
    heldout = [studio.features.clips[index] for index in studio.heldout]
    return Measuring(
        foundation=Foundation(studio.base.random_roles, studio.base.text.languages, language),
        pairs={p: {one.clip: Pair(plain(one.recording), plain(getattr(one, p))) for one in clips} for p in paths},
        spoken={one.name: Utterance(plain(one.wave), one.symbols, one.text, one) for one in spoken},
        recorded={
            clip.clip: Utterance(plain(studio.wave(index)), clip.symbols, clip.text)
            for index, clip in zip(studio.heldout, heldout, strict=True)
        },
        ears=ears,
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
    transcribe = load_recogniser(transcriber, studio.device, language) if transcriber else None
    return Ears(_phone_recogniser(studio, language), transcribe, centroid / centroid.norm())


def _phone_recogniser(studio: Studio, language: str) -> PhoneEncoder | None:
    is_spoken = language in studio.base.text.languages
    return load_phone_recogniser(studio.base, studio.cache) if is_spoken else None
