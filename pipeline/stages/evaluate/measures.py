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

from models.phones.phone_classes import sounds_of_symbols
from pipeline.io.audio import resample
from pipeline.records.metrics import Metric
from pipeline.signal import quality
from pipeline.signal.gate import Measured, Scores
from pipeline.stages.evaluate.ears import RATE_HZ, Ears, Utterance
from pipeline.stages.evaluate.studio import PATHS, FreeSentence, Studio, Wave
from pipeline.text.edits import edit_distance
from pipeline.text.listening import Comparison, compare

MAX_DELAY_S = 0.1
PHONES_PER_S = (4.0, 30.0)  # outside, nobody is speaking
SILENT_DBFS = -50.0
# A passage counts from this share of the text, and from so many units: less is a sound misheard.
PASSAGE_SHARE, PASSAGE_UNITS = 0.2, 4

Resounded = Mapping[str, Mapping[str, Wave]]  # clip -> path -> what became of it


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
        return quality.align_globally(self.recording, self.other, int(MAX_DELAY_S * RATE_HZ))

    @cached_property
    def pitch(self) -> quality.PitchError | None:
        return quality.pitch_error(self.recording, self.other, RATE_HZ)

    @cached_property
    def pesq_wb(self) -> float | None:
        return quality.pesq_wb(self.aligned.reference, self.aligned.other)

    @cached_property
    def stoi(self) -> float | None:
        return quality.stoi(self.aligned.reference, self.aligned.other, RATE_HZ)

    @cached_property
    def mcd_db(self) -> float | None:
        return quality.mel_cepstral_distortion(self.recording, self.other, RATE_HZ)


# -- the measures ---------------------------------------------------------------------------------------------------


def has_trained_weights(base: Foundation) -> tuple[float, str]:
    roles = ", ".join(base.random_roles)
    told = (
        f"random numbers stand in for: {roles}; such a base only tries the line"
        if roles
        else "every network is trained"
    )
    return float(not roles), told


def speaks_language(base: Foundation) -> tuple[float, str]:
    told = f"the voice is {base.language}, the base knows {', '.join(base.languages)}"
    return float(base.language in base.languages), told


def pesq_wb(pair: Pair) -> float | None:
    return pair.pesq_wb


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


def tempo(said: Utterance, _: Ears) -> float | None:
    """How far its length is from that of its tokens, as a share of it: a sound drawn at another rate is no voice's."""
    if said.sentence is None or not said.sentence.asked_s:
        return None
    return abs(len(said.wave) / RATE_HZ / said.sentence.asked_s - 1)


def character_errors(said: Utterance, ears: Ears) -> float | None:
    """Edits to get from what was heard to the text, in units that sound (`pipeline/text/listening.py`)."""
    heard = _heard_beside(said, ears)
    return heard.rate if heard is not None else None


def as_written(said: Utterance, ears: Ears) -> float | None:
    """Neither broken off nor with passages that are repeated or invented."""
    heard = _heard_beside(said, ears)
    return float(not faults(heard)) if heard is not None else None


def heard_faults(said: Utterance, ears: Ears) -> tuple[str, ...]:
    """What is wrong with a sentence besides single sounds, by the recogniser; nothing without one."""
    heard = _heard_beside(said, ears)
    return faults(heard) if heard is not None else ()


def faults(heard: Comparison) -> tuple[str, ...]:
    """Passages that are missing at an end, said twice, or invented."""
    passage = max(PASSAGE_UNITS, PASSAGE_SHARE * heard.units)
    found = {
        "the beginning is missing": heard.dropped_at_start >= passage,
        "it breaks off": heard.dropped_at_end >= passage,
        "a passage is repeated": heard.repeated > 0 and heard.added >= heard.repeated,
        "words are invented": heard.repeated == 0 and heard.longest_added >= passage,
    }
    return tuple(told for told, is_so in found.items() if is_so)


