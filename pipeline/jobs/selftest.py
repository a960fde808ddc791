"""The gate before voices whose verdict is known: a good voice, and the same voice broken in one way after another.

What is put before the gate is an `Offer`, measured when it is asked for; a program that keeps the numbers of each
(`benchmarks/gate.py`) can judge them again by other limits.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.speaking.rendering import Delivery, Renderer
from pipeline.jobs.broken_adapters import ADAPTER_MUTANTS, Change, write_broken
from pipeline.records.adapter import ADAPTER_FOLDER
from pipeline.records.metrics import METRICS
from pipeline.records.quality import Floors
from pipeline.records.selftest import Selftest, Trial
from pipeline.records.settings import FinetuneSettings
from pipeline.signal import gate
from pipeline.signal.mutants import SOUND_MUTANTS, SoundMutant, swapped_words
from pipeline.stages.evaluate.ears import RATE_HZ, Ears, Utterance
from pipeline.stages.evaluate.floors import explain
from pipeline.stages.evaluate.measures import Measuring, measure
from pipeline.stages.evaluate.stage import ears_of, hear, listen
from pipeline.stages.evaluate.studio import Casting, EvaluateJob, Studio, base_of, speak_sentences

SWAPPED_SHARE = 0.2
AS_IT_IS = "as it is"
OTHER_SEEDS = (100, 200)

Numbers = Mapping[str, gate.Measured]  # by the metric's id


@dataclass(frozen=True)
class Offer:
    """Something that is put before the gate. ``is_good``: it should pass. ``measure``: what the gate hears of it."""

    name: str
    is_good: bool
    measure: Callable[[], Numbers]


class Stand:
    """A good voice on trial: heard when something is asked of it, and only once. ``seed``: of its first sentence."""

    def __init__(self, job: EvaluateJob, seed: int = 0, ears: Ears | None = None) -> None:
        self.job, self.seed, self._ears = job, seed, ears
        self.base = base_of(job)

    @property
    def floors(self) -> Floors:
        return explain(self.job.parameters["floors"], self.job.parameters["waived"], self.base)

    @cached_property
    def studio(self) -> Studio:
        return Studio(self.job, self.base)

    @cached_property
    def ears(self) -> Ears:
        return self._ears or ears_of(self.job, self.studio)

    @cached_property
    def takes(self) -> Measuring:
        return listen(self.job, self.studio, self.ears, Casting(seed=self.seed))[1]

    @cached_property
    def numbers(self) -> Numbers:
        return {id_: measure(metric, self.takes) for id_, metric in METRICS.items()}

    def with_speech(self, spoken: Mapping[str, Utterance], **others: Any) -> Numbers:
        """Other speech in the place of its own; all else stays measured. ``others``: what else is not its own."""
        hear(self.job, self.ears, spoken.values())
        changed = replace(self.takes, spoken=spoken, **others)
        is_other = {"free_speech", *(["resynthesis"] if others else [])}
        again = {id_: measure(metric, changed) for id_, metric in METRICS.items() if metric.evidence in is_other}
        return {**self.numbers, **again}

    def spoken_as(self, casting: Casting) -> dict[str, Utterance]:
        """Its sentences by another cast."""
        said = speak_sentences(self.studio, self.job, replace(casting, seed=casting.seed + self.seed))
        return {one.name: Utterance.of(one) for one in said}

    def with_adapter(self, folder: Path) -> Numbers:
        """Another adapter in the place of its own, judged by all that is known of its recordings."""
        finetune = replace(self.job.inputs["finetune"], folder=folder)
        job = replace(self.job, inputs={**self.job.inputs, "finetune": finetune})
        return Stand(job, self.seed, self.ears).numbers

    def chance(self, name: str) -> np.random.Generator:
        """The same for the same trial, whatever was tried before it."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])


def offers(
    stand: Stand,
    others: Sequence[Stand] = (),
    variants: Mapping[str, Callable[[], EvaluateJob]] | None = None,
    *,
    whole: bool = False,
) -> Iterator[Offer]:
    """All that is put before the gate in the place of one voice, in the order of the table.

    Args:
        others: somebody else on the same base, who must not pass for this voice.
        variants: what is this voice as well, trained a little differently: it should pass.
        whole: what speaks again for each trial, too, which takes as long as an evaluation.
    """
    yield Offer(AS_IT_IS, True, lambda: stand.numbers)
    for seed in OTHER_SEEDS if whole else ():
        yield Offer(f"other seeds, {seed}", True, partial(_cast, stand, Casting(seed=seed)))
    for name, mutant in SOUND_MUTANTS.items():
        yield Offer(name, False, partial(_broken_sound, stand, name, mutant))
    yield Offer("20 % of the words swapped", False, partial(_misread, stand))
    for other in others:
        voice = other.job.voice
        yield Offer(f"speech of {voice}", False, partial(_speech_of, stand, other))
        if whole:
            adapter = other.job.inputs["finetune"].folder
            yield Offer(f"adapter of {voice}", False, partial(stand.with_adapter, adapter))
            yield Offer(f"reference of {voice}", False, partial(_reference_of, stand, other))
    for name, change in ADAPTER_MUTANTS.items() if whole else ():
        yield Offer(name, False, partial(_broken_adapter, stand, change))
    if whole:
        yield Offer("tokens shuffled", False, partial(_shuffled, stand))
    for name, train in (variants or {}).items():
        yield Offer(name, True, partial(_variant, train, stand.seed))


