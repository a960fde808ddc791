"""The gate before voices whose verdict is known: a good voice, and the same voice broken in one way after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.loading.bases import Base, find_base
from pipeline.records.adapter import ADAPTER_FOLDER
from pipeline.records.metrics import METRICS
from pipeline.records.quality import Floors
from pipeline.records.selftest import Selftest, Trial
from pipeline.signal import gate
from pipeline.signal.mutants import SOUND_MUTANTS, SoundMutant, swapped_words
from pipeline.stages.evaluate.ears import RATE_HZ, Utterance
from pipeline.stages.evaluate.floors import explain
from pipeline.stages.evaluate.measures import Measuring, measure
from pipeline.stages.evaluate.stage import listen
from pipeline.stages.evaluate.studio import EvaluateJob, Studio

SWAPPED_SHARE = 0.2
WEIGHTS_FILE = "adapter_model.safetensors"

Change = Callable[[str, Tensor, torch.Generator], Tensor]  # name, weight, chance


def _louder(name: str, weight: Tensor, _: torch.Generator) -> Tensor:
    return weight * 10 if ".lora_B." in name else weight


def _random(_: str, weight: Tensor, chance: torch.Generator) -> Tensor:
    return torch.randn(weight.shape, generator=chance) * max(float(weight.float().std()), 0.05)


def _half(name: str, weight: Tensor, chance: torch.Generator) -> Tensor:
    is_gone = ".lora_B." in name and bool(torch.rand(1, generator=chance) < 0.5)
    return torch.zeros_like(weight) if is_gone else weight


def _shaken(_: str, weight: Tensor, chance: torch.Generator) -> Tensor:
    return weight + torch.randn(weight.shape, generator=chance) * 2 * weight.float().std()


ADAPTER_MUTANTS: dict[str, Change] = {
    "adapter x 10": _louder,
    "random adapter": _random,
    "half the adapter's layers zero": _half,
    "adapter with noise": _shaken,
}


def selftest(job: EvaluateJob, other: EvaluateJob | None = None, *, whole: bool = False, seed: int = 0) -> Selftest:
    """Every trial of one voice that should pass.

    Args:
        other: somebody else on the same base, whose speech and adapter must not pass for this voice's.
        whole: break the adapter, too; the voice speaks again for each, which takes as long as an evaluation.
    """
    base = find_base(job.parameters["base"], job.machine.bases, job.machine.replaced_bases)
    floors = explain(job.parameters["floors"], job.parameters["waived"], base)
    takes = _listen(job, base)
    good = {id_: measure(metric, takes) for id_, metric in METRICS.items()}
    trials = [_trial("as it is", good, floors, is_good=True)]
    for half in (0, 1):
        spoken = {name: one for number, (name, one) in enumerate(takes.spoken.items()) if number % 2 == half}
        trials.append(_free_trial(f"sentences {half + 1}, {half + 3}, ...", takes, spoken, good, floors, is_good=True))
    chance = np.random.default_rng(seed)
    for name, mutant in SOUND_MUTANTS.items():
        spoken = {key: _broken(one, mutant, chance) for key, one in takes.spoken.items()}
        trials.append(_free_trial(name, takes, spoken, good, floors))
    trials.append(_free_trial("20 % of the words swapped", takes, _misread(takes, chance), good, floors))
    if other is not None:
        strange = _listen(other, base)
        trials.append(_free_trial(f"somebody else: {other.voice}", takes, strange.spoken, good, floors))
    if whole:
        for name, change in ADAPTER_MUTANTS.items():
            trials.append(_adapter_trial(name, change, job, base, floors, seed))
    return Selftest(voice=job.voice, base=base.name, ears=tuple(takes.ears.digests), trials=tuple(trials))


def _listen(job: EvaluateJob, base: Base) -> Measuring:
    return listen(job, Studio(job, base))[1]


def _trial(name: str, measured: Mapping[str, gate.Measured], floors: Floors, *, is_good: bool = False) -> Trial:
    checks = gate.judge_all(measured, floors)
    return Trial(
        name=name,
        is_good=is_good,
        blocked_by=tuple(check.id for check in checks if check.blocks),
        review=tuple(check.id for check in checks if check.status == "review"),
    )


def _free_trial(
    name: str,
    takes: Measuring,
    spoken: Mapping[str, Utterance],
    good: Mapping[str, gate.Measured],
    floors: Floors,
    *,
    is_good: bool = False,
) -> Trial:
    """Other speech in the place of the voice's own; all else stays measured."""
    changed = replace(takes, spoken=spoken)
    again = {
        id_: replace(measure(metric, changed), old=good[id_].old)
        for id_, metric in METRICS.items()
        if metric.evidence == "free_speech"
    }
    return _trial(name, {**good, **again}, floors, is_good=is_good)


def _broken(one: Utterance, mutant: SoundMutant, chance: np.random.Generator) -> Utterance:
    wave = mutant(one.wave, RATE_HZ, chance)
    sentence = None if one.sentence is None else replace(one.sentence, wave=wave, sample_rate_hz=RATE_HZ)
    return replace(one, wave=wave, sentence=sentence)


def _misread(takes: Measuring, chance: np.random.Generator) -> dict[str, Utterance]:
    """The same sound for other texts: what was said has a fifth of its words wrong."""
    spoken = {}
    for name, one in takes.spoken.items():
        others = " ".join(other.text for key, other in takes.spoken.items() if key != name)
        spoken[name] = replace(one, text=swapped_words(one.text, others, SWAPPED_SHARE, chance))
    return spoken


def _adapter_trial(name: str, change: Change, job: EvaluateJob, base: Base, floors: Floors, seed: int) -> Trial:
    with TemporaryDirectory() as made:
        finetune = job.inputs["finetune"]
        _write_broken(finetune.folder / ADAPTER_FOLDER, Path(made) / ADAPTER_FOLDER, change, seed)
        broken = replace(job, inputs={**job.inputs, "finetune": replace(finetune, folder=Path(made))})
        takes = _listen(broken, base)
        return _trial(name, {id_: measure(metric, takes) for id_, metric in METRICS.items()}, floors)


def _write_broken(source: Path, target: Path, change: Change, seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.name == WEIGHTS_FILE:
            state = load_file(path)
            save_file({name: change(name, state[name], chance).contiguous() for name in sorted(state)}, copy)
        elif path.is_file():
            copy.write_bytes(path.read_bytes())
