"""The one table of the line's stages. Whoever names a stage reads it: the walk, the command line, CI engines, the docs.

Standard library only, and what a row points to is imported when it is used: `voxline --help` reads this, too.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stage:
    """One row: what a stage is called, where its code lies, what it reads and what it leaves.

    References are written ``module:name``.

    Attributes:
        settles: what is known when it is done; the docs and the help show it.
        version: part of the key; raise it when the same inputs give another result.
        entry: ``function(job) -> record``.
        record: the class of what it returns.
        reads: earlier stages whose results it needs: its key covers theirs, and their files have to lie where it runs.
        section: the attribute of ``Settings`` that it is handed; empty where it has no settings.
        digests: what else it reads, by its name in ``workspace.DIGESTS``.
        parameters: what else its key covers, by its name in ``workspace.PARAMETERS``.
        hands_on: the files and folders that later stages read of it.
        keeps: patterns of what CI keeps of its folder: for later jobs, and for people.
        page: the report that a person opens.
        needs_gpu: its CI job runs on a GPU.
        stops: the exit code with which its verdict stops a voice; None where it judges nothing.
        verdict: ``function(voice, outcome)``, which raises the error of that exit code.
        notice: ``function(workspace, outcome)``, called when it was done just now: tells whoever wants to know.
        is_verdict: what it says holds for the very files it read, so a result that does not name them is none.
        writes: what it leaves lies in the registry, whose own record says whether it was done: on protected machines
            only, one at a time for each voice, and after all others.
        takes_strangers: a merge request's pipeline runs it: it reads nothing but the voice, and needs no base.
    """

    name: str
    settles: str
    version: str
    entry: str
    record: str
    reads: tuple[str, ...] = ()
    section: str = ""
    digests: tuple[str, ...] = ("base",)
    parameters: tuple[str, ...] = ("base",)
    hands_on: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ("result.json",)
    page: str = ""
    needs_gpu: bool = False
    stops: int | None = None
    verdict: str = ""
    notice: str = ""
    is_verdict: bool = False
    writes: bool = False
    takes_strangers: bool = False

    @property
    def takes_base(self) -> bool:
        return "base" in self.digests

    @property
    def is_judge(self) -> bool:
        """It may turn a voice down, which is then noted in the registry; waiting for a person is no refusal."""
        return self.stops is not None and not self.writes


# In the order in which they run; what writes to the registry comes last. `keeps` leaves behind the sounds that the page
# of `evaluate` plays, too, and records that `result.json` holds.
STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="validate",
            settles="whether the recordings are good enough, and at least 60 s of speech",
            version="2",
            entry="pipeline.stages.validate.stage:work",
            record="pipeline.records.clip_report:ClipReport",
            section="validate_",
            digests=("content", "tools"),
            parameters=("language", "statement"),
            hands_on=("clips",),
            keeps=("result.json", "report.html", "clips/*"),
            page="report.html",
            stops=10,
            verdict="pipeline.line.verdict:refuse_recordings",
            notice="pipeline.line.verdict:tell_of_recordings",
            takes_strangers=True,
        ),
        Stage(
            name="extract",
            settles="phonemes, semantic tokens, BERT features, speaker vector",
            version="3",
            entry="pipeline.stages.extract:work",
            record="pipeline.records.feature:FeatureRecord",
            reads=("validate",),
            section="extract",
            hands_on=("features.safetensors",),
            keeps=("result.json", "features.safetensors"),
        ),
        Stage(
            name="finetune",
            settles="LoRA adapters for text-to-semantic GPT and synthesizer; base frozen",
            version="2",
            entry="pipeline.stages.finetune:work",
            record="pipeline.records.adapter:AdapterRecord",
            reads=("validate", "extract"),
            section="finetune",
            hands_on=("adapter",),
            keeps=("result.json", "adapter/*/*"),
            needs_gpu=True,
        ),
        Stage(
            name="evaluate",
            settles="measured on held-out recordings: pass or block",
            version="3",
            entry="pipeline.stages.evaluate.stage:work",
            record="pipeline.records.quality:QualityReport",
            reads=("validate", "extract", "finetune"),
            section="evaluate",
            digests=("base", "ears"),
            parameters=("base", "version", "language", "floors", "waived"),
            hands_on=("reference", "report"),
            keeps=("result.json", "reference/*", "report/*"),
            page="report/index.html",
            stops=11,
            verdict="pipeline.line.verdict:block_voice",
            is_verdict=True,
        ),
        Stage(
            name="publish",
            settles="files first, release record next, channel pointer last",
            version="1",
            entry="pipeline.stages.publish:work",
            record="pipeline.records.release:Release",
            reads=("validate", "extract", "finetune", "evaluate"),
            section="publish",
            parameters=("base", "version", "content", "recipe", "manifest", "channel"),
            keeps=(),
            stops=12,
            verdict="pipeline.line.verdict:wait_for_review",
            writes=True,
        ),
    )
}


def load(reference: str) -> Any:
    """What a row's ``module:name`` points to."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def names() -> tuple[str, ...]:
    """All stages in their order."""
    return tuple(STAGES)


def first() -> Stage:
    return next(iter(STAGES.values()))


def last() -> Stage:
    return next(reversed(STAGES.values()))


def stored() -> tuple[Stage, ...]:
    """Those whose results lie in the store: done once and found again."""
    return tuple(stage for stage in STAGES.values() if not stage.writes)


def until(name: str) -> Iterator[Stage]:
    """The stored stages up to one of them, and with it."""
    for stage in stored():
        yield stage
        if stage.name == name:
            return


def refusing(exit_code: int) -> Stage:
    """The stage that turns a voice down with this exit code; the last verdict where none does."""
    judges = [stage for stage in STAGES.values() if stage.is_judge]
    return next((stage for stage in judges if stage.stops == exit_code), judges[-1])


def told(joined: str = "and") -> str:
    """All names for a sentence."""
    *others, last_one = names()
    return f"{', '.join(others)} {joined} {last_one}"