def variant_flags(settings: FinetuneSettings) -> dict[str, dict[str, Any]]:
    """Good variants that have to be trained: their name -> the settings in which they differ."""
    epochs, heldout = settings.epochs, settings.heldout_clips
    return {
        "one epoch less": {"finetune.epochs": max(1, epochs - 1)},
        "one epoch more": {"finetune.epochs": epochs + 1},
        "other held-out clips": {"finetune.heldout_clips": heldout + 1},
    }


def selftest(
    job: EvaluateJob,
    others: Sequence[EvaluateJob] = (),
    variants: Mapping[str, Callable[[], EvaluateJob]] | None = None,
    *,
    whole: bool = False,
    seed: int = 0,
) -> Selftest:
    """Every trial of one voice that should pass."""
    stand = Stand(job, seed)
    offered = offers(stand, [Stand(other, seed) for other in others], variants, whole=whole)
    trials = tuple(judged(offer.name, offer.measure(), stand.floors, is_good=offer.is_good) for offer in offered)
    return Selftest(voice=job.voice, base=stand.base.name, ears=tuple(stand.ears.digests), trials=trials)


def judged(name: str, numbers: Numbers, floors: Floors, *, is_good: bool) -> Trial:
    """What the gate says to these numbers."""
    checks = gate.judge_all(numbers, floors)
    return Trial(
        name=name,
        is_good=is_good,
        blocked_by=tuple(check.id for check in checks if check.blocks),
        review=tuple(check.id for check in checks if check.status == "review"),
    )


# -- trials ---------------------------------------------------------------------------------------------------------


def _variant(train: Callable[[], EvaluateJob], seed: int) -> Numbers:
    return Stand(train(), seed).numbers


def _cast(stand: Stand, casting: Casting) -> Numbers:
    return stand.with_speech(stand.spoken_as(casting))


def _broken_sound(stand: Stand, name: str, mutant: SoundMutant) -> Numbers:
    chance = stand.chance(name)
    return stand.with_speech({key: _broken(one, mutant, chance) for key, one in stand.takes.spoken.items()})


def _broken(one: Utterance, mutant: SoundMutant, chance: np.random.Generator) -> Utterance:
    wave = mutant(one.wave, RATE_HZ, chance)
    sentence = None if one.sentence is None else replace(one.sentence, wave=wave, sample_rate_hz=RATE_HZ)
    return replace(one, wave=wave, sentence=sentence)


def _misread(stand: Stand) -> Numbers:
    """The same sound for other texts: what was said has a fifth of its words wrong."""
    spoken, chance = {}, stand.chance("swapped")
    for name, one in stand.takes.spoken.items():
        others = " ".join(other.text for key, other in stand.takes.spoken.items() if key != name)
        spoken[name] = replace(one, text=swapped_words(one.text, others, SWAPPED_SHARE, chance))
    return stand.with_speech(spoken)


def _speech_of(stand: Stand, other: Stand) -> Numbers:
    return stand.with_speech(other.takes.spoken)


def _reference_of(stand: Stand, other: Stand) -> Numbers:
    return _cast(stand, Casting(reference=other.studio.reference_sound()))


def _broken_adapter(stand: Stand, change: Change) -> Numbers:
    with TemporaryDirectory() as made:
        write_broken(
            stand.job.inputs["finetune"].folder / ADAPTER_FOLDER, Path(made) / ADAPTER_FOLDER, change, stand.seed
        )
        return stand.with_adapter(Path(made))


def _shuffled(stand: Stand) -> Numbers:
    """Every sentence from its own tokens in another order, and held-out recordings likewise."""
    spoken = stand.spoken_as(Casting(drawn_by=lambda renderer: _Shuffling(renderer, stand.seed)))
    return stand.with_speech(spoken, pairs={**stand.takes.pairs, "adapted": stand.takes.pairs["shuffled"]})


class _Shuffling:
    """A renderer that is handed its tokens in another order."""

    def __init__(self, renderer: Renderer, seed: int) -> None:
        self._renderer, self._seed = renderer, seed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._renderer, name)

    def render(self, tokens: Tensor, said: Delivery) -> Tensor:
        order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(self._seed))
        return self._renderer.render(tokens[order], said)