def _heard_beside(said: Utterance, ears: Ears) -> Comparison | None:
    heard = ears.read(said)
    compared = compare(said.text, heard, ears.language) if heard is not None else None
    return compared if compared is not None and compared.units else None


def phone_errors(said: Utterance, ears: Ears) -> float | None:
    """Edits to get from what the base's recogniser hears to the phones of the text, per phone."""
    table = sounds_of_symbols()
    wanted = [sound for symbol in said.symbols for sound in table.get(symbol, ())]
    if ears.recogniser is None or not wanted or not said.lasts(0.25):
        return None
    if not all(symbol in table for symbol in said.symbols):
        return None
    return edit_distance(ears.recogniser.recognise(torch.from_numpy(said.wave)), wanted) / len(wanted)


def ecapa_likeness(said: Utterance, ears: Ears) -> float | None:
    return ears.like(said)


def ge2e_similarity(said: Utterance, ears: Ears) -> float | None:
    return ears.resembles(said)


def dnsmos_overall(said: Utterance, ears: Ears) -> float | None:
    return ears.score(said)


def distillmos(said: Utterance, ears: Ears) -> float | None:
    return ears.grade(said)


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
    "free_speech.tempo": tempo,
    "free_speech.cer": character_errors,
    "free_speech.as_written": as_written,
    "free_speech.phone_errors": phone_errors,
    "free_speech.likeness": ecapa_likeness,
    "free_speech.similarity": ge2e_similarity,
    "free_speech.dnsmos_ovr": dnsmos_overall,
    "free_speech.naturalness": distillmos,
}


# -- measuring ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measuring:
    """Everything there is to measure, by clip or sentence.

    ``pairs``: path (`studio.PATHS`) -> clip -> what became of it on that path.
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
        others = takes.recorded if metric.against == "recordings" or metric.knows_speaker else {}
        return Measured(_heard(tool, takes.spoken, takes.ears), _heard(tool, others, takes.ears), absent)
    is_copy = metric.evidence == "copy_synthesis"
    new, old = ("copy", "bare_copy") if is_copy else ("adapted", metric.against)
    return Measured(_compared(tool, takes.pairs[new]), _compared(tool, takes.pairs.get(old, {})))


def _heard(tool: Callable[..., float | None], said: Mapping[str, Utterance], ears: Ears) -> Scores:
    return {name: tool(one, ears) for name, one in said.items()}


def _compared(tool: Callable[..., float | None], pairs: Mapping[str, Pair]) -> Scores:
    return {clip: tool(pair) for clip, pair in pairs.items()}


def take(studio: Studio, clips: Resounded, spoken: Sequence[FreeSentence], ears: Ears) -> Measuring:
    """All sounds at the rate at which they are measured."""
    rate_hz = studio.features.sample_rate_hz

    def plain(wave: Wave) -> Wave:
        return resample(wave, rate_hz, RATE_HZ)

    def pairs(clip: str, recording: Wave) -> dict[str, Pair]:
        made = clips[clip]
        found = {path: Pair(recording, plain(wave)) for path, wave in made.items()}
        if np.array_equal(made["copy"], made["bare_copy"]):  # training does not reach what draws: measured once
            found["bare_copy"] = found["copy"]
        return found

    heldout = {index: studio.features.clips[index] for index in studio.heldout}
    recorded = {
        clip.clip: Utterance(plain(studio.wave(index)), clip.symbols, clip.text) for index, clip in heldout.items()
    }
    by_clip = {clip: pairs(clip, one.wave) for clip, one in recorded.items()}
    return Measuring(
        foundation=Foundation(studio.base.random_roles, studio.base.text.languages, ears.language),
        pairs={path: {clip: found[path] for clip, found in by_clip.items()} for path in PATHS},
        spoken={one.name: Utterance.of(one) for one in spoken},
        recorded=recorded,
        ears=ears,
    )
